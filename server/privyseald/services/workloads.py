"""Workloads: a CI job exchanges its identity token, once, for a session of minutes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from privyseal.verify.canonical import Json

from privyseald.model import fields
from privyseald.model.errors import InvalidArgument, TokenRefused
from privyseald.model.policy import Action, Caller, Grant, covers
from privyseald.model.records import SessionRecord
from privyseald.model.workload import Issuer, Workload, refuse
from privyseald.ports import Clock, Sealed, Store, TokenVerifier, Transaction
from privyseald.services.access import Access
from privyseald.services.refusals import Refusals
from privyseald.services.secret_text import SESSION_PREFIX, new_secret

MAX_DIGESTS = 20


@dataclass(frozen=True)
class Session:
    """What a job gets: the secret is in this one answer and kept nowhere."""

    record: SessionRecord
    secret: str


class Workloads:
    """Verifies identity tokens and opens sessions."""

    def __init__(
        self,
        store: Store,
        access: Access,
        verifier: TokenVerifier,
        clock: Clock,
        refusals: Refusals,
    ) -> None:
        self._store = store
        self._access = access
        self._verifier = verifier
        self._clock = clock
        self._refusals = refusals

    async def exchange(self, token: str, app: str, digests: list[bytes]) -> Session:
        """Exchange an identity token for a session.

        Args:
            token: The token, as the CI system issued it.
            app: The app that the session is for.
            digests: What it may sign; see `privyseal.verify.statement.content_sha256`.

        Raises:
            TokenRefused: If anything about the token is wrong, it was used before, or no
                grant is for what it says.
            Unavailable: If the issuer's keys cannot be had.
        """
        fields.app_id(app, "parent")
        if len(digests) > MAX_DIGESTS:
            raise InvalidArgument("content_sha256s", f"must be at most {MAX_DIGESTS}")
        wanted = tuple(dict.fromkeys(fields.digest(d, "content_sha256s") for d in digests))
        try:
            issuer, workload = await self._verifier.verify(token, self._clock())
        except TokenRefused as error:
            await self._log_refusal(error, app, None)
            raise
        try:
            return await self._open(issuer, workload, app, wanted)
        except TokenRefused as error:
            await self._log_refusal(error, app, workload)
            raise

    async def _open(
        self, issuer: Issuer, workload: Workload, app: str, digests: tuple[bytes, ...]
    ) -> Session:
        now = self._clock()
        session_id, secret = new_secret(SESSION_PREFIX)
        record = SessionRecord(
            id=session_id,
            principal=fields.principal(workload.principal),
            secret_sha256=hashlib.sha256(secret.encode()).digest(),
            attributes=workload.attributes,
            app=app,
            digests=digests,
            created_at=now,
            expires_at=now + issuer.session_seconds,
        )
        used = hashlib.sha256(workload.token_id.encode()).digest()

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            # In one transaction with the session: of many uses at once, one is the first.
            if not tx.tokens.use(issuer.name, used, workload.expires_at):
                refuse("TOKEN_REPLAYED", "the token was used before; ask for a new one")
            _require_grant(tx, workload, app)
            tx.tokens.add_session(record)
            attributes: dict[str, Json] = dict(workload.attributes)
            tx.record(
                {
                    "act": "session.create",
                    "principal": workload.principal,
                    "session": session_id,
                    "resource": f"apps/{app}",
                    "contentSha256s": [d.hex() for d in digests],
                    "expires": record.expires_at,
                    "workload": attributes,
                }
            )
            return lambda _: b""

        await self._store.commit(act)
        return Session(record, secret)

    async def inspect(self, caller: Caller, token: str, app: str) -> Workload:
        """Return what a valid token says, without using it up; for who makes grants."""
        await self._access.authorise(caller, Action.ACCESS_MANAGE, app)
        return (await self._verifier.verify(token, self._clock()))[1]

    def issuer(self, name: str) -> Issuer:
        """Return an issuer. Raises InvalidArgument."""
        for issuer in self._verifier.issuers:
            if issuer.name == name:
                return issuer
        names = ", ".join(i.name for i in self._verifier.issuers) or "none"
        raise InvalidArgument(
            "principal", f"names an issuer this daemon does not know; it knows {names}"
        )

    async def _log_refusal(self, error: TokenRefused, app: str, workload: Workload | None) -> None:
        # Who was vouched for has a share of the log that strangers cannot use up.
        cause = workload.principal if workload else "unknown"
        leaf: dict[str, Json] = {
            "principal": cause,
            "action": "session.create",
            "resource": f"apps/{app}",
            "reason": error.reason,
            "detail": error.detail,
        }
        if workload is not None:
            attributes: dict[str, Json] = dict(workload.attributes)
            leaf["workload"] = attributes
        await self._refusals.add(cause, leaf)


def _require_grant(tx: Transaction, workload: Workload, app: str) -> None:
    """Refuse a workload that no grant is for, and say what of it does not fit."""
    grants = [g for g in tx.grants.list(principal=workload.principal) if covers(g, app)]
    unmet = [grant.mismatch(workload.attributes) for grant in grants]
    if "" in unmet:
        return
    if grants and set(unmet) == {"repository"}:
        refuse(
            "REPOSITORY_RENAMED",
            "the repository has another name than when its grant was made; an admin must "
            "make the grant anew",
            workload.attributes.get("repository", ""),
        )
    if grants:
        names = sorted(set(unmet))
        refuse(
            "NO_GRANT",
            f"no grant of {workload.principal} on apps/{app} is for its {', '.join(names)}",
            ", ".join(f"{name}={workload.attributes.get(name, '')}" for name in names),
        )
    name = workload.attributes.get("repository", "")
    if name and any(_is_namesake(g, workload, name) for g in tx.grants.list(app=app)):
        refuse(
            "REPOSITORY_RECYCLED",
            "the repository has the name of one that has a grant, and another id",
            f"{name} is {workload.principal}",
        )
    refuse("NO_GRANT", f"{workload.principal} has no grant on apps/{app}; ask an admin for one")


def _is_namesake(grant: Grant, workload: Workload, name: str) -> bool:
    issuer = workload.attributes["issuer"]
    return (
        grant.principal.startswith(f"workload:{issuer}:")
        and ("repository", name) in grant.conditions
    )
