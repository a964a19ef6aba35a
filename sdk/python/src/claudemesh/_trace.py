"""The trace context of an application that has OpenTelemetry."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


@functools.cache
def _inject() -> Callable[[dict[str, str]], Any] | None:
    try:
        from opentelemetry.propagate import inject
    except ImportError:
        return None
    return inject


def trace_context() -> dict[str, str]:
    """`traceparent` and `tracestate` of the current context; empty when there is none."""
    inject = _inject()
    if inject is None:
        return {}
    carrier: dict[str, str] = {}
    inject(carrier)
    return {name: carrier[name] for name in ("traceparent", "tracestate") if name in carrier}
