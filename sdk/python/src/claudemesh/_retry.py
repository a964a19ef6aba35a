"""How long to wait before a call is made again."""

import random

FIRST = 0.05
GREATEST = 0.5
JITTER = 0.25


class Backoff:
    """50 ms, doubled up to 500 ms, 25 % jitter."""

    def __init__(self) -> None:
        self._next = FIRST

    def next(self) -> float:
        delay = self._next
        self._next = min(GREATEST, delay * 2)
        # Spreads callers; nothing secret.
        return delay * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
