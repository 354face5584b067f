"""Rotates the keys whose certificates a root issues, long before those end.

No native build needs to know: it trusts the root. What is deployed is signed again with the
new version; then the old one is retired, unless a build trusts nothing but its own key.
"""

from __future__ import annotations

from collections.abc import Callable

from privyseald.model import lifecycle
from privyseald.model.errors import DomainError, FailedPrecondition
from privyseald.model.lifecycle import DAY
from privyseald.model.records import KeyRecord, KeyVersionRecord
from privyseald.model.rotation import Rotation, RotationKind, RotationState
from privyseald.model.schemes import KeyIdentity, KeyPlace, KeyVersionState
from privyseald.ports import Alarm, Clock, Keyholder, Sealed, Store, Transaction, View
from privyseald.services.certificates import CertifiedKeys
from privyseald.services.field_status import situation
from privyseald.services.key_records import (
    Told,
    add_standby,
    put,
    require_key,
    require_version,
)
from privyseald.services.renewal import Renewal
from privyseald.services.rotation_steps import add_successor
from privyseald.services.sweeping import DAEMON

RENEW_DAYS = 30
"""How long before a certificate's end another key takes over."""
_WHY = "its certificate ends soon"


class Leaves:
    """Rotates keys that have certificates of a root."""

    def __init__(
        self,
        store: Store,
        keyholder: Keyholder,
        clock: Clock,
        *,
        makes: CertifiedKeys,
        renewal: Renewal,
        alarm: Alarm,
    ) -> None:
        self._store = store
        self._keyholder = keyholder
        self._clock = clock
        self._makes = makes
        self._renewal = renewal
        self._alarm = alarm
        # When people were told of a key, seconds since 1970.
        self._told: dict[str, int] = {}

    async def rotate(self) -> None:
        """Do what is due now; what fails is tried again the next time."""
        for key, busy in await self._store.read(_chained):
            try:
                await self._rotate(key, busy=busy)
            except DomainError:
                self._tell(key)

    def _tell(self, key: KeyRecord) -> None:
        """Tell people once a day of a key that should have been rotated."""
        primary, now = key.version(key.primary), self._clock()
        if primary is None or not self._due(primary) or now - self._told.get(key.name, 0) < DAY:
            return
        self._told[key.name] = now
        self._alarm.certificate_ends(key.name, primary.certificate_ends)

    def _due(self, version: KeyVersionRecord) -> bool:
        ends = version.certificate_ends
        return bool(version.anchor_sha256) and ends - self._clock() <= RENEW_DAYS * DAY

    async def _rotate(self, key: KeyRecord, *, busy: bool) -> None:
        old = key.version(key.primary)
        if old is None or old.state is not KeyVersionState.ACTIVE or busy:
            raise FailedPrecondition("the key cannot be rotated now", reason="KEYS_CHANGING")
        if due := self._due(old):
            await self._replace(old, 1 + max(v.version for v in key.versions))
        others = [
            v.version
            for v in key.versions
            if v.version != key.primary and v.anchor_sha256 and v.state is KeyVersionState.ACTIVE
        ]
        if others or due:
            await self._renewal.cover(key.app, DAEMON)
            await self._retire(key)

    async def _replace(self, old: KeyVersionRecord, number: int) -> None:
        """Make the next version the primary."""
        identity = KeyIdentity(old.app, old.key, number, old.scheme, old.algorithm)
        place = KeyPlace(token=old.wrapped.in_token)
        made = await self._makes.generate(identity, place)
        if made.certified is None or made.certified.anchor_sha256 != old.anchor_sha256:
            # Its root was given up: builds that trust that would refuse another's leaf.
            raise FailedPrecondition("the root has changed", reason="KEYS_CHANGING")
        now = self._clock()
        signature = await self._keyholder.sign_successor(
            old.wrapped, made.wrapped, made.public_key, now
        )

        def act(tx: Transaction) -> Callable[[Sealed], bytes]:
            key = require_key(tx, old.app, old.key)
            current = key.version(key.primary)
            if current != old or _in_rotation(tx, key):
                raise FailedPrecondition("the key changed meanwhile", reason="KEYS_CHANGING")
            new = add_standby(tx, DAEMON, made, now)
            life = lifecycle.activate(new.life, now, key.cryptoperiod_days)
            put(tx, new, life, Told("key.activate", DAEMON, _WHY))
            tx.keys.set_primary(key.app, key.id, new.version)
            step = Rotation(
                app=key.app,
                key=key.id,
                id="",
                kind=RotationKind.PLANNED,
                old=old.version,
                new=new.version,
                state=RotationState.PROMOTED,
                reason=_WHY,
            )
            add_successor(tx, DAEMON, step, (signature, now))
            return lambda _: b""

        await self._store.commit(act)

    async def _retire(self, before: KeyRecord) -> None:
        """Deactivate the chained versions that nothing needs any more."""

        def idle(view: View) -> list[int]:
            found = situation(view, self._clock(), before.app, before.id)
            key = found.key
            covered = all(key.primary in each.signed for each in found.deployed)
            return [
                v.version
                for v in key.versions
                if covered
                and v.version != key.primary
                and v.anchor_sha256
                and v.state is KeyVersionState.ACTIVE
                and not found.trust.lost_by_retiring(key, v.version)
            ]

        if not await self._store.read(idle):
            return

        def act(tx: Transaction) -> Callable[[Sealed], bytes]:
            for number in idle(tx):
                version = require_version(tx, before.app, before.id, number)
                told = Told("key.deactivate", DAEMON, "another has taken over")
                put(tx, version, lifecycle.deactivate(version.life), told)
            return lambda _: b""

        await self._store.commit(act)


def _chained(view: View) -> list[tuple[KeyRecord, bool]]:
    """Return the keys with a version that has a root's certificate; whether people rotate it."""
    names = {(v.app, v.key) for v in view.keys.chained()}
    keys = [require_key(view, app, key) for app, key in sorted(names)]
    return [(key, _in_rotation(view, key)) for key in keys]


def _in_rotation(view: View, key: KeyRecord) -> bool:
    return any(r.open for r in view.rotations.list(key.app, key.id))
