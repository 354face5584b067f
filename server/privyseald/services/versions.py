"""The life of key versions: standby, suspended, retired, compromised, destroyed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from privyseal.verify.canonical import Json

from privyseald.model import fields, lifecycle
from privyseald.model.errors import FailedPrecondition, InvalidArgument
from privyseald.model.lifecycle import DAY, Life
from privyseald.model.policy import Action, Caller
from privyseald.model.records import SuccessorRecord
from privyseald.model.schemes import (
    Algorithm,
    GeneratedKey,
    KeyIdentity,
    KeyPlace,
    KeyVersionState,
    choose_algorithm,
)
from privyseald.ports import Act, Clock, KeyMaker, Request, Sealed, Store, Transaction, View
from privyseald.services.access import Access
from privyseald.services.ending import Ending, VersionName
from privyseald.services.key_records import Told, add_standby, put, require_key, require_version
from privyseald.services.made_keys import commit_made
from privyseald.services.replay import replayed

MAX_VERSIONS = 1000


class Versions(Ending):
    """Changes the lives of key versions; what ends them is guarded."""

    def __init__(self, store: Store, access: Access, makes: KeyMaker, clock: Clock) -> None:
        super().__init__(store, access, clock)
        self._makes = makes

    @replayed
    async def create(
        self,
        caller: Caller,
        request: Request,
        *,
        app: str,
        key_id: str,
        algorithm: Algorithm | None,
        place: KeyPlace,
    ) -> bytes:
        """Make a standby version: its public key can be shipped, and it does not sign yet.

        Args:
            caller: Who asks.
            request: Makes it idempotent, and its answer the stored one.
            app: The app's id.
            key_id: The key's id.
            algorithm: Its own; that of the primary if None.
            place: Where the private key is to be.

        Raises:
            InvalidArgument: With the field that is wrong.
            NotFound: If the app or what is named of it is not there.
            FailedPrecondition: If the key has as many versions as it can.
            PermissionDenied: If the caller may not.
            Unavailable: If it cannot be recorded now.
        """
        permit = await self._access.authorise(caller, Action.KEY_MANAGE, app)
        if place.uri:
            raise InvalidArgument("token_uri", "is for a key's first version")
        made = await self.generate(app, key_id, algorithm, place)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            record = add_standby(tx, caller.principal, made, self._clock())
            return lambda _: record

        return await self.commit(made, act, request)

    async def commit(self, made: GeneratedKey | None, act: Act, request: Request) -> bytes:
        """Commit an act that puts a new version on record, if one was made for it."""
        if made is None:
            return await self._store.commit(act, request)
        return await commit_made(self._store, self._makes, made.wrapped, act, request)

    async def generate(
        self, app: str, key_id: str, algorithm: Algorithm | None, place: KeyPlace
    ) -> GeneratedKey:
        """Have a key pair made for the next version of a key, of its kind unless told."""

        def query(view: View) -> KeyIdentity:
            key = require_key(view, app, key_id)
            number = 1 + max(v.version for v in key.versions)
            if number > MAX_VERSIONS:
                raise FailedPrecondition("the key has too many versions", reason="KEY_VERSIONS")
            usual = next(v.algorithm for v in key.versions if v.version == key.primary)
            kind = choose_algorithm(key.scheme, algorithm or usual)
            return KeyIdentity(app, key_id, number, key.scheme, kind)

        return await self._makes.generate(await self._store.read(query), place)

    async def suspend(
        self, caller: Caller, request: Request, name: VersionName, *, reason: str
    ) -> bytes:
        """Stop an active version from signing until it is resumed.

        Args:
            caller: Who asks.
            request: Makes it idempotent, and its answer the stored one.
            name: App, key and number of the version.
            reason: For people, 1 to 500 characters.

        Raises:
            InvalidArgument: With the field that is wrong.
            NotFound: If the app or what is named of it is not there.
            FailedPrecondition: If the version is in a state from which that is not possible.
            PermissionDenied: If the caller may not.
            Unavailable: If it cannot be recorded now.
        """
        return await self._change(
            caller, request, name, act="key.suspend", reason=reason, change=lifecycle.suspend
        )

    async def resume(
        self, caller: Caller, request: Request, name: VersionName, *, reason: str
    ) -> bytes:
        """Let a suspended version sign again.

        Args:
            caller: Who asks.
            request: Makes it idempotent, and its answer the stored one.
            name: App, key and number of the version.
            reason: For people, 1 to 500 characters.

        Raises:
            InvalidArgument: With the field that is wrong.
            NotFound: If the app or what is named of it is not there.
            FailedPrecondition: If the version is in a state from which that is not possible.
            PermissionDenied: If the caller may not.
            Unavailable: If it cannot be recorded now.
        """
        return await self._change(
            caller, request, name, act="key.resume", reason=reason, change=lifecycle.resume
        )

    async def restore(
        self, caller: Caller, request: Request, name: VersionName, *, reason: str
    ) -> bytes:
        """Undo a scheduled destruction, until its time.

        Args:
            caller: Who asks.
            request: Makes it idempotent, and its answer the stored one.
            name: App, key and number of the version.
            reason: For people, 1 to 500 characters.

        Raises:
            InvalidArgument: With the field that is wrong.
            NotFound: If the app or what is named of it is not there.
            FailedPrecondition: If the version is in a state from which that is not possible.
            PermissionDenied: If the caller may not.
            Unavailable: If it cannot be recorded now.
        """
        return await self._change(
            caller,
            request,
            name,
            act="key.restore",
            reason=reason,
            change=lambda life: lifecycle.restore(life, self._clock()),
        )

    async def compromise(
        self,
        caller: Caller,
        request: Request,
        name: VersionName,
        *,
        since: int,
        evidence: str,
    ) -> bytes:
        """Note that others may know a private key; it signs nothing from this moment on.

        Args:
            caller: Who asks.
            request: Makes it idempotent, and its answer the stored one.
            name: App, key and number of the version.
            since: Seconds since 1970 from when others may know it; now if zero.
            evidence: For people, 1 to 500 characters.

        Raises:
            InvalidArgument: With the field that is wrong.
            NotFound: If the app or what is named of it is not there.
            FailedPrecondition: If the version is in a state from which that is not possible.
            PermissionDenied: If the caller may not.
            Unavailable: If it cannot be recorded now.
        """
        now = self._clock()
        return await self._change(
            caller,
            request,
            name,
            act="key.compromise",
            reason=evidence,
            change=lambda life: lifecycle.compromise(life, since or now, now),
            told=lambda life: {"compromisedSince": life.compromised_at},
        )

    async def set_cryptoperiod(
        self, caller: Caller, request: Request, app: str, key_id: str, days: int
    ) -> bytes:
        """Set for how long a key's versions may sign, those that are active included.

        Args:
            caller: Who asks.
            request: Makes it idempotent, and its answer the stored one.
            app: The app's id.
            key_id: The key's id.
            days: From a version's activation on; without an end if zero.

        Raises:
            InvalidArgument: With the field that is wrong.
            NotFound: If the app or what is named of it is not there.
            PermissionDenied: If the caller may not.
            Unavailable: If it cannot be recorded now.
        """
        if not 0 <= days <= lifecycle.MAX_CRYPTOPERIOD_DAYS:
            raise InvalidArgument("days", f"must be 0 to {lifecycle.MAX_CRYPTOPERIOD_DAYS:,}")
        permit = await self._access.authorise(caller, Action.KEY_MANAGE, app)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            key = require_key(tx, app, key_id)
            tx.keys.set_cryptoperiod(app, key_id, days)
            tx.record(
                {
                    "act": "key.cryptoperiod",
                    "principal": caller.principal,
                    "key": key.name,
                    "days": days,
                }
            )
            for version in key.versions:
                if version.state is KeyVersionState.ACTIVE:
                    began = version.activated_at or version.created_at
                    ends = began + days * DAY if days else 0
                    tx.keys.put_version(version.living(replace(version.life, expires_at=ends)))
            return lambda _: require_key(tx, app, key_id)

        return await self._store.commit(act, request)

    async def successors(self, caller: Caller, app: str, key_id: str) -> list[SuccessorRecord]:
        """Return a key's successor records, oldest first."""
        await self._access.authorise(caller, Action.KEY_READ, app)

        def query(view: View) -> list[SuccessorRecord]:
            require_key(view, app, key_id)
            return list(view.rotations.successors(app, key_id))

        found: list[SuccessorRecord] = await self._store.read(query)
        return found

    async def _change(
        self,
        caller: Caller,
        request: Request,
        name: VersionName,
        *,
        act: str,
        reason: str,
        change: Callable[[Life], Life],
        told: Callable[[Life], dict[str, Json]] = lambda _: {},
    ) -> bytes:
        fields.text(reason, "reason", 500, least=1)
        app, key_id, number = name
        permit = await self._access.authorise(caller, Action.KEY_MANAGE, app)

        def run(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            version = require_version(tx, app, key_id, number)
            life = change(version.life)
            told_of = Told(act, caller.principal, reason, told(life))
            made = put(tx, version, life, told_of)
            return lambda _: made

        return await self._store.commit(run, request)
