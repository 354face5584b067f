"""Approvals: the consent of n distinct people to one act, to a window, or to an emergency.

Pure transitions: each takes a record and gives the next, or raises. Who asks never
consents, nor does who profits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from privyseald.model.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from privyseald.model.policy import BREAK_GLASS_ROLES, SENSITIVE, Action, Role

MAX_NEEDED = 10
MAX_USES = 1000
MIN_SECONDS, MAX_SECONDS = 60, 7 * 86_400
MAX_BREAK_GLASS = 4 * 3600
APPROVABLE = SENSITIVE | {Action.RELEASE_DEPLOY, Action.RELEASE_SIGN, Action.BREAK_GLASS}


class ApprovalState(StrEnum):
    """What has become of a request."""

    PENDING = "pending"
    APPROVED = "approved"
    USED = "used"
    REJECTED = "rejected"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Approval:
    """A request for consent, and who consented.

    Attributes:
        id: Given by the daemon.
        action: What is to be allowed.
        app: On which app; `-` for all of them.
        subject: What exactly, as the refusal names it; empty for a window or an emergency.
        requester: Who asked.
        beneficiary: Who may use it; the requester unless another was named, which break-glass
            does not allow. Of a window: empty for whoever meets `ref` and `workflow`.
        reason: Why, for people.
        needed: How many must consent.
        uses: How many times it may be used.
        seconds: How long it is good for.
        created_at, expires_at: Seconds since 1970; a break-glass grant ends with it.
        role: For break-glass: the role wanted.
        ref, workflow: For a window: what a workload's token must say; empty is any.
        used: How many times it was used.
        approvers: Who consented, in order.
        serials: The certificate that each of them used, by its serial number.
        rejected_by: Who refused, or took it back.
    """

    id: str
    action: Action
    app: str
    subject: str
    requester: str
    beneficiary: str
    reason: str
    needed: int
    uses: int
    seconds: int
    created_at: int
    expires_at: int
    role: str = ""
    ref: str = ""
    workflow: str = ""
    used: int = 0
    approvers: tuple[str, ...] = ()
    serials: tuple[str, ...] = ()
    rejected_by: str = ""

    @property
    def name(self) -> str:
        """approvals/{id}."""
        return f"approvals/{self.id}"

    @property
    def window(self) -> bool:
        """Whether it opens signing rather than allowing one act."""
        return self.action is Action.RELEASE_SIGN

    def state(self, now: int) -> ApprovalState:
        """Return what has become of it."""
        if self.rejected_by:
            return ApprovalState.REJECTED
        if self.used >= self.uses:
            return ApprovalState.USED
        if self.expires_at <= now:
            return ApprovalState.EXPIRED
        return (
            ApprovalState.APPROVED if len(self.approvers) >= self.needed else ApprovalState.PENDING
        )

    def serves(
        self, principal: str, attributes: Mapping[str, str], action: Action, app: str, subject: str
    ) -> bool:
        """Say whether it is about an act of a principal, who is none of those who consented."""
        if (self.action, self.app) != (action, app) or principal in self.approvers:
            return False
        if self.beneficiary not in ({principal, ""} if self.window else {principal}):
            return False
        if self.window:
            return all(
                not wanted or attributes.get(name) == wanted
                for name, wanted in (("ref", self.ref), ("workflow", self.workflow))
            )
        return self.subject == subject


def requested(record: Approval) -> Approval:
    """Return a valid request. Raises InvalidArgument."""
    if record.action not in APPROVABLE:
        raise InvalidArgument("action", "is not one that approvals are for")
    glass = record.action is Action.BREAK_GLASS
    most = MAX_BREAK_GLASS if glass else MAX_SECONDS
    if not MIN_SECONDS <= record.seconds <= most:
        raise InvalidArgument("ttl_seconds", f"must be {MIN_SECONDS} to {most:,} seconds")
    if not 1 <= record.needed <= MAX_NEEDED:
        raise InvalidArgument("needed", f"must be 1 to {MAX_NEEDED} people")
    if not 1 <= record.uses <= (MAX_USES if record.window else 1):
        raise InvalidArgument("uses", f"must be 1, and for a signing window 1 to {MAX_USES:,}")
    if glass and record.role not in {str(role) for role in BREAK_GLASS_ROLES}:
        raise InvalidArgument("role", "must be the role that the emergency needs")
    if not glass and record.role:
        raise InvalidArgument("role", "is for break-glass alone")
    if not record.window and (record.ref or record.workflow):
        raise InvalidArgument("ref", "and workflow are for signing windows alone")
    if bool(record.subject) == (glass or record.window):
        raise InvalidArgument(
            "subject",
            "must be the one that the refusal named, and empty for windows and break-glass",
        )
    if glass and record.beneficiary != record.requester:
        # Who consents must not read another name than the one that gets the role.
        raise InvalidArgument("beneficiary", "must be empty for break-glass, which is for who asks")
    return record


def approve(record: Approval, principal: str, now: int, serial: str = "") -> Approval:
    """Add a person's consent, given with the certificate of a serial number.

    Raises:
        PermissionDenied: If the person asked for it, or would use it.
        FailedPrecondition: If it is not pending, or the person consented before.
    """
    if principal in {record.requester, record.beneficiary}:
        raise PermissionDenied(
            "who asks for an approval, or uses it, cannot give it; ask another approver",
            reason="OWN_APPROVAL",
        )
    _require(record, ApprovalState.PENDING, now)
    if principal in record.approvers:
        raise FailedPrecondition(
            "you approved this already; another person must", reason="APPROVED_TWICE"
        )
    return replace(
        record,
        approvers=(*record.approvers, principal),
        serials=(*record.serials, serial),
    )


def reject(record: Approval, principal: str, now: int) -> Approval:
    """Refuse it, or take it back; also one that was approved and is not used up."""
    if record.state(now) is not ApprovalState.PENDING:
        _require(record, ApprovalState.APPROVED, now)
    return replace(record, rejected_by=principal)


def use(record: Approval, now: int) -> Approval:
    """Use it once."""
    _require(record, ApprovalState.APPROVED, now)
    return replace(record, used=record.used + 1)


def break_glass_role(record: Approval) -> Role:
    """Return the role that an emergency needs."""
    return Role(record.role)


def _require(record: Approval, wanted: ApprovalState, now: int) -> None:
    state = record.state(now)
    if state is not wanted:
        raise FailedPrecondition(
            f"{record.name} is {state}, it must be {wanted} for this; ask for another",
            reason="APPROVAL_STATE",
        )
