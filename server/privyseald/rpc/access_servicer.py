"""AccessService: each method converts, calls one use case and converts back."""

from __future__ import annotations

from privyseal import __version__
from privyseal.v1 import access_service_pb2 as access_pb
from privyseal.v1 import access_service_pb2_grpc as access_grpc

from privyseald.model import fields
from privyseald.model.policy import Caller, Grant
from privyseald.model.records import TokenRecord
from privyseald.rpc import convert
from privyseald.rpc.calls import Gate, call, idempotent, open_call
from privyseald.services.credentials import Credentials
from privyseald.services.grants import Grants, conditions_of
from privyseald.services.workloads import Workloads


class AccessServicer(access_grpc.AccessServiceServicer):
    """privyseal.v1.AccessService."""

    def __init__(
        self, gate: Gate, credentials: Credentials, grants: Grants, workloads: Workloads
    ) -> None:
        self.gate, self._credentials = gate, credentials
        self._grants, self._workloads = grants, workloads

    @call
    async def WhoAmI(
        self, request: access_pb.WhoAmIRequest, caller: Caller
    ) -> access_pb.WhoAmIResponse:
        """Say who calls."""
        grants = [convert.grant(g) for g in await self._grants.of(caller)]
        return access_pb.WhoAmIResponse(
            principal=caller.principal,
            grants=grants,
            server_version=__version__,
            attributes=dict(caller.attributes),
            expire_time=convert.time(caller.expires_at) if caller.expires_at else None,
        )

    @open_call
    async def ExchangeToken(
        self, request: access_pb.ExchangeTokenRequest
    ) -> access_pb.ExchangeTokenResponse:
        """Exchange an identity token for a session."""
        made = await self._workloads.exchange(
            request.id_token,
            fields.app_name(request.parent, "parent"),
            list(request.content_sha256s),
        )
        return access_pb.ExchangeTokenResponse(
            session=made.secret,
            principal=made.record.principal,
            expire_time=convert.time(made.record.expires_at),
            attributes=dict(made.record.attributes),
        )

    @call
    async def InspectToken(
        self, request: access_pb.InspectTokenRequest, caller: Caller
    ) -> access_pb.InspectTokenResponse:
        """Say what an identity token says."""
        app = fields.resource(request.resource, "resource")
        workload = await self._workloads.inspect(caller, request.id_token, app)
        return access_pb.InspectTokenResponse(
            principal=workload.principal, attributes=dict(workload.attributes)
        )

    @call
    async def CreateToken(
        self, request: access_pb.CreateTokenRequest, caller: Caller
    ) -> access_pb.CreateTokenResponse:
        """Create a token; its secret is in this one answer."""

        def encode(made: tuple[TokenRecord, list[Grant]]) -> access_pb.CreateTokenResponse:
            return access_pb.CreateTokenResponse(
                token=convert.token(made[0]), grants=[convert.grant(g) for g in made[1]]
            )

        secret, answer = await self._credentials.create_token(
            caller,
            idempotent(caller, request, encode),
            name=request.display_name,
            ttl=request.ttl_seconds,
            roles=[convert.role(r) for r in request.roles],
            app=fields.resource(request.resource, "resource"),
        )
        response = access_pb.CreateTokenResponse.FromString(answer)
        response.secret = secret
        return response

    @call
    async def ListTokens(
        self, request: access_pb.ListTokensRequest, caller: Caller
    ) -> access_pb.ListTokensResponse:
        """List tokens."""
        found = await self._credentials.tokens(caller)
        return access_pb.ListTokensResponse(tokens=[convert.token(t) for t in found])

    @call
    async def RevokeToken(
        self, request: access_pb.RevokeTokenRequest, caller: Caller
    ) -> access_pb.RevokeTokenResponse:
        """Revoke a token."""
        message = access_pb.RevokeTokenResponse
        answer = await self._credentials.revoke_token(
            caller,
            idempotent(caller, request, lambda t: message(token=convert.token(t))),
            fields.parts(request.name, "name", "tokens")[0],
        )
        return message.FromString(answer)

    @call
    async def CreateGrant(
        self, request: access_pb.CreateGrantRequest, caller: Caller
    ) -> access_pb.CreateGrantResponse:
        """Give a role."""
        message = access_pb.CreateGrantResponse
        wanted = Grant(
            "",
            fields.principal(request.principal),
            convert.role(request.role),
            fields.resource(request.resource, "resource"),
            conditions=conditions_of(request.conditions),
        )
        answer = await self._grants.create(
            caller, idempotent(caller, request, lambda g: message(grant=convert.grant(g))), wanted
        )
        return message.FromString(answer)

    @call
    async def ListGrants(
        self, request: access_pb.ListGrantsRequest, caller: Caller
    ) -> access_pb.ListGrantsResponse:
        """List grants."""
        found = await self._grants.list(caller, fields.resource(request.resource, "resource"))
        return access_pb.ListGrantsResponse(grants=[convert.grant(g) for g in found])

    @call
    async def RevokeGrant(
        self, request: access_pb.RevokeGrantRequest, caller: Caller
    ) -> access_pb.RevokeGrantResponse:
        """Take a role back."""
        message = access_pb.RevokeGrantResponse
        answer = await self._grants.revoke(
            caller,
            idempotent(caller, request, lambda _: message()),
            fields.parts(request.name, "name", "grants")[0],
        )
        return message.FromString(answer)

    @call
    async def DenyCertificate(
        self, request: access_pb.DenyCertificateRequest, caller: Caller
    ) -> access_pb.DenyCertificateResponse:
        """Deny a certificate."""
        message = access_pb.DenyCertificateResponse
        answer = await self._credentials.deny_certificate(
            caller,
            idempotent(
                caller, request, lambda d: message(certificate=convert.denied_certificate(d))
            ),
            serial=request.serial,
            reason=request.reason,
        )
        return message.FromString(answer)

    @call
    async def ListDeniedCertificates(
        self, request: access_pb.ListDeniedCertificatesRequest, caller: Caller
    ) -> access_pb.ListDeniedCertificatesResponse:
        """List denied certificates."""
        found = await self._credentials.denials(caller)
        return access_pb.ListDeniedCertificatesResponse(
            certificates=[convert.denied_certificate(d) for d in found]
        )
