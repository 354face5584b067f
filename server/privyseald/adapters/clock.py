"""The time, and whether it can be believed."""

from __future__ import annotations

import time
from collections.abc import Callable

LEEWAY = 60
"""Seconds by which a clock may be behind: synchronising sets it by less."""


def clock() -> int:
    """Return seconds since 1970, UTC; see the port."""
    return int(time.time())


class Steps:
    """Notices that a clock was set, by what was written last and by a clock that cannot be.

    Behind what the log says, tokens and approvals that have ended would count again, and devices
    would take what is signed for older than what they have. Far ahead, what guards against a
    second use would be forgotten while it still counts.

    Args:
        leeway: Seconds by which the clock may be behind the last entry.
        monotonic: Seconds since some moment, which nobody sets.
    """

    def __init__(
        self, leeway: int = LEEWAY, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._leeway = leeway
        self._monotonic = monotonic
        self._last = 0
        self._known: tuple[int, float] | None = None

    def wrote(self, at: int) -> None:
        """Note when something was written last, seconds since 1970."""
        self._last = max(self._last, at)
        if self._known is None:
            self._known = self._last, self._monotonic()

    def behind(self, now: int) -> str:
        """Return what is wrong with the time, in words; empty if nothing is."""
        if now >= self._last - self._leeway:
            return ""
        return (
            f"the daemon's clock is {self._last - now:,} seconds behind the log's last entry; set "
            "it right (if it was ahead when that was made: clock_leeway in the settings)"
        )

    def at_least(self, now: int) -> int:
        """Return the time to write under: never before what was written last."""
        return max(now, self._last)

    def forgets_before(self, now: int) -> int:
        """Return the time before which ended things can be forgotten.

        After a jump that is as long after the last time as has really passed; when this is asked
        the next time, the jump has lasted, and is believed.
        """
        then, at = self._known or (now, self._monotonic())
        believed = then + int(self._monotonic() - at)
        self._known = now, self._monotonic()
        return min(now, believed)
