"""The pytest plugin: the fixture `mesh`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from claudemesh.testing import DevMesh


@pytest.fixture
def mesh() -> Iterator[DevMesh]:
    """A mesh with the members alice and bob, for one test."""
    with DevMesh() as started:
        yield started
