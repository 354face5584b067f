"""Refusals in the log: each of them, until somebody makes too many."""

from __future__ import annotations

from collections.abc import Callable

from privyseal.verify.canonical import Json

from privyseald.model.limits import Buckets
from privyseald.ports import Clock, Sealed, Store, Transaction

_PER_SECOND, _BURST = 1, 200
_MOST_NAMES = 20
_COUNTED_SECONDS = 60


class Refusals:
    """Appends refusals to the log, so many for each who causes them.

    The log is for ever, and anybody can be refused: what is beyond a cause's share is counted
    and told of in one leaf, once a minute.

    Args:
        store: The store.
        clock: Tells the time.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._shares = Buckets(_PER_SECOND, _BURST)
        self._unlogged: dict[str, int] = {}
        self._told = 0

    async def add(self, cause: str, leaf: dict[str, Json]) -> None:
        """Append a refusal, or count it.

        Args:
            cause: Whose share it takes: a principal, or `unknown` for all who are none.
            leaf: What to append; `act` is added.
        """
        if not self._shares.take(cause, self._clock()):
            self._count(cause, 1)
            return
        await self._append({"act": "refusal", **leaf})

    async def flush(self) -> None:
        """Tell the log how many were only counted, if it was not told in the last minute.

        Raises:
            Unavailable: If it cannot be told now; then they are counted on.
        """
        now = self._clock()
        if not self._unlogged or 0 <= now - self._told < _COUNTED_SECONDS:
            return
        self._told = now
        taken, self._unlogged = self._unlogged, {}
        counts: dict[str, Json] = dict(taken)
        try:
            await self._append({"act": "refusals.counted", "principal": "daemon", "counts": counts})
        except BaseException:
            self._told = 0
            for cause, count in taken.items():
                self._count(cause, count)
            raise

    def _count(self, cause: str, count: int) -> None:
        if cause not in self._unlogged and len(self._unlogged) >= _MOST_NAMES:
            cause = "others"
        self._unlogged[cause] = self._unlogged.get(cause, 0) + count

    async def _append(self, leaf: dict[str, Json]) -> None:
        def act(tx: Transaction) -> Callable[[Sealed], bytes]:
            tx.record(leaf)
            return lambda _: b""

        await self._store.commit(act)
