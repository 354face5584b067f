"""Rotates the keys whose certificates a root issues, long before those end.

No native build needs to know: it trusts the root. What is deployed is signed again with the
new version; then the old one is retired, unless a build trusts nothing but its own key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from privyseal.verify.receipt import receipt_parts
from privyseal.verify.statement import Statement

from privyseald.model import lifecycle
from privyseald.model.errors import FailedPrecondition
from privyseald.model.lifecycle import DAY
from privyseald.model.records import KeyRecord, KeyVersionRecord
from privyseald.model.rotation import Rotation, RotationKind, RotationState
from privyseald.model.schemes import (
    GeneratedKey,
    KeyIdentity,
    KeyPlace,
    KeyVersionState,
)
from privyseald.ports import Alarm, Clock, Keyholder, Sealed, Store, Transaction, View
from privyseald.services.certificates import CertifiedKeys
from privyseald.services.field_status import situation
from privyseald.services.key_records import (
    Told,
    add_standby,
    deployed,
    put,
    require_key,
    require_version,
)
from privyseald.services.renewal import Renewal
from privyseald.services.rotation_steps import add_successor
from privyseald.services.sweeping import DAEMON

RENEW_DAYS = 30
"""How long before a certificate's end another key takes over."""
_LOOK = 3600
"""Seconds between two looks at a key, so that what fails costs little while it does."""
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
        # When each key was looked at, and people were told of it, seconds since 1970.
        self._looked: dict[str, int] = {}
        self._told: dict[str, int] = {}

    async def rotate(self) -> None:
        """Do what is due now; what fails is tried again within the hour."""
        for app, key_id in await self._store.read(_chained):
            name, now = f"apps/{app}/keys/{key_id}", self._clock()
            if 0 <= now - self._looked.get(name, 0) < _LOOK:
                continue
            self._looked[name] = now
            # Twice: another daemon that came first has then done it.
            error = await self._try(app, key_id) and await self._try(app, key_id)
            await self._tell(app, key_id, error)

    async def _try(self, app: str, key_id: str) -> str:
        """Rotate a key if that is due; return what went wrong, in a word."""
        try:
            await self._rotate(app, key_id)
        except Exception as failure:  # noqa: BLE001 - one key keeps no other from its turn
            self._alarm.duty_failed("rotate a leaf", failure, f"apps/{app}/keys/{key_id}")
            return getattr(failure, "reason", type(failure).__name__)
        return ""

    async def _rotate(self, app: str, key_id: str) -> None:
        key: KeyRecord = await self._store.read(lambda view: require_key(view, app, key_id))
        old = key.version(key.primary)
        if old is None or not old.anchor_sha256 or key.given_up:
            return
        if due := old.certificate_ends - self._clock() <= RENEW_DAYS * DAY or self._early(old):
            await self._replace(key, old)
        if due or any(v is not old and v.state is KeyVersionState.ACTIVE for v in key.versions):
            await self._renewal.cover(app, DAEMON)
            await self._retire(app, key_id)

    def _early(self, version: KeyVersionRecord) -> bool:
        """Say whether its certificate begins later: the clock was ahead when it was made."""
        return version.certificate_begins > self._clock()

    async def _tell(self, app: str, key_id: str, error: str) -> None:
        """Tell people once a day of a key on which something hangs that ends soon.

        That is the primary, or the last certificate that devices have for what is deployed.
        """
        name, now = f"apps/{app}/keys/{key_id}", self._clock()
        try:
            ends: int = await self._store.read(lambda view: _first_end(view, app, key_id))
        except Exception as failure:  # noqa: BLE001 - what cannot be read may end any time
            ends, error = now, type(failure).__name__
        if ends - now > RENEW_DAYS * DAY or 0 <= now - self._told.get(name, 0) < DAY:
            return
        self._told[name] = now
        self._alarm.certificate_ends(name, ends, error)

    async def _replace(self, key: KeyRecord, old: KeyVersionRecord) -> None:
        """Make the next version the primary."""
        # All that is against it, before a key pair is made.
        await self._store.read(lambda view: _require_free(view, old))
        number = 1 + max(v.version for v in key.versions)
        identity = KeyIdentity(old.app, old.key, number, old.scheme, old.algorithm)
        terms = await self._makes.terms(identity)
        issuer = terms.issuer[0].identity if terms is not None and terms.issuer else None
        if terms is None or issuer is None or issuer.public_key_sha256 != old.anchor_sha256:
            # Its root was given up: builds that trust that would refuse another's leaf.
            raise FailedPrecondition("the root has changed", reason="KEYS_CHANGING")
        if terms.ends < old.certificate_ends + DAY and not self._early(old):
            raise FailedPrecondition("the root itself ends soon", reason="KEYS_CHANGING")
        made = await self._makes.generate(identity, KeyPlace(token=old.wrapped.in_token))
        # It ends though the daemon stops meanwhile: only then is it known what became of the key.
        promoting = asyncio.ensure_future(self._promote(old, made))
        try:
            await asyncio.shield(promoting)
        except BaseException:
            await asyncio.wait([promoting])
            await self._makes.destroy_unless_kept(made.wrapped)
            raise

    async def _promote(self, old: KeyVersionRecord, made: GeneratedKey) -> None:
        now = self._clock()
        signature = await self._keyholder.sign_successor(
            old.wrapped, made.wrapped, made.public_key, now
        )

        def act(tx: Transaction) -> Callable[[Sealed], bytes]:
            key = _require_free(tx, old)
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

    async def _retire(self, app: str, key_id: str) -> None:
        """Deactivate the chained versions that nothing needs any more."""

        def idle(view: View) -> list[int]:
            found = situation(view, self._clock(), app, key_id)
            key = found.key
            if _in_rotation(view, key) or any(
                key.primary not in signed for signed in _deployed(view, key)
            ):
                return []
            return [
                v.version
                for v in key.versions
                if v.version != key.primary
                and v.anchor_sha256
                and v.state is KeyVersionState.ACTIVE
                and not found.trust.lost_by_retiring(key, v.version)
            ]

        if not await self._store.read(idle):
            return

        def act(tx: Transaction) -> Callable[[Sealed], bytes]:
            for number in idle(tx):
                version = require_version(tx, app, key_id, number)
                told = Told("key.deactivate", DAEMON, "another has taken over")
                put(tx, version, lifecycle.deactivate(version.life), told)
            return lambda _: b""

        await self._store.commit(act)


def _chained(view: View) -> list[tuple[str, str]]:
    """Return the keys with a version that has a root's certificate: app and id."""
    return sorted({(v.app, v.key) for v in view.keys.chained()})


def _require_free(view: View, old: KeyVersionRecord) -> KeyRecord:
    """Return the key of a version. Raises FailedPrecondition if it cannot be rotated now."""
    key = require_key(view, old.app, old.key)
    if key.version(key.primary) != old or old.state is not KeyVersionState.ACTIVE:
        raise FailedPrecondition("its primary changed, or does not sign", reason="KEYS_CHANGING")
    if _in_rotation(view, key):
        raise FailedPrecondition("people are rotating it", reason="ROTATION_UNDER_WAY")
    return key


def _in_rotation(view: View, key: KeyRecord) -> bool:
    """Say whether people lead to another version; what was promoted changes no primary."""
    return any(r.under_way for r in view.rotations.list(key.app, key.id))


def _deployed(view: View, key: KeyRecord) -> list[set[int]]:
    """Return which versions of a key signed each deployed release that has an Expo update."""
    signed = []
    for _, record, _ in deployed(view, key.app):
        if not record.receipt:
            continue
        payload, signatures = receipt_parts(record.receipt)
        if Statement.parse(payload).expo is not None:
            names = {s.key_version for s in signatures}
            signed.append({v.version for v in key.versions if v.name in names})
    return signed


def _first_end(view: View, app: str, key_id: str) -> int:
    """Return when the first certificate ends on which something hangs, seconds since 1970."""
    key = require_key(view, app, key_id)
    leaves = {v.version: v for v in key.versions if v.anchor_sha256}
    anchors = {v.anchor_sha256 for v in leaves.values()}
    # Each root has devices of its own; of builds that nobody registered, it may be any.
    trusted = {t for b in view.builds.list(app) if b.live for t in b.trusts} & anchors or anchors
    sent = key.primary in leaves and not key.given_up
    ends = [leaves[key.primary].certificate_ends] if sent else []
    for signed in _deployed(view, key):
        for anchor in trusted:
            mine = [leaves[n] for n in signed if n in leaves and leaves[n].anchor_sha256 == anchor]
            # What no leaf signed is served to builds of an app certificate, and needs none.
            ends += [max(v.certificate_ends for v in mine)] if mine else []
    return min(ends, default=1 << 62)
