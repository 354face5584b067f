"""Rates: token buckets, with the time as an argument."""

from __future__ import annotations

from collections import OrderedDict


class Bucket:
    """Allows a rate, and bursts above it.

    Args:
        rate: Allowed per second in the long run.
        burst: Allowed at once.
    """

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = self._left = burst
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Take one, at a time in seconds; False if there is none left."""
        # Calls that wait end in another order than they came in: a time that has passed must
        # not be counted again.
        if self._at is None:
            self._at = now
        elif now > self._at:
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give(self) -> None:
        """Put one back that was taken and not used."""
        self._left = min(self._burst, self._left + 1)


class Buckets:
    """A bucket for each of many names; of too many, the least recently used is forgotten.

    Args:
        rate: Allowed per second and name in the long run; 0 is without limit.
        burst: Allowed at once.
        most: How many names are remembered.
    """

    def __init__(self, rate: float, burst: float, most: int = 10_000) -> None:
        self._rate, self._burst, self._most = rate, burst, most
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, name: str, now: float) -> bool:
        """Take one of a name's; False if there is none left."""
        if not self._rate:
            return True
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) >= self._most:
                self._buckets.popitem(last=False)
            bucket = self._buckets[name] = Bucket(self._rate, self._burst)
        else:
            self._buckets.move_to_end(name)
        return bucket.take(now)

    def give(self, name: str) -> None:
        """Put one of a name's back that was taken and not used."""
        bucket = self._buckets.get(name)
        if bucket is not None:
            bucket.give()
