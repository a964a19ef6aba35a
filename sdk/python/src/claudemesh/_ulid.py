"""ULIDs: ids that sort by the time they were made."""

import secrets
import time

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid() -> str:
    """48 bits of milliseconds and 80 random bits, as 26 characters."""
    value = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return "".join(_DIGITS[value >> shift & 31] for shift in range(125, -1, -5))
