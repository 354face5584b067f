"""PolicyService: each method converts, calls one use case and converts back."""

from __future__ import annotations

from privyseal.v1 import policy_service_pb2 as policy_pb
from privyseal.v1 import policy_service_pb2_grpc as policy_grpc

from privyseald.model import fields
from privyseald.model.policy import Caller, Grant, Query
from privyseald.rpc import convert
from privyseald.rpc.calls import Gate, call, idempotent
from privyseald.services.grants import conditions_of
from privyseald.services.policies import Case, Explanation, TeamPolicies


class PolicyServicer(policy_grpc.PolicyServiceServicer):
    """privyseal.v1.PolicyService."""

    def __init__(self, gate: Gate, policies: TeamPolicies, schema: str, builtin: str) -> None:
        self.gate, self._policies = gate, policies
        self._schema, self._builtin = schema, builtin

    @call
    async def ApplyPolicies(
        self, request: policy_pb.ApplyPoliciesRequest, caller: Caller
    ) -> policy_pb.ApplyPoliciesResponse:
        """Put policies in force."""
        message = policy_pb.ApplyPoliciesResponse
        answer = await self._policies.apply(
            caller,
            idempotent(caller, request, lambda p: message(policies=convert.policies(p))),
            request.text,
            _version(request.replaces, "replaces"),
        )
        return message.FromString(answer)

    @call
    async def GetPolicies(
        self, request: policy_pb.GetPoliciesRequest, caller: Caller
    ) -> policy_pb.GetPoliciesResponse:
        """Return policies."""
        version = _version(request.name, "name") if request.name else 0
        found = await self._policies.get(caller, version)
        return policy_pb.GetPoliciesResponse(
            policies=convert.policies(found), schema=self._schema, builtin=self._builtin
        )

    @call
    async def EvaluatePolicies(
        self, request: policy_pb.EvaluatePoliciesRequest, caller: Caller
    ) -> policy_pb.EvaluatePoliciesResponse:
        """Answer questions."""
        text = request.text if request.HasField("text") else None
        found = await self._policies.ask(caller, text, [_case(c) for c in request.cases])
        return policy_pb.EvaluatePoliciesResponse(answers=[_answer(e) for e in found])


def _version(name: str, field: str) -> int:
    return fields.number(fields.parts(name, field, "policies")[0], field)


def _case(case: policy_pb.PolicyCase) -> Case:
    grants = tuple(
        Grant(
            "",
            case.principal,
            convert.role(g.role),
            fields.resource(g.resource, "grants"),
            conditions=conditions_of(g.conditions),
        )
        for g in case.grants
    )
    query = Query(
        convert.action(case.action),
        fields.resource(case.resource, "resource"),
        channel=case.channel,
        bound=not case.unbound,
        approvals=case.approvals,
        window=case.window,
    )
    return Case(Caller(case.principal, grants, attributes=dict(case.attributes)), query)


def _answer(found: Explanation) -> policy_pb.PolicyAnswer:
    return policy_pb.PolicyAnswer(
        allowed=found.decision.allowed,
        policies=found.decision.policies,
        unmet={f"grants/{grant}": condition for grant, condition in found.unmet.items()},
    )
