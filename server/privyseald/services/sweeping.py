"""What is due without anybody's asking: destructions, and the ends of cryptoperiods."""

from __future__ import annotations

from collections.abc import Callable

from privyseald.model import lifecycle
from privyseald.model.errors import DomainError
from privyseald.model.obstacles import before_retiring
from privyseald.model.records import KeyVersionRecord
from privyseald.model.schemes import KeyVersionState
from privyseald.ports import Alarm, Clock, Keyholder, Sealed, Store, Transaction, View
from privyseald.services.field_status import situation
from privyseald.services.key_records import Told, put, require_version

DAEMON = "daemon"
"""Who does what is due."""


class Sweeper:
    """Does what is due: destroys, tells of cryptoperiods that end, and ends them.

    Args:
        store: The store.
        keyholder: Destroys private keys.
        clock: Tells the time.
        alarm: Told of what could not be done.
    """

    def __init__(self, store: Store, keyholder: Keyholder, clock: Clock, alarm: Alarm) -> None:
        self._alarm = alarm
        self._store = store
        self._keyholder = keyholder
        self._clock = clock
        # Until when people were told of ends: in general, and of single versions.
        self._told: int | None = None
        self._told_of: dict[str, int] = {}

    async def begin(self) -> None:
        """Note until when people were told: the log's last leaf, before another is made.

        What came due while no daemon ran is told at the first sweep.
        """
        self._told = await self._store.read(_last_leaf) or self._clock()

    async def sweep(self) -> None:
        """Do what is due now; what fails is tried again the next time."""
        if self._told is None:
            await self.begin()
        now, so_far = self._clock(), self._told or self._clock()
        for version in await self._store.read(lambda view: list(view.keys.due(now))):
            await self._destroy(version, now)
        before, self._told_of = self._told_of, {}
        for version in await self._store.read(lambda view: list(view.keys.expiring())):
            told = before.get(version.name, so_far)
            done = await self._expire(version, told, now)
            self._told_of[version.name] = max(told, now) if done else told
        self._told = max(so_far, now)

    async def _destroy(self, version: KeyVersionRecord, now: int) -> None:
        # First the key, then the log: it must not tell of what did not happen.
        try:
            if version.blob:
                await self._keyholder.destroy(version.wrapped)
        except DomainError as error:
            self._alarm.duty_failed("destroy", error, version.name)
            return

        def act(tx: Transaction) -> Callable[[Sealed], bytes]:
            found = require_version(tx, version.app, version.key, version.version)
            life = lifecycle.destroy(found.life, now)
            put(tx, found, life, Told("key.destroy", DAEMON, "its time has come"))
            return lambda _: b""

        await self._try("destroy", version, act)

    async def _expire(self, version: KeyVersionRecord, told: int, now: int) -> bool:
        """Tell of the end, and end it; return whether that is done."""

        def due(view: View, found: KeyVersionRecord) -> tuple[int | None, bool]:
            """Return the days left to be told of, and whether it is over and ends."""
            over = found.state is KeyVersionState.ACTIVE and 0 < found.expires_at <= now
            ends = over and self._free(view, found, now)
            return lifecycle.warnings_due(found.life, told, now), ends

        if await self._store.read(lambda view: due(view, version)) == (None, False):
            return True

        def act(tx: Transaction) -> Callable[[Sealed], bytes]:
            # Anew: people may have changed it since it was read.
            found = require_version(tx, version.app, version.key, version.version)
            days, ends = due(tx, found)
            if days is not None:
                tx.record(
                    {
                        "act": "key.cryptoperiod-warning",
                        "principal": DAEMON,
                        "keyVersion": found.name,
                        "daysLeft": days,
                    }
                )
            if ends:
                life = lifecycle.deactivate(found.life)
                put(tx, found, life, Told("key.deactivate", DAEMON, "its cryptoperiod is over"))
            return lambda _: b""

        return await self._try("end a cryptoperiod", version, act)

    @staticmethod
    def _free(view: View, version: KeyVersionRecord, now: int) -> bool:
        """Say whether it is no primary, and nothing is against its retirement."""
        found = situation(view, now, version.app, version.key)
        return version.version != found.key.primary and not before_retiring(version.version, found)

    async def _try(
        self,
        duty: str,
        version: KeyVersionRecord,
        act: Callable[[Transaction], Callable[[Sealed], bytes]],
    ) -> bool:
        try:
            await self._store.commit(act)
        except DomainError as error:
            self._alarm.duty_failed(duty, error, version.name)
            return False
        return True


def _last_leaf(view: View) -> int:
    """Return when the log's last leaf was made, seconds since 1970; 0 if there is none."""
    size = view.log.head().size
    return view.log.leaves(size - 1, 1)[0][2] if size else 0
