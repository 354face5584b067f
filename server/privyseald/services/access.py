"""Who is calling, and whether they may."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, replace

from privyseal.verify.canonical import Json

from privyseald.model import approvals, fields
from privyseald.model.approvals import Approval, ApprovalState
from privyseald.model.errors import (
    DomainError,
    InvalidArgument,
    Unauthenticated,
    Unavailable,
)
from privyseald.model.policy import Action, Caller, Grant, Query
from privyseald.model.records import SessionRecord, TokenRecord
from privyseald.ports import (
    Clock,
    Policies,
    PolicySet,
    Store,
    Transaction,
    View,
)
from privyseald.services.denials import denied, needs_approval, needs_window
from privyseald.services.refusals import Refusals
from privyseald.services.secret_text import SESSION_PREFIX, secret_id_of

_CACHE_SECONDS = 5
_CACHE_MAX = 4096
_ANY_APPROVALS, _MOST_APPROVALS = 1_000_000, 20


class Access:
    """Authentication of credentials and authorisation of acts."""

    def __init__(self, store: Store, policies: Policies, clock: Clock, refusals: Refusals) -> None:
        self._store = store
        self._policies = policies
        self._clock = clock
        self._callers: dict[str, tuple[int, Caller]] = {}
        self._revision = 0
        # As of a revision, the version in force, compiled.
        self._compiled: tuple[int, int, PolicySet] | None = None
        # As of a revision, the grants of principals: jobs of one workload share them.
        self._refusals = refusals
        self._granted: tuple[int, dict[str, tuple[Grant, ...]]] = (0, {})

    async def by_token(self, text: str) -> Caller:
        """Return the caller a token or a session stands for. Raises Unauthenticated."""
        digest = hashlib.sha256(text.encode()).digest()
        secret_id = secret_id_of(text)

        def query(view: View) -> Caller:
            now = self._clock()
            found: TokenRecord | SessionRecord | None = (
                view.tokens.session(secret_id)
                if text.startswith(SESSION_PREFIX)
                else view.tokens.get(secret_id)
            )
            if found is None or not hmac.compare_digest(found.secret_sha256, digest):
                raise Unauthenticated("the API token is unknown", reason="TOKEN_UNKNOWN")
            return self._complete(view, _holder(found, now), now)

        return await self._cached(digest.hex(), query)

    def knows(self, text: str) -> bool:
        """Say whether a token was seen lately and counted."""
        return hashlib.sha256(text.encode()).hexdigest() in self._callers

    async def by_certificate(self, principal: str, serial: str) -> Caller:
        """Return the caller a verified client certificate stands for.

        Args:
            principal: certificate:{common name}, or a SPIFFE ID.
            serial: Its serial number, hexadecimal.
        """

        def query(view: View) -> Caller:
            _check_certificate(view, serial)
            holder = Caller(fields.principal(principal), credential=serial)
            return self._complete(view, holder, self._clock())

        return await self._cached(f"{serial} {principal}", query)

    async def _cached(self, at: str, query: Callable[[View], Caller]) -> Caller:
        now = self._clock()
        cached = self._callers.get(at)
        if cached is not None and 0 <= now - cached[0] < _CACHE_SECONDS:
            known = cached[1]
            if known.revision >= self._revision and not 0 < known.expires_at <= now:
                return known
        caller: Caller = await self._store.read(query)
        if len(self._callers) >= _CACHE_MAX:
            self._callers.clear()
        self._callers[at] = (self._clock(), caller)
        return caller

    def saw(self, revision: int) -> None:
        """Note the revision that a commit saw; callers known as of an older one are read again."""
        self._revision = revision

    def forget(self) -> None:
        """Read every caller again when it next calls."""
        self._callers.clear()

    def again(self, view: View, caller: Caller, now: int) -> Caller:
        """Return a caller as it is now: its credential, its grants, the policies.

        Raises:
            Unauthenticated: If the credential has ended, was revoked or denied.
        """
        if caller.kind == "token":
            token = view.tokens.get(caller.credential)
            if token is None:
                raise Unauthenticated("the API token is unknown", reason="TOKEN_UNKNOWN")
            return self._complete(view, _holder(token, now), now)
        if caller.kind == "workload":
            session = view.tokens.session(caller.credential)
            if session is None:
                raise Unauthenticated("the session is unknown", reason="SESSION_UNKNOWN")
            return self._complete(view, _holder(session, now), now)
        _check_certificate(view, caller.credential)
        return self._complete(view, Caller(caller.principal, credential=caller.credential), now)

    def _complete(self, view: View, holder: Caller, now: int) -> Caller:
        """Return a caller with its grants and the policies in force."""
        grants = tuple(
            grant
            for grant in self._grants(view, holder.principal)
            if not 0 < grant.expires_at <= now
        )
        ends = [g.expires_at for g in grants if g.expires_at]
        if holder.expires_at:
            ends.append(holder.expires_at)
        caller = replace(
            holder, grants=grants, revision=view.revision, expires_at=min(ends, default=0)
        )
        return replace(caller, decider=self.policies(view).decider(caller))

    def _grants(self, view: View, principal: str) -> tuple[Grant, ...]:
        if view.raised:
            # What an act of this group changed may be undone, and its revision given again.
            return tuple(view.grants.list(principal=principal))
        revision, granted = self._granted
        if revision != view.revision or len(granted) >= _CACHE_MAX:
            granted = {}
            self._granted = (view.revision, granted)
        known = granted.get(principal)
        if known is None:
            known = granted[principal] = tuple(view.grants.list(principal=principal))
        return known

    def policies(self, view: View) -> PolicySet:
        """Return the policies in force. Raises Unavailable if they cannot be used."""
        known, revision = None if view.raised else self._compiled, view.revision
        if known is not None and known[0] == revision:
            return known[2]
        record = view.policies.get()
        version, text = (record.version, record.text) if record is not None else (0, "")
        if known is not None and known[1] == version:
            compiled = known[2]
        else:
            try:
                compiled = self._policies.compile(text)
            except InvalidArgument:
                raise Unavailable(
                    f"policies/{version} cannot be used by this version of the daemon; nothing "
                    "is allowed until other policies are in force",
                    reason="POLICY_BROKEN",
                ) from None
        if not view.raised:
            self._compiled = (revision, version, compiled)
        return compiled

    def consents(self, view: View, approval: Approval, now: int) -> int:
        """Return how many of those who consented still may: their consent ends with that."""
        standing = 0
        for principal, serial in zip(approval.approvers, approval.serials, strict=True):
            try:
                approver = self.again(view, Caller(principal, credential=serial), now)
            except Unauthenticated:
                continue
            standing += approver.decide(Query(Action.APPROVAL_GIVE, approval.app)).allowed
        return standing

    async def authorise(
        self,
        caller: Caller,
        action: Action,
        app: str,
        *,
        subject: str = "",
        channel: str = "",
        digest: bytes = b"",
    ) -> Permit:
        """Check what the policies say; a refusal goes to the log.

        Args:
            caller: Who asks.
            action: For what.
            app: On which app; `-` for all.
            subject: What exactly, for approvals.
            channel: For a deployment.
            digest: For a signature, its content's; see `content_sha256`.

        Raises:
            PermissionDenied: If they do not allow it.
            FailedPrecondition: If they would, with an approval or a signing window.
        """
        permit = Permit(self, caller, query_of(caller, action, app, channel, digest), subject)
        if caller.decide(permit.query).allowed:
            return permit

        def fresh(view: View) -> Permit | DomainError:
            # The cached grants can be older than a grant that was just given.
            try:
                return permit.renewed(view, self._clock())
            except DomainError as error:
                return error

        found = await self._store.read(fresh)
        if isinstance(found, Permit):
            if not found.approval:
                self.forget()
            return found
        await self.log_refusal(caller, permit, found)
        raise found

    async def log_refusal(self, caller: Caller, permit: Permit, error: DomainError) -> None:
        """Append a refusal to the log."""
        leaf: dict[str, Json] = {
            "principal": caller.principal,
            "action": permit.query.action,
            "resource": f"apps/{permit.query.app}",
            "reason": error.reason,
        }
        if caller.kind == "workload":
            leaf["session"] = caller.credential
        if permit.subject:
            leaf["subject"] = permit.subject
        await self._refusals.add(caller.principal, leaf)

    def now(self) -> int:
        """Return seconds since 1970."""
        return self._clock()


@dataclass(frozen=True)
class Permit:
    """What a caller was allowed, to be confirmed in the commit.

    That is what makes revocation linearizable: an act whose grant, credential, policy or
    approval went away before its commit is dropped.

    Attributes:
        access: What gave it.
        caller: Whom it was given.
        query: For what.
        subject: What exactly.
        approval: The id of the approval or window that it needs; empty if none.
    """

    access: Access
    caller: Caller
    query: Query
    subject: str
    approval: str = ""

    def confirm(self, tx: Transaction) -> None:
        """Check that it still holds, and use the approval up.

        Raises:
            PermissionDenied, Unauthenticated, FailedPrecondition: If it does not.
        """
        self.use(tx, self.check(tx))

    def holder(self, view: View) -> Caller:
        """Return the caller as it is now. Raises Unauthenticated."""
        if view.revision == self.caller.revision:
            return self.caller
        return self.access.again(view, self.caller, self.access.now())

    def check(self, tx: Transaction) -> Approval | None:
        """Check that it still holds; return the approval that it needs."""
        now = self.access.now()
        caller = self.caller
        if (
            not self.approval
            and tx.revision == caller.revision
            and not 0 < caller.expires_at <= now
        ):
            return None
        renewed = self.renewed(tx, now)
        return tx.approvals.get(renewed.approval) if renewed.approval else None

    def use(self, tx: Transaction, approval: Approval | None) -> None:
        """Use up what `check` returned."""
        if approval is None:
            return
        used = approvals.use(approval, self.access.now())
        tx.approvals.put(used)
        tx.record(
            {
                "act": "approval.use",
                "principal": self.caller.principal,
                "approval": approval.name,
                "action": self.query.action,
                "use": used.used,
            }
        )

    def renewed(self, view: View, now: int) -> Permit:
        """Return it as it is now, with the approval that it needs.

        Raises:
            As `Access.authorise`.
        """
        caller = self.access.again(view, self.caller, now)
        query = replace(self.query, approvals=0, window=False)
        decision = caller.decide(query)
        if decision.allowed:
            return Permit(self.access, caller, query, self.subject)
        action, app = query.action, query.app
        for approval in view.approvals.consented(app, action, now):
            if approval.state(now) is not ApprovalState.APPROVED or not approval.serves(
                caller.principal, caller.attributes, action, app, self.subject
            ):
                continue
            consents = self.access.consents(view, approval, now)
            given = replace(query, approvals=consents, window=approval.window)
            if consents >= approval.needed and caller.decide(given).allowed:
                return Permit(self.access, caller, given, self.subject, approval.id)
        if self.subject and caller.decide(replace(query, approvals=_ANY_APPROVALS)).allowed:
            counts = (n for n in range(1, _MOST_APPROVALS) if _enough(caller, query, n))
            raise needs_approval(action, app, self.subject, decision, next(counts, 1))
        if caller.decide(replace(query, window=True)).allowed:
            raise needs_window(app, decision)
        raise denied(caller, query, decision)


def query_of(
    caller: Caller, action: Action, app: str, channel: str = "", digest: bytes = b""
) -> Query:
    """Return the question whether a caller may do something; see `Access.authorise`."""
    bound = caller.kind != "workload" or (
        app == caller.session_app
        and (action is not Action.RELEASE_SIGN or digest in caller.digests)
    )
    return Query(action, app, channel, bound)


def _holder(found: TokenRecord | SessionRecord, now: int) -> Caller:
    if isinstance(found, TokenRecord):
        if found.revoked:
            raise Unauthenticated("the API token was revoked", reason="TOKEN_REVOKED")
        if found.expires_at <= now:
            raise Unauthenticated("the API token has expired", reason="TOKEN_EXPIRED")
        principal = f"token:{found.id}"
        return Caller(principal, credential=found.id, expires_at=found.expires_at)
    if found.expires_at <= now:
        raise Unauthenticated(
            "the workload's session has expired; ask CI for a new identity token",
            reason="SESSION_EXPIRED",
        )
    return Caller(
        found.principal,
        credential=found.id,
        expires_at=found.expires_at,
        attributes=found.attributes,
        session_app=found.app,
        digests=frozenset(found.digests),
    )


def _check_certificate(view: View, serial: str) -> None:
    if view.tokens.denied(serial) is not None:
        raise Unauthenticated(
            "this client certificate is denied; have another issued", reason="CERTIFICATE_DENIED"
        )


def _enough(caller: Caller, query: Query, approvals: int) -> bool:
    return caller.decide(replace(query, approvals=approvals)).allowed
