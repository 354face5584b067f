"""Apps and their keys."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

from privyseal.verify.canonical import Json
from privyseal.verify.importing import MAX_SEALED

from privyseald.model import fields
from privyseald.model.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from privyseald.model.policy import Action, Caller
from privyseald.model.records import AppRecord, KeyRecord, KeyVersionRecord
from privyseald.model.schemes import (
    Algorithm,
    GeneratedKey,
    KeyIdentity,
    KeyPlace,
    KeyVersionState,
    Scheme,
    choose_algorithm,
)
from privyseald.ports import Act, Clock, KeyMaker, Request, Sealed, Store, Transaction, View
from privyseald.services.access import Access, Permit, query_of
from privyseald.services.key_records import (
    certificate_told,
    require_anchor,
    require_app,
    require_key,
)
from privyseald.services.made_keys import commit_made
from privyseald.services.replay import replayed


class Keys:
    """Creates apps and keys, and changes the state of key versions."""

    def __init__(self, store: Store, access: Access, makes: KeyMaker, clock: Clock) -> None:
        self._store = store
        self._access = access
        self._makes = makes
        self._clock = clock

    @replayed
    async def create_app(
        self,
        caller: Caller,
        request: Request,
        *,
        app: str,
        display_name: str,
        algorithm: Algorithm | None,
        place: KeyPlace,
    ) -> bytes:
        """Create an app and its statement key; the answer is made of (AppRecord, KeyRecord).

        Args:
            caller: Who asks.
            request: Makes it idempotent, and its answer the stored one.
            app: The app's id.
            display_name: For people, at most 100 characters.
            algorithm: Of the statement key; Ed25519 if None.
            place: Where its private key is to be.

        Raises:
            InvalidArgument: With the field that is wrong.
            AlreadyExists: If there is an app of that id.
            PermissionDenied: If the caller may not.
            Unavailable: If it cannot be recorded now.
        """
        app = fields.app_id(app) if app else secrets.token_hex(4)
        fields.text(display_name, "display_name", 100)
        permit = await self._access.authorise(caller, Action.APP_CREATE, fields.ALL_APPS)
        now = self._clock()
        algorithm = choose_algorithm(Scheme.STATEMENT_V1, algorithm)
        identity = KeyIdentity(app, Scheme.STATEMENT_V1, 1, Scheme.STATEMENT_V1, algorithm)
        key = await self._generate(identity, place, now)
        record = AppRecord(app, display_name, now)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            if tx.apps.get(app) is not None:
                raise AlreadyExists(f"apps/{app} exists", reason="APP_EXISTS", field="app_id")
            tx.apps.add(record)
            tx.record({"act": "app.create", "principal": caller.principal, "app": app})
            _add_key(tx, caller, key)
            return lambda _: (record, key)

        return await self._commit(key, place, act, request)

    async def app(self, caller: Caller, app: str) -> AppRecord:
        """Return an app. Raises NotFound."""
        await self._access.authorise(caller, Action.APP_READ, app)
        found: AppRecord = await self._store.read(lambda view: require_app(view, app))
        return found

    async def apps(self, caller: Caller, after: str, limit: int) -> tuple[list[AppRecord], str]:
        """Return the apps the caller may read, and where the next page begins."""

        def query(view: View) -> tuple[list[AppRecord], str]:
            page = view.apps.list(after, limit)
            more = page[-1].id if len(page) == limit else ""
            asked = self._access.again(view, caller, self._clock())
            readable = [
                a for a in page if asked.decide(query_of(asked, Action.APP_READ, a.id)).allowed
            ]
            return readable, more

        found: tuple[list[AppRecord], str] = await self._store.read(query)
        return found

    @replayed
    async def create_key(
        self,
        caller: Caller,
        request: Request,
        *,
        app: str,
        key_id: str,
        scheme: Scheme,
        algorithm: Algorithm | None,
        place: KeyPlace,
    ) -> bytes:
        """Create a key whose first version is active and primary.

        Args:
            caller: Who asks.
            request: Makes it idempotent, and its answer the stored one.
            app: The app's id.
            key_id: The key's id; the scheme's name if empty.
            scheme: What it signs.
            algorithm: One that the scheme can use; its default if None.
            place: Where the private key is to be, or is already.

        Raises:
            InvalidArgument: With the field that is wrong.
            NotFound: If the app is missing.
            AlreadyExists: If the app has a key of that id or scheme.
            FailedPrecondition: If the key exists in the token, and consent is missing.
            PermissionDenied: If the caller may not.
            Unavailable: If it cannot be recorded now.
        """
        key_id = fields.key_id(key_id or scheme)
        kind = choose_algorithm(scheme, algorithm)
        if place.uri:
            # A key that exists may be of somebody else's: taking it is like importing it.
            fields.text(place.uri, "token_uri", 512)
            permit = await self._permit(
                caller,
                Action.KEY_IMPORT,
                app,
                f"apps/{app}/keys/{key_id} {scheme} {kind} {place.uri}",
                lambda view: _require_new(view, app, key_id, scheme),
            )
        else:
            permit = await self._access.authorise(caller, Action.KEY_MANAGE, app)
            await self._store.read(lambda view: _require_new(view, app, key_id, scheme))
        now = self._clock()
        identity = KeyIdentity(app, key_id, 1, scheme, kind)
        record = await self._generate(identity, place, now)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            _require_new(tx, app, key_id, scheme)
            _add_key(tx, caller, record)
            return lambda _: record

        return await self._commit(record, place, act, request)

    @replayed
    async def import_key(
        self, caller: Caller, request: Request, identity: KeyIdentity, sealed: bytes, *, token: bool
    ) -> bytes:
        """Create a key of a private key that exists, with the consent of others.

        Args:
            caller: Who asks.
            request: What makes it idempotent.
            identity: What it becomes; names the public key.
            sealed: The private key; see `privyseal.verify.importing`.
            token: Whether it goes into the token.
        """
        fields.key_id(identity.key)
        fields.digest(identity.public_key_sha256, "public_key_sha256")
        choose_algorithm(identity.scheme, identity.algorithm)
        if not 48 < len(sealed) <= MAX_SEALED:
            raise InvalidArgument("sealed_private_key", f"must be at most {MAX_SEALED:,} bytes")
        app = identity.app
        digest = identity.public_key_sha256.hex()
        # Also for which devices: the same key under another scheme signs other things.
        what = f"{identity.scheme} {identity.algorithm} sha256:{digest}"
        permit = await self._permit(
            caller,
            Action.KEY_IMPORT,
            app,
            f"apps/{app}/keys/{identity.key} {what}",
            lambda view: _require_new(view, app, identity.key, identity.scheme),
        )
        made = await self._makes.import_key(identity, sealed, token=token)
        record = _first_version(made, identity, self._clock())

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            _require_new(tx, app, record.id, record.scheme)
            _add_key(tx, caller, record, act="key.import")
            return lambda _: record

        return await self._commit(record, KeyPlace(token=token), act, request)

    async def key(self, caller: Caller, app: str, key_id: str) -> KeyRecord:
        """Return a key. Raises NotFound."""
        await self._access.authorise(caller, Action.KEY_READ, app)
        found: KeyRecord = await self._store.read(lambda view: require_key(view, app, key_id))
        return found

    async def keys(self, caller: Caller, app: str) -> list[KeyRecord]:
        """Return an app's keys."""
        await self._access.authorise(caller, Action.KEY_READ, app)

        def query(view: View) -> list[KeyRecord]:
            require_app(view, app)
            return view.keys.list(app)

        found: list[KeyRecord] = await self._store.read(query)
        return found

    async def _permit(
        self,
        caller: Caller,
        action: Action,
        app: str,
        subject: str,
        check: Callable[[View], object],
    ) -> Permit:
        """Authorise a sensitive act that `check` finds possible.

        Nobody is asked for consent to what cannot be done; who has no right to the act learns
        of nothing else.
        """
        try:
            permit = await self._access.authorise(caller, action, app, subject=subject)
        except FailedPrecondition:
            await self._store.read(check)
            raise
        await self._store.read(check)
        return permit

    async def _commit(self, key: KeyRecord, place: KeyPlace, act: Act, request: Request) -> bytes:
        """Put a new key on record; one that was in the token before is nobody's to destroy."""
        if place.uri:
            return await self._store.commit(act, request)
        made = key.versions[0].wrapped
        return await commit_made(self._store, self._makes, made, act, request)

    async def _generate(self, identity: KeyIdentity, place: KeyPlace, now: int) -> KeyRecord:
        made = await self._makes.generate(identity, place)
        digest = made.wrapped.identity.public_key_sha256
        return _first_version(made, replace(identity, public_key_sha256=digest), now)


def _first_version(made: GeneratedKey, identity: KeyIdentity, now: int) -> KeyRecord:
    """Return a key with its first version, active and primary."""
    if made.wrapped.identity != identity:
        raise FailedPrecondition("the keyholder made another key", reason="KEY_UNUSABLE")
    version = KeyVersionRecord.of(made, KeyVersionState.ACTIVE, now)
    return KeyRecord(identity.app, identity.key, identity.scheme, 1, now, (version,))


def _require_new(view: View, app: str, key_id: str, scheme: Scheme) -> None:
    require_app(view, app)
    for other in view.keys.list(app):
        if other.id == key_id or other.scheme is scheme:
            raise AlreadyExists(
                f"{other.name} exists; an app has one key per scheme",
                reason="KEY_EXISTS",
                field="key_id",
            )


def _add_key(tx: Transaction, caller: Caller, key: KeyRecord, *, act: str = "key.create") -> None:
    for version in key.versions:
        require_anchor(tx, version)
        other = tx.keys.by_digest(version.public_key_sha256)
        if other is not None:
            raise AlreadyExists(
                "this key pair is one of the daemon's keys already, and a key has one purpose; "
                "use another",
                reason="KEY_PAIR_EXISTS",
            )
    tx.keys.add(key)
    for version in key.versions:
        protection: dict[str, Json] = dict(version.protection)
        tx.record(
            {
                "act": act,
                "principal": caller.principal,
                "keyVersion": version.name,
                "scheme": version.scheme,
                "algorithm": version.algorithm,
                "publicKeySha256": version.public_key_sha256.hex(),
                "protection": protection,
                **certificate_told(version),
            }
        )
