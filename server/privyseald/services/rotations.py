"""Rotations: each step is one transaction, checked against field trust as it is then."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field

from privyseald.model import fields, lifecycle, rotation
from privyseald.model.errors import FailedPrecondition, InvalidArgument
from privyseald.model.obstacles import abandons
from privyseald.model.policy import Action, Caller
from privyseald.model.records import KeyRecord
from privyseald.model.rotation import Rotation, RotationKind, RotationState
from privyseald.model.schemes import GeneratedKey, KeyPlace, KeyVersionState
from privyseald.ports import Clock, Keyholder, Request, Sealed, Store, Transaction, View
from privyseald.services.access import Access
from privyseald.services.field_status import situation
from privyseald.services.key_records import (
    LEAF_SPARE_DAYS,
    Told,
    add_standby,
    put,
    require_key,
    require_version,
    serves_on,
)
from privyseald.services.readiness import ready, require_covered, require_rotation
from privyseald.services.renewal import Renewal
from privyseald.services.replay import replayed
from privyseald.services.rotation_steps import (
    activate,
    add_successor,
    emergency,
    reach,
    supersede,
)
from privyseald.services.versions import Versions


@dataclass(frozen=True)
class Start:
    """What a rotation begins with.

    Attributes:
        app: The app.
        key: The key.
        kind: Planned, or an emergency: then the primary is compromised at once.
        reason: For people; of an emergency, the evidence.
        old: Of an emergency, the version that is given up, which must be the primary: whoever
            repeats the command a minute later must not give up the version that replaced it.
        new: The version that it leads to; 0 for a standby that is there, in an emergency for
            that of a planned rotation under way, or else a new one.
        place: Where a new private key goes.
        since: Of an emergency, since when the private key may be known to others; 0 for now.
    """

    app: str
    key: str
    kind: RotationKind
    reason: str
    old: int = 0
    new: int = 0
    place: KeyPlace = field(default_factory=KeyPlace)
    since: int = 0


class Rotations:
    """Starts rotations, advances them, aborts them, and tells how they stand."""

    def __init__(
        self,
        store: Store,
        access: Access,
        keyholder: Keyholder,
        clock: Clock,
        *,
        versions: Versions,
        renewal: Renewal,
    ) -> None:
        self._store = store
        self._access = access
        self._keyholder = keyholder
        self._clock = clock
        self._versions = versions
        self._renewal = renewal

    async def start(self, caller: Caller, request: Request, start: Start) -> bytes:
        """Begin a rotation away from the primary; the answer is made of the Rotation."""
        fields.text(start.reason, "reason", 500, least=1)
        emergency = start.kind is RotationKind.EMERGENCY
        if emergency and not start.old:
            raise InvalidArgument(
                "old_version", "must name the version that an emergency gives up (--old)"
            )
        if start.since and not emergency:
            raise InvalidArgument("compromise_time", "is for an emergency (--emergency)")
        answer: bytes = await self._start(caller, request, start)
        if emergency:
            # Also when it is answered again: the first time may have been cut off before this.
            await self._renewal.cover(start.app, caller.principal)
        return answer

    @replayed
    async def _start(self, caller: Caller, request: Request, start: Start) -> bytes:
        app, key_id, kind = start.app, start.key, start.kind
        permit = await self._access.authorise(caller, Action.KEY_MANAGE, app)

        def choose(view: View) -> int:
            found = require_key(view, app, key_id)
            others = view.rotations.list(app, key_id)
            # Before a key pair is made for it.
            rotation.require_free(others, kind)
            rotation.require_primary(found, kind, start.old or found.primary)
            usable = {v.version for v in found.versions if serves_on(view, v, self._clock())}
            return start.new or _next_version(found, others, kind, usable)

        chosen: int = await self._store.read(choose)
        made: GeneratedKey | None = None
        if not chosen:
            made = await self._versions.generate(app, key_id, None, start.place)
            chosen = made.wrapped.identity.version
        now = self._clock()

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            if made is not None:
                add_standby(tx, caller.principal, made, now)
            begun = _begin(tx, caller.principal, start, chosen, now)
            if kind is RotationKind.EMERGENCY:
                begun = emergency(tx, caller.principal, begun, start.since or now, now)
            tx.rotations.put(begun)
            return lambda _: begun

        return await self._versions.commit(made, act, request)

    async def advance(
        self,
        caller: Caller,
        request: Request,
        *,
        name: tuple[str, str, str],
        expected: RotationState | None,
        force: bool,
    ) -> bytes:
        """Take the next step, if nothing stands in its way.

        Args:
            caller: Who asks.
            request: What makes it idempotent.
            name: App, key and id.
            expected: The state that it must be in, if that is given: of two officers at once,
                one goes on.
            force: Go on against what can be forced, with the consent of others.
        """
        answer: bytes = await self._advance(caller, request, name, expected, force=force)
        await self._renewal.cover(name[0], caller.principal)
        return answer

    @replayed
    async def _advance(
        self,
        caller: Caller,
        request: Request,
        name: tuple[str, str, str],
        expected: RotationState | None,
        *,
        force: bool,
    ) -> bytes:
        app, key_id, _ = name

        def possible(view: View) -> None:
            ready(view, self._clock(), name, expected, force=force)

        # Consent to one step is not consent to the next.
        subject = await self._store.read(lambda view: _step(name, view.rotations.get(*name)))
        permits = await self._versions.permits(
            caller, Action.KEY_MANAGE, app, subject, possible, force=force
        )
        found = await self._store.read(lambda view: require_rotation(view, *name))
        if found.state is RotationState.OVERLAP:
            # What lacks a signature gets it first; promoting changes who signs, not what is there.
            await self._renewal.cover(app, caller.principal)
        signed = await self._succeed(found)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            for permit in permits:
                permit.confirm(tx)
            current, state, against = ready(
                tx, self._clock(), name, expected or found.state, force=force
            )
            if _step(name, current) != subject:
                # Not to be tried again unasked: the next try would take the step after this one.
                raise FailedPrecondition(
                    "it went on meanwhile; look at its status", reason="ROTATION_STATE"
                )
            if state is RotationState.DISTRIBUTING:
                activate(tx, caller.principal, current, self._clock())
            elif state is RotationState.PROMOTED:
                require_covered(tx, self._clock(), current)
                _require_signer(tx, current, signed[0])
                tx.keys.set_primary(app, key_id, current.new)
                add_successor(tx, caller.principal, current, signed)
            elif state is RotationState.RETIRED and current.kind is RotationKind.PLANNED:
                _retire(tx, caller.principal, current)
            made = reach(tx, caller.principal, current, state, self._clock(), against=against)
            tx.rotations.put(made)
            return lambda _: made

        return await self._store.commit(act, request)

    @replayed
    async def abort(
        self, caller: Caller, request: Request, *, name: tuple[str, str, str], reason: str
    ) -> bytes:
        """Give a rotation up; the new version signs on if a live build depends on it."""
        fields.text(reason, "reason", 500, least=1)
        app, key_id, _ = name
        permit = await self._access.authorise(caller, Action.KEY_MANAGE, app)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            current = require_rotation(tx, *name)
            rotation.require_abortable(current)
            new = require_version(tx, app, key_id, current.new)
            keeps = not abandons(current, situation(tx, self._clock(), current.app, key_id))
            if not keeps and new.state is KeyVersionState.ACTIVE:
                told = Told("key.deactivate", caller.principal, f"{current.name} was aborted")
                put(tx, new, lifecycle.deactivate(new.life), told)
            made = current.reached(
                RotationState.ABORTED, self._clock(), caller.principal, forced=False
            )
            tx.rotations.put(made)
            tx.record(
                {
                    "act": "rotation.abort",
                    "principal": caller.principal,
                    "rotation": current.name,
                    "reason": reason,
                    "newVersionSignsOn": keeps,
                }
            )
            return lambda _: made

        return await self._store.commit(act, request)

    async def get(self, caller: Caller, name: tuple[str, str, str]) -> Rotation:
        """Return a rotation. Raises NotFound."""
        await self._access.authorise(caller, Action.KEY_READ, name[0])
        found: Rotation = await self._store.read(lambda view: require_rotation(view, *name))
        return found

    async def listed(self, caller: Caller, app: str, key_id: str) -> list[Rotation]:
        """Return the rotations of an app, or of one of its keys, oldest first."""
        await self._access.authorise(caller, Action.KEY_READ, app)
        found: list[Rotation] = await self._store.read(
            lambda view: view.rotations.list(app, key_id)
        )
        return found

    async def _succeed(self, current: Rotation) -> tuple[bytes, int]:
        """Have the old version sign for the new one, if that is what comes next, and when."""
        at = self._clock()
        if current.state is not RotationState.OVERLAP:
            return b"", at
        key: KeyRecord = await self._store.read(
            lambda view: require_key(view, current.app, current.key)
        )
        old, new = key.version(current.old), key.version(current.new)
        if old is None or new is None or old.state is not KeyVersionState.ACTIVE:
            return b"", at
        signature = await self._keyholder.sign_successor(
            old.wrapped, new.wrapped, new.public_key, at
        )
        return signature, at


_FIT = frozenset({KeyVersionState.PRE_ACTIVATION, KeyVersionState.ACTIVE})


def _begin(tx: Transaction, principal: str, start: Start, chosen: int, now: int) -> Rotation:
    """Note that a rotation to a version begins, and that those under way end for it.

    Raises:
        NotFound: If the key or the version is not there.
        FailedPrecondition: If the key cannot be rotated so.
    """
    found = require_key(tx, start.app, start.key)
    others = tx.rotations.list(start.app, start.key)
    rotation_id = str(1 + len(others))
    begun_from = start.old or found.primary
    rotation.require_startable(found, others, start.kind, begun_from, chosen)
    if not serves_on(tx, require_version(tx, start.app, start.key, chosen), now):
        raise FailedPrecondition(
            f"the certificate of {found.name}/versions/{chosen} ends within "
            f"{LEAF_SPARE_DAYS} days, or its root does not sign; rotate to another",
            reason="CERTIFICATE_ENDS",
        )
    for other in others:
        # One that was promoted leads nowhere when what it promoted is given up.
        gone = other.open and other.new == begun_from and start.kind is RotationKind.EMERGENCY
        if other.under_way or gone:
            supersede(tx, principal, other, rotation_id, now)
    begun = Rotation(
        app=start.app,
        key=start.key,
        id=rotation_id,
        kind=start.kind,
        old=found.primary,
        new=chosen,
        state=RotationState.PREPARED,
        reason=start.reason,
    )
    tx.record(
        {
            "act": "rotation.start",
            "principal": principal,
            "rotation": begun.name,
            "kind": start.kind,
            "from": begun.old,
            "to": begun.new,
            "reason": start.reason,
        }
    )
    return begun.reached(RotationState.PREPARED, now, principal, forced=False)


def _next_version(
    key: KeyRecord, others: Sequence[Rotation], kind: RotationKind, usable: Container[int]
) -> int:
    """Return the version that a rotation leads to if nobody names one, 0 for a new one."""
    if kind is RotationKind.EMERGENCY:
        under_way = next((r.new for r in others if r.under_way), 0)
        version = key.version(under_way)
        fit = version is not None and version.state in _FIT and under_way in usable
        if fit and under_way != key.primary:
            return under_way
    waiting = [
        v.version
        for v in key.versions
        if v.state is KeyVersionState.PRE_ACTIVATION
        and v.version > key.primary
        and v.version in usable
    ]
    return max(waiting, default=0)


def _step(name: tuple[str, str, str], found: Rotation | None) -> str:
    """Return what others consent to: this rotation's next step."""
    following = f" to {found.next_state}" if found is not None else ""
    return "apps/{}/keys/{}/rotations/{}".format(*name) + following


def _retire(tx: Transaction, principal: str, current: Rotation) -> None:
    """Deactivate the version that was rotated away from."""
    old = require_version(tx, current.app, current.key, current.old)
    if old.state in {KeyVersionState.ACTIVE, KeyVersionState.SUSPENDED}:
        told = Told("key.deactivate", principal, f"retired by {current.name}")
        put(tx, old, lifecycle.deactivate(old.life), told)


def _require_signer(view: View, current: Rotation, signature: bytes) -> None:
    """Refuse a successor record that was signed before its signer was stopped, or could not be.

    Once a suspension or a compromise has returned, nothing signed before it is released.
    """
    old = require_version(view, current.app, current.key, current.old)
    if bool(signature) is not (old.state is KeyVersionState.ACTIVE):
        raise FailedPrecondition(
            f"{old.name} became {old.state} meanwhile; look at it and advance again",
            reason="KEYS_CHANGING",
        )
