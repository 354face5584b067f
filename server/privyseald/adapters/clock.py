"""The time."""

from __future__ import annotations

import time


def clock() -> int:
    """Return seconds since 1970, UTC; see the port."""
    return int(time.time())
