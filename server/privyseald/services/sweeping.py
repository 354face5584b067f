"""What is due without anybody's asking: destructions, and the ends of cryptoperiods."""

from __future__ import annotations

from collections.abc import Callable

from privyseald.model import lifecycle
from privyseald.model.errors import DomainError
from privyseald.model.field import FieldTrust
from privyseald.model.records import KeyVersionRecord
from privyseald.ports import Clock, Keyholder, Sealed, Store, Transaction, View
from privyseald.services.key_records import Told, put, require_key, require_version

DAEMON = "daemon"
"""Who does what is due."""


class Sweeper:
    """Does what is due: destroys, tells of cryptoperiods that end, and ends them.

    Args:
        store: The store.
        keyholder: Destroys private keys.
        clock: Tells the time.
    """

    def __init__(self, store: Store, keyholder: Keyholder, clock: Clock) -> None:
        self._store = store
        self._keyholder = keyholder
        self._clock = clock
        # Until when people were told of ends: in general, and of single versions.
        self._told: int | None = None
        self._told_of: dict[str, int] = {}

    async def sweep(self) -> None:
        """Do what is due now; what fails is tried again the next time."""
        now = self._clock()
        if self._told is None:
            # What came due while no daemon ran: nothing since the last leaf was told of.
            self._told = await self._store.read(_last_leaf) or now
        for version in await self._store.read(lambda view: list(view.keys.due(now))):
            await self._destroy(version, now)
        before, self._told_of = self._told_of, {}
        for version in await self._store.read(lambda view: list(view.keys.expiring())):
            told = before.get(version.name, self._told)
            done = await self._expire(version, told, now)
            self._told_of[version.name] = max(told, now) if done else told
        self._told = max(self._told, now)

    async def _destroy(self, version: KeyVersionRecord, now: int) -> None:
        # First the key, then the log: it must not tell of what did not happen.
        try:
            if version.blob:
                await self._keyholder.destroy(version.wrapped)
        except DomainError:
            return

        def act(tx: Transaction) -> Callable[[Sealed], bytes]:
            found = require_version(tx, version.app, version.key, version.version)
            life = lifecycle.destroy(found.life, now)
            put(tx, found, life, Told("key.destroy", DAEMON, "its time has come"))
            return lambda _: b""

        await self._try(act)

    async def _expire(self, version: KeyVersionRecord, told: int, now: int) -> bool:
        """Tell of the end, and end it; return whether that is done."""
        days = lifecycle.warnings_due(version.life, told, now)
        over = version.expires_at <= now
        if days is None and not over:
            return True

        def act(tx: Transaction) -> Callable[[Sealed], bytes]:
            found = require_version(tx, version.app, version.key, version.version)
            if days is not None:
                tx.record(
                    {
                        "act": "key.cryptoperiod-warning",
                        "principal": DAEMON,
                        "keyVersion": found.name,
                        "daysLeft": days,
                    }
                )
            if over and self._free(tx, found):
                life = lifecycle.deactivate(found.life)
                put(tx, found, life, Told("key.deactivate", DAEMON, "its cryptoperiod is over"))
            return lambda _: b""

        if days is not None or await self._store.read(lambda view: self._free(view, version)):
            return await self._try(act)
        return True

    @staticmethod
    def _free(view: View, version: KeyVersionRecord) -> bool:
        """Say whether nothing needs a version: it is no primary, and no build depends on it."""
        key = require_key(view, version.app, version.key)
        trust = FieldTrust(tuple(view.builds.list(version.app)))
        return version.version != key.primary and not trust.newly_stranded(key, [version.version])

    async def _try(self, act: Callable[[Transaction], Callable[[Sealed], bytes]]) -> bool:
        try:
            await self._store.commit(act)
        except DomainError:
            return False
        return True


def _last_leaf(view: View) -> int:
    """Return when the log's last leaf was made, seconds since 1970; 0 if there is none."""
    size = view.log.head().size
    return view.log.leaves(size - 1, 1)[0][2] if size else 0
