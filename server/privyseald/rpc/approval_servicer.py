"""ApprovalService: each method converts, calls one use case and converts back."""

from __future__ import annotations

from privyseal.v1 import approval_service_pb2 as approval_pb
from privyseal.v1 import approval_service_pb2_grpc as approval_grpc
from privyseal.v1 import types_pb2

from privyseald.model import fields
from privyseald.model.approvals import Approval
from privyseald.model.policy import Caller
from privyseald.ports import Clock
from privyseald.rpc import convert
from privyseald.rpc.calls import Gate, call, idempotent
from privyseald.services.consent import Consent


class ApprovalServicer(approval_grpc.ApprovalServiceServicer):
    """privyseal.v1.ApprovalService."""

    def __init__(self, gate: Gate, consent: Consent, clock: Clock) -> None:
        self.gate, self._consent, self._clock = gate, consent, clock

    def _wire(self, record: Approval) -> approval_pb.Approval:
        return convert.approval(record, self._clock())

    @call
    async def RequestApproval(
        self, request: approval_pb.RequestApprovalRequest, caller: Caller
    ) -> approval_pb.RequestApprovalResponse:
        """Ask for consent."""
        message = approval_pb.RequestApprovalResponse
        unset = request.role == types_pb2.ROLE_UNSPECIFIED
        wanted = Approval(
            id="",
            action=convert.action(request.action),
            app=fields.resource(request.resource, "resource"),
            subject=request.subject,
            requester="",
            beneficiary=request.beneficiary,
            reason=request.reason,
            needed=request.needed,
            uses=request.uses,
            seconds=request.ttl_seconds,
            created_at=0,
            expires_at=0,
            role="" if unset else convert.role(request.role),
            ref=request.ref,
            workflow=request.workflow,
        )
        answer = await self._consent.request(
            caller, idempotent(caller, request, lambda a: message(approval=self._wire(a))), wanted
        )
        return message.FromString(answer)

    @call
    async def GetApproval(
        self, request: approval_pb.GetApprovalRequest, caller: Caller
    ) -> approval_pb.GetApprovalResponse:
        """Return a request."""
        found = await self._consent.get(caller, _id(request.name))
        return approval_pb.GetApprovalResponse(approval=self._wire(found))

    @call
    async def ListApprovals(
        self, request: approval_pb.ListApprovalsRequest, caller: Caller
    ) -> approval_pb.ListApprovalsResponse:
        """List requests."""
        found = await self._consent.list(caller, fields.resource(request.resource, "resource"))
        return approval_pb.ListApprovalsResponse(approvals=[self._wire(a) for a in found])

    @call
    async def Approve(
        self, request: approval_pb.ApproveRequest, caller: Caller
    ) -> approval_pb.ApproveResponse:
        """Consent."""
        message = approval_pb.ApproveResponse
        answer = await self._consent.approve(
            caller,
            idempotent(caller, request, lambda a: message(approval=self._wire(a))),
            _id(request.name),
        )
        return message.FromString(answer)

    @call
    async def Reject(
        self, request: approval_pb.RejectRequest, caller: Caller
    ) -> approval_pb.RejectResponse:
        """Refuse, or take back."""
        message = approval_pb.RejectResponse
        answer = await self._consent.reject(
            caller,
            idempotent(caller, request, lambda a: message(approval=self._wire(a))),
            _id(request.name),
        )
        return message.FromString(answer)


def _id(name: str) -> str:
    return fields.parts(name, "name", "approvals")[0]
