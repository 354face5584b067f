"""AppService: each method converts, calls one use case and converts back."""

from __future__ import annotations

from privyseal.v1 import app_service_pb2 as app_pb
from privyseal.v1 import app_service_pb2_grpc as app_grpc
from privyseal.verify.keys import spki_pem

from privyseald.model import fields
from privyseald.model.policy import Caller
from privyseald.model.records import AppRecord, KeyRecord
from privyseald.model.schemes import KeyPlace
from privyseald.rpc import convert
from privyseald.rpc.calls import Gate, call, idempotent, page
from privyseald.services.keys import Keys


class AppServicer(app_grpc.AppServiceServicer):
    """privyseal.v1.AppService."""

    def __init__(self, gate: Gate, keys: Keys) -> None:
        self.gate, self._keys = gate, keys

    @call
    async def CreateApp(
        self, request: app_pb.CreateAppRequest, caller: Caller
    ) -> app_pb.CreateAppResponse:
        """Create an app and its statement key."""

        def encode(made: tuple[AppRecord, KeyRecord]) -> app_pb.CreateAppResponse:
            pem = spki_pem(made[1].versions[0].public_key)
            return app_pb.CreateAppResponse(app=convert.app(made[0]), statement_public_key=pem)

        answer = await self._keys.create_app(
            caller,
            idempotent(caller, request, encode),
            app=request.app_id,
            display_name=request.display_name,
            algorithm=convert.algorithm(request.statement_algorithm),
            place=KeyPlace(token=request.in_token),
        )
        return app_pb.CreateAppResponse.FromString(answer)

    @call
    async def GetApp(self, request: app_pb.GetAppRequest, caller: Caller) -> app_pb.GetAppResponse:
        """Return an app."""
        found = await self._keys.app(caller, fields.app_name(request.name, "name"))
        return app_pb.GetAppResponse(app=convert.app(found))

    @call
    async def ListApps(
        self, request: app_pb.ListAppsRequest, caller: Caller
    ) -> app_pb.ListAppsResponse:
        """List apps."""
        found, more = await self._keys.apps(
            caller, request.page_token, page(request.page_size, 100)
        )
        return app_pb.ListAppsResponse(apps=[convert.app(a) for a in found], next_page_token=more)
