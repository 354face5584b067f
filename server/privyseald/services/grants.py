"""Who has which role where."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from privyseal.verify.canonical import Json

from privyseald.model import fields
from privyseald.model.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from privyseald.model.policy import PEOPLE, Action, Caller, Grant, Role
from privyseald.model.workload import ATTRIBUTES, Issuer, check_granted
from privyseald.ports import Clock, Request, Sealed, Store, Transaction, View
from privyseald.services.access import Access
from privyseald.services.key_records import require_app

MAX_CONDITIONS = 10


class Grants:
    """Gives and takes back roles.

    Args:
        store: The store.
        access: Says who may.
        clock: Tells the time.
        issuer: Returns the issuer of identity tokens that has a name; raises InvalidArgument.
    """

    def __init__(
        self, store: Store, access: Access, clock: Clock, issuer: Callable[[str], Issuer]
    ) -> None:
        self._issuer = issuer
        self._store = store
        self._access = access
        self._clock = clock

    async def create(self, caller: Caller, request: Request, grant: Grant) -> bytes:
        """Give a principal a role; the answer is made of the Grant.

        Args:
            caller: Who gives it.
            request: Makes it idempotent.
            grant: What is given; its id, its time and its end are set here.

        Raises:
            InvalidArgument: If nobody could ever use it.
            PermissionDenied, NotFound, AlreadyExists, Unavailable.
        """
        _check_conditions(grant)
        if grant.principal.startswith("workload:"):
            _, issuer, ident = grant.principal.split(":", 2)
            check_granted(self._issuer(issuer), ident, dict(grant.conditions))
        if grant.role in PEOPLE and not grant.principal.startswith("certificate:"):
            raise InvalidArgument("role", f"{grant.role} is for people, who bring certificates")
        permit = await self._access.authorise(caller, Action.ACCESS_MANAGE, grant.app)
        new = replace(grant, id=secrets.token_hex(8), created_at=self._clock())

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            ends = permit.holder(tx).right_ends(Action.ACCESS_MANAGE, grant.app)
            made = replace(new, expires_at=ends)
            _require_new(tx, made)
            add_grant(tx, caller.principal, made)
            return lambda _: made

        return await self._store.commit(act, request)

    async def list(self, caller: Caller, app: str) -> list[Grant]:
        """Return the grants on an app; those on any app, if it is all of them."""
        await self._access.authorise(caller, Action.ACCESS_MANAGE, app)
        on = "" if app == fields.ALL_APPS else app
        found: list[Grant] = await self._store.read(lambda view: view.grants.list(app=on))
        return found

    async def of(self, caller: Caller) -> Sequence[Grant]:
        """Return the caller's own grants as they are now."""

        def query(view: View) -> Sequence[Grant]:
            return view.grants.list(principal=caller.principal)

        found: Sequence[Grant] = await self._store.read(query)
        return found

    async def revoke(self, caller: Caller, request: Request, grant_id: str) -> bytes:
        """Take a grant back; what was signed under it and not answered is dropped."""
        found: Sequence[Grant] = await self._store.read(lambda v: v.grants.list(grant_id=grant_id))
        app = found[0].app if found else fields.ALL_APPS
        permit = await self._access.authorise(caller, Action.ACCESS_MANAGE, app)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            grants = tx.grants.list(grant_id=grant_id)
            if not grants:
                raise NotFound("there is no such grant", reason="GRANT_NOT_FOUND")
            if _is_last_admin(tx, grants[0]):
                raise FailedPrecondition(
                    "this is the last admin grant on all apps; make another first",
                    reason="LAST_ADMIN",
                )
            tx.grants.remove(grant_id)
            tx.record({"act": "grant.revoke", "principal": caller.principal, "grant": grant_id})
            return lambda _: None

        answer = await self._store.commit(act, request)
        self._access.forget()
        return answer


def _require_new(tx: Transaction, made: Grant) -> None:
    """Refuse a grant to a token that is not there, or one that there is already."""
    kind, _, ident = made.principal.partition(":")
    if kind == "token" and tx.tokens.get(ident) is None:
        raise NotFound(f"there is no token tokens/{ident}", reason="TOKEN_NOT_FOUND")
    for known in tx.grants.list(principal=made.principal):
        same = (known.role, known.app, known.conditions) == (made.role, made.app, made.conditions)
        if same and not known.break_glass and known.expires_at == made.expires_at:
            raise AlreadyExists(f"grants/{known.id} gives that already", reason="GRANT_EXISTS")


def add_grant(tx: Transaction, by: str, grant: Grant) -> None:
    """Add a grant and its leaf. Raises NotFound if its app is missing."""
    if grant.app != fields.ALL_APPS:
        require_app(tx, grant.app)
    tx.grants.add(grant)
    leaf: dict[str, Json] = {
        "act": "grant.create",
        "principal": by,
        "grant": grant.id,
        "to": grant.principal,
        "role": grant.role,
        "resource": f"apps/{grant.app}",
    }
    if grant.conditions:
        conditions: dict[str, Json] = dict(grant.conditions)
        leaf["conditions"] = conditions
    if grant.expires_at:
        leaf["expires"] = grant.expires_at
    tx.record(leaf)


def conditions_of(values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return conditions in their one order."""
    return tuple(sorted(values.items()))


def _check_conditions(grant: Grant) -> None:
    if grant.conditions and not grant.principal.startswith("workload:"):
        raise InvalidArgument("conditions", "are for workloads alone")
    if len(grant.conditions) > MAX_CONDITIONS:
        raise InvalidArgument("conditions", f"must be at most {MAX_CONDITIONS}")
    for name, value in grant.conditions:
        if name not in ATTRIBUTES:
            raise InvalidArgument("conditions", f"must be about {', '.join(ATTRIBUTES)}")
        fields.text(value, "conditions", 512, least=1)


def _is_last_admin(tx: Transaction, grant: Grant) -> bool:
    if grant.role is not Role.ADMIN or grant.app != fields.ALL_APPS:
        return False
    admins = [g for g in tx.grants.list(app=fields.ALL_APPS) if g.role is Role.ADMIN]
    lasting = [g.id for g in admins if g.app == fields.ALL_APPS and not g.expires_at]
    return lasting == [grant.id]
