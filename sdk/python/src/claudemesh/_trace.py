"""The trace context of an application that has OpenTelemetry."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


@functools.cache
def _opentelemetry() -> tuple[Callable[[], Any], Callable[[dict[str, str]], Any]] | None:
    try:
        from opentelemetry.context import get_current
        from opentelemetry.propagate import inject
    except ImportError:
        return None
    return get_current, inject


def trace_context() -> dict[str, str]:
    """`traceparent` and `tracestate` of the current context; empty when there is none."""
    found = _opentelemetry()
    if found is None:
        return {}
    get_current, inject = found
    carrier: dict[str, str] = {}
    if get_current():
        inject(carrier)
    return {name: carrier[name] for name in ("traceparent", "tracestate") if name in carrier}
