"""ULIDs: ids that sort by the time they were made."""

import base64
import os
import time

# From the digits of RFC 4648 to those of ULIDs, which leave out I, L, O and U.
_DIGITS = bytes.maketrans(b"0123456789ABCDEFGHIJKLMNOPQRSTUV", b"0123456789ABCDEFGHJKMNPQRSTVWXYZ")


def ulid() -> str:
    """48 bits of milliseconds and 80 random bits, as 26 characters."""
    milliseconds = time.time_ns() // 1_000_000
    # 160 bits are 32 digits; the first six are zeros that only fill up.
    value = bytes(4) + milliseconds.to_bytes(6, "big") + os.urandom(10)
    return base64.b32hexencode(value)[6:].translate(_DIGITS).decode()
