"""Approvals, signing windows and break-glass: what one person alone may not do."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

from privyseal.verify.canonical import Json

from privyseald.model import approvals, fields
from privyseald.model.approvals import Approval, ApprovalState
from privyseald.model.errors import NotFound
from privyseald.model.policy import Action, Caller, Grant
from privyseald.ports import Alarm, Clock, Request, Sealed, Store, Transaction, View
from privyseald.services.access import Access
from privyseald.services.grants import add_grant
from privyseald.services.key_records import require_app

DEFAULT_SECONDS = 86_400
DEFAULT_BREAK_GLASS = 1800


class Consent:
    """Takes requests for consent, and the consent.

    Args:
        store: The store.
        access: Authorisation.
        clock: Tells the time.
        needed: How many people must consent at least; a request can ask for more.
        alarm: Told of every emergency.
    """

    def __init__(
        self, store: Store, access: Access, clock: Clock, *, needed: int, alarm: Alarm
    ) -> None:
        self._store = store
        self._access = access
        self._clock = clock
        self._needed = max(1, needed)
        self._alarm = alarm

    async def request(self, caller: Caller, request: Request, wanted: Approval) -> bytes:
        """Ask for consent; the answer is made of the Approval.

        Args:
            caller: Who asks.
            request: What makes it idempotent.
            wanted: What for; `needed`, `uses` and `seconds` may be 0 for the usual.
        """
        glass = wanted.action is Action.BREAK_GLASS
        usual = DEFAULT_BREAK_GLASS if glass else DEFAULT_SECONDS
        now = self._clock()
        seconds = wanted.seconds or usual
        record = approvals.requested(
            replace(
                wanted,
                id=secrets.token_hex(8),
                requester=caller.principal,
                beneficiary=_beneficiary(caller, wanted),
                needed=max(wanted.needed, self._needed),
                uses=wanted.uses or 1,
                seconds=seconds,
                created_at=now,
                # Of break-glass, the time runs from the consent; asking holds for as long.
                expires_at=now + seconds,
            )
        )
        fields.text(record.reason, "reason", 500, least=1)
        for name in ("subject", "ref", "workflow"):
            fields.text(getattr(record, name), name, 512)
        ask = Action.BREAK_GLASS if glass else Action.APPROVAL_REQUEST
        permit = await self._access.authorise(caller, ask, record.app)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            if record.app != fields.ALL_APPS:
                require_app(tx, record.app)
            tx.approvals.put(record)
            tx.record(_leaf("approval.request", caller, record))
            return lambda _: record

        answer = await self._store.commit(act, request)
        if glass:
            self._alarm.break_glass("requested", record)
        return answer

    async def approve(self, caller: Caller, request: Request, approval_id: str) -> bytes:
        """Consent to a request; the last consent of a break-glass makes its grant."""
        found = await self.get(caller, approval_id)
        permit = await self._access.authorise(caller, Action.APPROVAL_GIVE, found.app)
        opened: list[Approval] = []

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            now = self._clock()
            found = _require(tx, approval_id)
            record = approvals.approve(found, caller.principal, now, caller.credential)
            if record.action is Action.BREAK_GLASS and record.state(now) is ApprovalState.APPROVED:
                ends = now + record.seconds
                record = replace(approvals.use(record, now), expires_at=ends)
                grant = Grant(
                    id=secrets.token_hex(8),
                    principal=record.requester,
                    role=approvals.break_glass_role(record),
                    app=record.app,
                    created_at=now,
                    expires_at=ends,
                    break_glass=True,
                )
                tx.record(_leaf("break-glass", caller, record))
                add_grant(tx, caller.principal, grant)
                opened.append(record)
            tx.approvals.put(record)
            tx.record(_leaf("approval.approve", caller, record))
            return lambda _: record

        answer = await self._store.commit(act, request)
        self._access.forget()
        for record in opened:
            self._alarm.break_glass("opened", record)
        return answer

    async def reject(self, caller: Caller, request: Request, approval_id: str) -> bytes:
        """Refuse a request; who asked for it takes it back."""
        found = await self.get(caller, approval_id)
        own = found.requester == caller.principal
        needs = Action.APP_READ if own else Action.APPROVAL_GIVE
        permit = await self._access.authorise(caller, needs, found.app)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            record = approvals.reject(_require(tx, approval_id), caller.principal, self._clock())
            tx.approvals.put(record)
            tx.record(_leaf("approval.reject", caller, record))
            return lambda _: record

        return await self._store.commit(act, request)

    async def get(self, caller: Caller, approval_id: str) -> Approval:
        """Return a request. Raises NotFound."""
        found: Approval = await self._store.read(lambda view: _require(view, approval_id))
        await self._access.authorise(caller, Action.APP_READ, found.app)
        return found

    async def list(self, caller: Caller, app: str) -> list[Approval]:
        """Return an app's requests, newest first, at most 200."""
        await self._access.authorise(caller, Action.APP_READ, app)
        found: list[Approval] = await self._store.read(lambda view: view.approvals.list(app))
        return found


def _beneficiary(caller: Caller, wanted: Approval) -> str:
    if wanted.beneficiary:
        return fields.principal(wanted.beneficiary)
    return "" if wanted.window else caller.principal


def _require(view: View, approval_id: str) -> Approval:
    found = view.approvals.get(approval_id)
    if found is None:
        raise NotFound("there is no such approval", reason="APPROVAL_NOT_FOUND")
    return found


def _leaf(act: str, caller: Caller, record: Approval) -> dict[str, Json]:
    leaf: dict[str, Json] = {
        "act": act,
        "principal": caller.principal,
        "approval": record.name,
        "action": record.action,
        "resource": f"apps/{record.app}",
        "requester": record.requester,
        "approvers": list(record.approvers),
        "needed": record.needed,
        "expires": record.expires_at,
        "reason": record.reason,
    }
    optional = {
        "subject": record.subject,
        "beneficiary": record.beneficiary,
        "ref": record.ref,
        "workflow": record.workflow,
        "role": record.role,
    }
    leaf.update({name: value for name, value in optional.items() if value})
    if record.window:
        leaf["uses"] = record.uses
    return leaf
