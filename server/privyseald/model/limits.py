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

    def spent(self, now: float) -> bool:
        """Say whether there is none left, at a time in seconds."""
        if self._at is not None:
            self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        return self._left < 1

    def take(self, now: float) -> bool:
        """Take one, at a time in seconds; False if there is none left."""
        if self.spent(now):
            return False
        self._left -= 1
        return True


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

    def spent(self, name: str, now: float) -> bool:
        """Say whether there is none of a name's left."""
        bucket = self._buckets.get(name)
        return bucket is not None and bucket.spent(now)
