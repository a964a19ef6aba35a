"""ULIDs: ids that sort by the time they were made."""

import os
import random
import time

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Ten bits are two digits.
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]
_SHIFTS = tuple(range(120, -1, -10))

# The system's generator is asked once, since a question is a call into the kernel,
# during which other threads take over. Nothing secret.
_random = random.Random()  # noqa: S311
# A child would make the ids of its parent.
os.register_at_fork(after_in_child=_random.seed)


def ulid() -> str:
    """48 bits of milliseconds and 80 random bits, as 26 characters."""
    value = time.time_ns() // 1_000_000 << 80 | _random.getrandbits(80)
    return "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])
