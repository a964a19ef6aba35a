"""What the tests with real daemons share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from claudemesh.testing import DevMesh

T = TypeVar("T")


@pytest.fixture(scope="session")
def shared() -> Iterator[DevMesh]:
    """A mesh of alice and bob whose daemons no test disturbs."""
    with DevMesh() as started:
        yield started


def eventually(check: Callable[[], T], seconds: float = 20) -> T:
    """Repeats a check until it gives something true; the last answer when the time is up."""
    end = time.monotonic() + seconds
    while True:
        answer = check()
        if answer or time.monotonic() > end:
            return answer
        time.sleep(0.02)
