"""Who is calling, and whether they may; tokens and grants."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import zlib
from collections.abc import Callable
from dataclasses import replace

from privyseald.model import fields
from privyseald.model.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from privyseald.model.policy import Action, Caller, Grant, Role, allows
from privyseald.model.records import TokenRecord
from privyseald.ports import Clock, Request, Sealed, Store, Transaction, View

TOKEN_PREFIX = "pst_"  # noqa: S105 - the recognisable part, not a secret
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZabcdefghijkmnpqrstuvwxyz"
_ID_LENGTH, _SECRET_LENGTH, _CHECKSUM_LENGTH = 12, 31, 6
MIN_TTL, DEFAULT_TTL, MAX_TTL = 3600, 90 * 86400, 366 * 86400
_CACHE_SECONDS = 5
_CACHE_MAX = 4096


def _checksum(body: str) -> str:
    value, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        value, digit = divmod(value, len(_ALPHABET))
        digits += _ALPHABET[digit]
    return digits


def new_token() -> tuple[str, str]:
    """Return the id and the text of a new token, with 180 bits of chance in it."""
    token_id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
    body = TOKEN_PREFIX + token_id + secret
    return token_id, body + _checksum(body)


def token_id_of(text: str) -> str:
    """Return the id in a token's text.

    Raises:
        Unauthenticated: If it is not of a token's form; the checksum catches a cut one.
    """
    length = len(TOKEN_PREFIX) + _ID_LENGTH + _SECRET_LENGTH + _CHECKSUM_LENGTH
    body, checksum = text[:-_CHECKSUM_LENGTH], text[-_CHECKSUM_LENGTH:]
    if (
        len(text) != length
        or not text.startswith(TOKEN_PREFIX)
        or not text.isascii()
        or _checksum(body) != checksum
    ):
        raise Unauthenticated(
            "the API token is malformed or was cut; copy it again", reason="TOKEN_MALFORMED"
        )
    return text[len(TOKEN_PREFIX) : len(TOKEN_PREFIX) + _ID_LENGTH]


class Access:
    """Authentication of credentials, authorisation of acts, tokens and grants."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._callers: dict[str, tuple[int, Caller]] = {}
        self._revision = 0

    async def by_token(self, text: str) -> Caller:
        """Return the caller a token stands for. Raises Unauthenticated."""
        digest = hashlib.sha256(text.encode()).digest()

        def query(view: View) -> Caller:
            record = view.access.token(token_id_of(text))
            if record is None or not hmac.compare_digest(record.secret_sha256, digest):
                raise Unauthenticated("the API token is unknown", reason="TOKEN_UNKNOWN")
            _check_token(record, self._clock())
            principal = f"token:{record.id}"
            grants = tuple(view.access.grants(principal=principal))
            return Caller(principal, grants, view.revision, record.id, record.expires_at)

        return await self._cached(digest.hex(), query)

    async def by_certificate(self, common_name: str) -> Caller:
        """Return the caller a verified client certificate stands for."""

        def query(view: View) -> Caller:
            principal = fields.principal(f"certificate:{common_name}")
            grants = tuple(view.access.grants(principal=principal))
            return Caller(principal, grants, view.revision)

        return await self._cached(f"certificate:{common_name}", query)

    async def _cached(self, at: str, query: Callable[[View], Caller]) -> Caller:
        now = self._clock()
        cached = self._callers.get(at)
        if cached is not None and 0 <= now - cached[0] < _CACHE_SECONDS:
            known = cached[1]
            if known.revision < self._revision:
                return await self._fresh(at, query)
            if not known.expires_at or now < known.expires_at:
                return known
        return await self._fresh(at, query)

    def saw(self, revision: int) -> None:
        """Note the revision that a commit saw; callers known as of an older one are read again."""
        self._revision = revision

    async def _fresh(self, at: str, query: Callable[[View], Caller]) -> Caller:
        caller: Caller = await self._store.read(query)
        if len(self._callers) >= _CACHE_MAX:
            self._callers.clear()
        self._callers[at] = (self._clock(), caller)
        return caller

    async def authorise(self, caller: Caller, action: Action, app: str) -> None:
        """Check what the caller's grants allow; a refusal goes to the log.

        Raises:
            PermissionDenied: If they do not.
        """
        if allows(caller.grants, action, app):
            return

        def fresh(view: View) -> bool:
            return allows(view.access.grants(principal=caller.principal), action, app)

        # The cached grants can be older than a grant that was just given.
        if await self._store.read(fresh):
            self._callers.clear()
            return

        def refusal(tx: Transaction) -> Callable[[Sealed], bytes]:
            tx.record(
                {
                    "act": "refusal",
                    "principal": caller.principal,
                    "action": action,
                    "resource": f"apps/{app}",
                }
            )
            return lambda _: b""

        await self._store.commit(refusal)
        raise _denied(caller, action, app)

    async def who(self, caller: Caller) -> list[Grant]:
        """Return the caller's grants as they are now."""
        query: Callable[[View], list[Grant]] = lambda v: v.access.grants(principal=caller.principal)  # noqa: E731
        grants: list[Grant] = await self._store.read(query)
        return grants

    async def create_token(
        self, caller: Caller, request: Request, *, name: str, ttl: int, roles: list[Role], app: str
    ) -> tuple[str, bytes]:
        """Create a token with grants; return its text, which is kept nowhere, and the answer."""
        fields.text(name, "display_name", 100, least=1)
        ttl = ttl or DEFAULT_TTL
        if not MIN_TTL <= ttl <= MAX_TTL:
            raise InvalidArgument("ttl_seconds", "must be between an hour and 366 days")
        if not 1 <= len(roles) <= 20:
            raise InvalidArgument("roles", "must name 1 to 20 roles")
        await self.authorise(caller, Action.ACCESS_MANAGE, app)
        token_id, text = new_token()
        now = self._clock()
        record = TokenRecord(token_id, name, hashlib.sha256(text.encode()).digest(), now, now + ttl)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            authorise_again(tx, caller, Action.ACCESS_MANAGE, app, now)
            _require_app(tx, app)
            tx.access.put_token(record)
            made = [
                Grant(secrets.token_hex(8), f"token:{token_id}", role, app, now)
                for role in dict.fromkeys(roles)
            ]
            tx.record(
                {
                    "act": "token.create",
                    "principal": caller.principal,
                    "token": token_id,
                    "name": name,
                    "expires": record.expires_at,
                }
            )
            for grant in made:
                _add_grant(tx, caller, grant)
            return lambda _: (record, made)

        return text, await self._store.commit(act, request)

    async def tokens(self, caller: Caller) -> list[TokenRecord]:
        """Return all tokens, without secrets."""
        await self.authorise(caller, Action.ACCESS_MANAGE, fields.ALL_APPS)
        found: list[TokenRecord] = await self._store.read(lambda view: view.access.tokens())
        return found

    async def revoke_token(self, caller: Caller, request: Request, token_id: str) -> bytes:
        """Revoke a token."""
        await self.authorise(caller, Action.ACCESS_MANAGE, fields.ALL_APPS)
        now = self._clock()

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            authorise_again(tx, caller, Action.ACCESS_MANAGE, fields.ALL_APPS, now)
            record = tx.access.token(token_id)
            if record is None:
                raise NotFound("there is no such token", reason="TOKEN_NOT_FOUND")
            revoked = replace(record, revoked=True)
            tx.access.put_token(revoked)
            tx.record({"act": "token.revoke", "principal": caller.principal, "token": token_id})
            return lambda _: revoked

        answer = await self._store.commit(act, request)
        self._callers.clear()
        return answer

    async def create_grant(self, caller: Caller, request: Request, grant: Grant) -> bytes:
        """Give a principal a role."""
        await self.authorise(caller, Action.ACCESS_MANAGE, grant.app)
        now = self._clock()
        made = replace(grant, id=secrets.token_hex(8), created_at=now)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            authorise_again(tx, caller, Action.ACCESS_MANAGE, grant.app, now)
            _require_app(tx, grant.app)
            _add_grant(tx, caller, made)
            return lambda _: made

        return await self._store.commit(act, request)

    async def grants(self, caller: Caller, app: str) -> list[Grant]:
        """Return the grants on an app."""
        await self.authorise(caller, Action.ACCESS_MANAGE, app)
        found: list[Grant] = await self._store.read(lambda view: view.access.grants(app=app))
        return found

    async def revoke_grant(self, caller: Caller, request: Request, grant_id: str) -> bytes:
        """Take a grant back; what was signed under it and not answered is dropped."""
        now = self._clock()
        found: list[Grant] = await self._store.read(lambda v: v.access.grants(grant_id=grant_id))
        app = found[0].app if found else fields.ALL_APPS
        await self.authorise(caller, Action.ACCESS_MANAGE, app)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            authorise_again(tx, caller, Action.ACCESS_MANAGE, app, now)
            grants = tx.access.grants(grant_id=grant_id)
            if not grants:
                raise NotFound("there is no such grant", reason="GRANT_NOT_FOUND")
            if _is_last_admin(tx, grants[0]):
                raise FailedPrecondition(
                    "this is the last admin grant on all apps; make another first",
                    reason="LAST_ADMIN",
                )
            tx.access.remove_grant(grant_id)
            tx.record({"act": "grant.revoke", "principal": caller.principal, "grant": grant_id})
            return lambda _: None

        answer = await self._store.commit(act, request)
        self._callers.clear()
        return answer


def authorise_again(tx: Transaction, caller: Caller, action: Action, app: str, now: int) -> None:
    """Check inside the commit that nothing the caller was authorised by has changed.

    This is what makes revocation linearizable: an act whose grant or token was revoked
    before its commit is dropped.

    Raises:
        PermissionDenied, Unauthenticated: If it has.
    """
    if caller.token_id and caller.expires_at <= now:
        raise Unauthenticated("the API token has expired", reason="TOKEN_EXPIRED")
    if tx.revision == caller.revision:
        return
    if caller.token_id:
        record = tx.access.token(caller.token_id)
        if record is None:
            raise Unauthenticated("the API token is unknown", reason="TOKEN_UNKNOWN")
        _check_token(record, now)
    if not allows(tx.access.grants(principal=caller.principal), action, app):
        raise _denied(caller, action, app)


def _check_token(record: TokenRecord, now: int) -> None:
    if record.revoked:
        raise Unauthenticated("the API token was revoked", reason="TOKEN_REVOKED")
    if record.expires_at <= now:
        raise Unauthenticated("the API token has expired", reason="TOKEN_EXPIRED")


def _denied(caller: Caller, action: Action, app: str) -> PermissionDenied:
    target = "all apps" if app == fields.ALL_APPS else f"apps/{app}"
    return PermissionDenied(
        f"{caller.principal} has no grant for {action} on {target}; ask an admin for one",
        reason="NO_GRANT",
    )


def _require_app(tx: Transaction, app: str) -> None:
    if app != fields.ALL_APPS and tx.apps.get(app) is None:
        raise NotFound(f"there is no app apps/{app}", reason="APP_NOT_FOUND")


def _is_last_admin(tx: Transaction, grant: Grant) -> bool:
    if grant.role is not Role.ADMIN or grant.app != fields.ALL_APPS:
        return False
    admins = [g for g in tx.access.grants(app=fields.ALL_APPS) if g.role is Role.ADMIN]
    return [g.id for g in admins if g.app == fields.ALL_APPS] == [grant.id]


def _add_grant(tx: Transaction, caller: Caller, grant: Grant) -> None:
    tx.access.add_grant(grant)
    tx.record(
        {
            "act": "grant.create",
            "principal": caller.principal,
            "grant": grant.id,
            "to": grant.principal,
            "role": grant.role,
            "resource": f"apps/{grant.app}",
        }
    )
