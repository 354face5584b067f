"""What ends key versions, and is guarded: deactivation, destruction, and giving a key up.

Live native builds that depend on a version stand in the way; forcing takes the consent of others.
"""

from __future__ import annotations

from collections.abc import Callable

from privyseal.verify.canonical import Json

from privyseald.model import fields, lifecycle
from privyseald.model.errors import FailedPrecondition
from privyseald.model.field import HOPES
from privyseald.model.lifecycle import Life
from privyseald.model.obstacles import (
    Obstacle,
    before_giving_up,
    before_retiring,
    is_given_up_with,
)
from privyseald.model.policy import Action, Caller
from privyseald.model.schemes import KeyVersionState
from privyseald.ports import Clock, Request, Sealed, Store, Transaction, View
from privyseald.services.access import Access, Permit
from privyseald.services.field_status import situation
from privyseald.services.key_records import Told, forced, put, require_key, require_version
from privyseald.services.readiness import in_words
from privyseald.services.replay import replayed

VersionName = tuple[str, str, int]
"""App, key and number."""
_GUARDED = frozenset(
    {KeyVersionState.SUSPENDED, KeyVersionState.PRE_ACTIVATION, KeyVersionState.DEACTIVATED}
)


class Ending:
    """Ends versions."""

    def __init__(self, store: Store, access: Access, clock: Clock) -> None:
        self._store = store
        self._access = access
        self._clock = clock

    async def deactivate(
        self,
        caller: Caller,
        request: Request,
        name: VersionName,
        *,
        reason: str,
        force: bool,
    ) -> bytes:
        """Stop a version from signing for good, if no live native build depends on it.

        Of a primary that no other version can follow, the key is given up: releases are signed
        without it.

        Args:
            caller: Who asks.
            request: Makes it idempotent, and its answer the stored one.
            name: App, key and number of the version.
            reason: For people, 1 to 500 characters.
            force: Go on though it strands devices, with the consent of others.

        Raises:
            InvalidArgument: With the field that is wrong.
            NotFound: If the app or what is named of it is not there.
            FailedPrecondition: If builds depend on it, or another version must be promoted first.
            PermissionDenied: If the caller may not.
            Unavailable: If it cannot be recorded now.
        """

        def is_last(view: View) -> bool:
            key = view.keys.get(name[0], name[1])
            return key is not None and is_given_up_with(key, name[2])

        if await self._store.read(is_last):
            return await self._give_up(caller, request, name, reason=reason, force=force)
        return await self._guarded(
            caller,
            request,
            name,
            action=Action.KEY_MANAGE,
            force=force,
            guard=lambda view: self._retirable(view, name),
            act="key.deactivate",
            how="deactivated",
            reason=reason,
            change=lifecycle.deactivate,
        )

    async def destroy(
        self,
        caller: Caller,
        request: Request,
        name: VersionName,
        *,
        reason: str,
        delay: int,
        force: bool,
    ) -> bytes:
        """Schedule the destruction of a version that does not sign.

        Args:
            caller: Who asks.
            request: Makes it idempotent, and its answer the stored one.
            name: App, key and number of the version.
            reason: For people, 1 to 500 characters.
            delay: Seconds until it is done and for ever; it can be undone before.
            force: Go on though it strands devices, with the consent of others.

        Raises:
            InvalidArgument: With the field that is wrong.
            NotFound: If the app or what is named of it is not there.
            FailedPrecondition: If it signs still, builds depend on it, or consent is missing.
            PermissionDenied: If the caller may not.
            Unavailable: If it cannot be recorded now.
        """
        now = self._clock()
        return await self._guarded(
            caller,
            request,
            name,
            action=Action.KEY_DESTROY,
            force=force,
            guard=lambda view: self._destructible(view, name),
            act="key.destroy-schedule",
            how=f"after {lifecycle.in_short(delay)}",
            reason=reason,
            change=lambda life: lifecycle.schedule_destruction(life, now, delay),
            told=lambda life: {"destroyAt": life.destroy_at},
        )

    @replayed
    async def _give_up(
        self,
        caller: Caller,
        request: Request,
        name: VersionName,
        *,
        reason: str,
        force: bool,
    ) -> bytes:
        fields.text(reason, "reason", 500, least=1)
        app, key_id, number = name
        full = f"apps/{app}/keys/{key_id}/versions/{number}"

        def missed(view: View) -> tuple[Obstacle, ...]:
            return before_giving_up(number, situation(view, self._clock(), app, key_id))

        def possible(view: View) -> None:
            if not is_given_up_with(require_key(view, app, key_id), number):
                raise FailedPrecondition(
                    f"{full} is not the last of its key any more; look at it again",
                    reason="KEYS_CHANGING",
                )
            self._require_unopposed(view, name, missed(view), force=force)

        subject = f"{full} deactivated"
        permits = await self.permits(caller, Action.KEY_MANAGE, app, subject, possible, force=force)

        def run(tx: Transaction) -> Callable[[Sealed], object]:
            for permit in permits:
                permit.confirm(tx)
            possible(tx)
            made, against = require_version(tx, app, key_id, number), forced(missed(tx))
            if made.state in HOPES:
                told = Told("key.deactivate", caller.principal, reason, against)
                made = put(tx, made, lifecycle.deactivate(made.life), told)
            tx.keys.give_up(app, key_id)
            tx.record(
                {
                    "act": "key.give-up",
                    "principal": caller.principal,
                    "key": f"apps/{app}/keys/{key_id}",
                    "reason": reason,
                    **against,
                }
            )
            return lambda _: made

        return await self._store.commit(run, request)

    def _require_unopposed(
        self, view: View, name: VersionName, against: tuple[Obstacle, ...], *, force: bool
    ) -> None:
        """Raise FailedPrecondition if something stands in the way and is not forced."""
        app, key_id, number = name
        if against and not force:
            found = situation(view, self._clock(), app, key_id)
            raise FailedPrecondition(
                f"apps/{app}/keys/{key_id}/versions/{number}: "
                f"{in_words(found.trust, self._clock(), against)}",
                reason=against[0].reason,
            )

    @replayed
    async def _guarded(
        self,
        caller: Caller,
        request: Request,
        name: VersionName,
        *,
        action: Action,
        force: bool,
        guard: Callable[[View], tuple[Obstacle, ...]],
        act: str,
        how: str,
        reason: str,
        change: Callable[[Life], Life],
        told: Callable[[Life], dict[str, Json]] = lambda _: {},
    ) -> bytes:
        """Change a life, unless that strands devices; forcing takes the consent of others."""
        fields.text(reason, "reason", 500, least=1)
        app, key_id, number = name
        full = f"apps/{app}/keys/{key_id}/versions/{number}"

        def possible(view: View) -> None:
            change(require_version(view, app, key_id, number).life)
            self._require_unopposed(view, name, guard(view), force=force)

        # Who consents to one way of ending it has not consented to another.
        permits = await self.permits(caller, action, app, f"{full} {how}", possible, force=force)

        def run(tx: Transaction) -> Callable[[Sealed], object]:
            for permit in permits:
                permit.confirm(tx)
            possible(tx)
            version = require_version(tx, app, key_id, number)
            life, more = change(version.life), forced(guard(tx))
            told_of = Told(act, caller.principal, reason, {**told(life), **more})
            made = put(tx, version, life, told_of)
            return lambda _: made

        return await self._store.commit(run, request)

    async def permits(
        self,
        caller: Caller,
        action: Action,
        app: str,
        subject: str,
        possible: Callable[[View], object],
        *,
        force: bool,
    ) -> list[Permit]:
        """Authorise an act, and its forcing; nobody is asked to consent to what cannot be done."""
        wanted = [action, Action.KEY_FORCE_RETIRE] if force else [action]
        permits, refused = [], list[FailedPrecondition]()
        for each in wanted:
            try:
                permits.append(await self._access.authorise(caller, each, app, subject=subject))
            except FailedPrecondition as error:
                refused.append(error)
        await self._store.read(possible)
        if refused:
            # All at once: who asks for one consent must not come back for the next.
            text = "; and ".join(error.message for error in refused)
            raise FailedPrecondition(text, reason=refused[0].reason)
        return permits

    def _retirable(self, view: View, name: VersionName) -> tuple[Obstacle, ...]:
        """Return what deactivating is against. Raises FailedPrecondition for the primary."""
        app, key_id, number = name
        key = require_key(view, app, key_id)
        if number == key.primary:
            raise FailedPrecondition(
                f"{key.name}/versions/{number} is the primary; rotate to another version first "
                "(`privyseal rotation start`)",
                reason="KEY_VERSION_PRIMARY",
            )
        return before_retiring(number, situation(view, self._clock(), app, key_id))

    def _destructible(self, view: View, name: VersionName) -> tuple[Obstacle, ...]:
        """Return what destroying is against.

        What is against its retirement, while it is not retired yet; then the builds that only
        this version could ever serve.
        """
        app, key_id, number = name
        version = require_version(view, app, key_id, number)
        found = situation(view, self._clock(), app, key_id)
        if version.state in HOPES:
            return before_retiring(number, found)
        hoping = found.trust.hoping_for(found.key, number)
        if version.state not in _GUARDED or not hoping:
            return ()
        text = "live native builds trust no other version that could ever sign for them"
        return (Obstacle("BUILDS_DEPEND", text, tuple(b.id for b in hoping), forceable=True),)
