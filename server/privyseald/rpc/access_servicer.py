"""AccessService: each method converts, calls one use case and converts back."""

from __future__ import annotations

from privyseal import __version__
from privyseal.v1 import access_service_pb2 as access_pb
from privyseal.v1 import access_service_pb2_grpc as access_grpc

from privyseald.model import fields
from privyseald.model.errors import AlreadyExists
from privyseald.model.policy import Caller, Grant
from privyseald.model.records import TokenRecord
from privyseald.rpc import convert
from privyseald.rpc.calls import call, idempotent
from privyseald.services.access import Access


class AccessServicer(access_grpc.AccessServiceServicer):
    """privyseal.v1.AccessService."""

    def __init__(self, access: Access) -> None:
        self.access = access

    @call
    async def WhoAmI(
        self, request: access_pb.WhoAmIRequest, caller: Caller
    ) -> access_pb.WhoAmIResponse:
        """Say who calls."""
        grants = [convert.grant(g) for g in await self.access.who(caller)]
        return access_pb.WhoAmIResponse(
            principal=caller.principal, grants=grants, server_version=__version__
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

        secret, answer = await self.access.create_token(
            caller,
            idempotent(caller, request, encode),
            name=request.display_name,
            ttl=request.ttl_seconds,
            roles=[convert.role(r) for r in request.roles],
            app=fields.resource(request.resource, "resource"),
        )
        response = access_pb.CreateTokenResponse.FromString(answer)
        if not secret.startswith("pst_" + response.token.name.removeprefix("tokens/")):
            raise AlreadyExists(
                f"{response.token.name} was created by this request before, and its secret "
                "was shown then; revoke it and create another",
                reason="SECRET_SHOWN",
                field="request_id",
            )
        response.secret = secret
        return response

    @call
    async def ListTokens(
        self, request: access_pb.ListTokensRequest, caller: Caller
    ) -> access_pb.ListTokensResponse:
        """List tokens."""
        found = await self.access.tokens(caller)
        return access_pb.ListTokensResponse(tokens=[convert.token(t) for t in found])

    @call
    async def RevokeToken(
        self, request: access_pb.RevokeTokenRequest, caller: Caller
    ) -> access_pb.RevokeTokenResponse:
        """Revoke a token."""
        message = access_pb.RevokeTokenResponse
        answer = await self.access.revoke_token(
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
        app = fields.resource(request.resource, "resource")
        wanted = Grant("", fields.principal(request.principal), convert.role(request.role), app)
        answer = await self.access.create_grant(
            caller, idempotent(caller, request, lambda g: message(grant=convert.grant(g))), wanted
        )
        return message.FromString(answer)

    @call
    async def ListGrants(
        self, request: access_pb.ListGrantsRequest, caller: Caller
    ) -> access_pb.ListGrantsResponse:
        """List grants."""
        found = await self.access.grants(caller, fields.resource(request.resource, "resource"))
        return access_pb.ListGrantsResponse(grants=[convert.grant(g) for g in found])

    @call
    async def RevokeGrant(
        self, request: access_pb.RevokeGrantRequest, caller: Caller
    ) -> access_pb.RevokeGrantResponse:
        """Take a role back."""
        message = access_pb.RevokeGrantResponse
        answer = await self.access.revoke_grant(
            caller,
            idempotent(caller, request, lambda _: message()),
            fields.parts(request.name, "name", "grants")[0],
        )
        return message.FromString(answer)
