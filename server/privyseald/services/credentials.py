"""API tokens, and client certificates that do not count any more."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import replace

from privyseald.model import fields
from privyseald.model.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from privyseald.model.policy import PEOPLE, Action, Caller, Grant, Role
from privyseald.model.records import DeniedCertificate, TokenRecord
from privyseald.ports import Clock, Request, Sealed, Store, Transaction
from privyseald.services.access import Access
from privyseald.services.grants import add_grant
from privyseald.services.secret_text import TOKEN_PREFIX, new_secret

MIN_TTL, DEFAULT_TTL, MAX_TTL = 3600, 90 * 86400, 366 * 86400


class Credentials:
    """Issues and revokes tokens, and denies certificates."""

    def __init__(self, store: Store, access: Access, clock: Clock) -> None:
        self._store = store
        self._access = access
        self._clock = clock

    async def create_token(
        self, caller: Caller, request: Request, *, name: str, ttl: int, roles: list[Role], app: str
    ) -> tuple[str, bytes]:
        """Create a token with grants; return its text, which is kept nowhere, and the answer.

        Args:
            caller: Who makes it.
            request: Makes it idempotent, but for the text.
            name: For people, 1 to 100 characters.
            ttl: Seconds for which it counts; a default if zero.
            roles: What it may do, 1 to 20 of them.
            app: On which app, or on all.

        Raises:
            AlreadyExists: If this request made a token before, whose text was shown then.
            InvalidArgument, PermissionDenied, FailedPrecondition, NotFound, Unavailable.
        """
        fields.text(name, "display_name", 100, least=1)
        ttl = _checked_ttl(ttl)
        _check_roles(roles)
        permit = await self._access.authorise(caller, Action.ACCESS_MANAGE, app)
        token_id, text = new_secret(TOKEN_PREFIX)
        now = self._clock()
        record = TokenRecord(token_id, name, hashlib.sha256(text.encode()).digest(), now, now + ttl)

        is_new = False

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            nonlocal is_new
            is_new = True
            permit.confirm(tx)
            if permit.holder(tx).right_ends(Action.ACCESS_MANAGE, app):
                raise FailedPrecondition(
                    "your right to make tokens ends, as in an emergency, and a token would "
                    "outlive it; revoke and deny what is needed, and make tokens afterwards",
                    reason="RIGHT_ENDS",
                )
            tx.tokens.put(record)
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
                add_grant(tx, caller.principal, grant)
            return lambda _: (record, made)

        answer = await self._store.commit(act, request)
        if not is_new:
            raise AlreadyExists(
                "a token was created by this request before, and its secret was shown then; "
                "revoke it and create another",
                reason="SECRET_SHOWN",
                field="request_id",
            )
        return text, answer

    async def tokens(self, caller: Caller) -> list[TokenRecord]:
        """Return all tokens, without secrets."""
        await self._access.authorise(caller, Action.ACCESS_MANAGE, fields.ALL_APPS)
        found: list[TokenRecord] = await self._store.read(lambda view: view.tokens.list())
        return found

    async def revoke_token(self, caller: Caller, request: Request, token_id: str) -> bytes:
        """Revoke a token."""
        permit = await self._access.authorise(caller, Action.ACCESS_MANAGE, fields.ALL_APPS)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            record = tx.tokens.get(token_id)
            if record is None:
                raise NotFound("there is no such token", reason="TOKEN_NOT_FOUND")
            revoked = replace(record, revoked=True)
            tx.tokens.put(revoked)
            tx.record({"act": "token.revoke", "principal": caller.principal, "token": token_id})
            return lambda _: revoked

        answer = await self._store.commit(act, request)
        self._access.forget()
        return answer

    async def deny_certificate(
        self, caller: Caller, request: Request, *, serial: str, reason: str
    ) -> bytes:
        """Deny a client certificate from now on; gRPC servers read no revocation lists."""
        serial = fields.serial(serial)
        fields.text(reason, "reason", 500, least=1)
        permit = await self._access.authorise(caller, Action.ACCESS_MANAGE, fields.ALL_APPS)
        if serial == caller.credential:
            raise InvalidArgument("serial", "is your own certificate's; have another deny it")
        record = DeniedCertificate(serial, reason, caller.principal, self._clock())

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            if tx.tokens.denied(serial) is not None:
                raise AlreadyExists(
                    "this certificate is denied already", reason="ALREADY_DENIED", field="serial"
                )
            tx.tokens.deny(record)
            tx.record(
                {
                    "act": "certificate.deny",
                    "principal": caller.principal,
                    "serial": serial,
                    "reason": reason,
                }
            )
            return lambda _: record

        answer = await self._store.commit(act, request)
        self._access.forget()
        return answer

    async def denials(self, caller: Caller) -> list[DeniedCertificate]:
        """Return the certificates that are denied."""
        await self._access.authorise(caller, Action.ACCESS_MANAGE, fields.ALL_APPS)
        found: list[DeniedCertificate] = await self._store.read(lambda v: v.tokens.denials())
        return found


def _checked_ttl(ttl: int) -> int:
    """Return how long a token counts, seconds. Raises InvalidArgument."""
    ttl = ttl or DEFAULT_TTL
    if not MIN_TTL <= ttl <= MAX_TTL:
        raise InvalidArgument("ttl_seconds", "must be between an hour and 366 days")
    return ttl


def _check_roles(roles: list[Role]) -> None:
    """Raise InvalidArgument for roles that no token can have."""
    if not 1 <= len(roles) <= 20:
        raise InvalidArgument("roles", "must name 1 to 20 roles")
    if people := PEOPLE & set(roles):
        raise InvalidArgument(
            "roles",
            f"{', '.join(sorted(people))} is for people: grant it to a client certificate",
        )
