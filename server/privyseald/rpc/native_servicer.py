"""NativeService: each method converts, calls one use case and converts back."""

from __future__ import annotations

from privyseal.v1 import native_service_pb2 as pb
from privyseal.v1 import native_service_pb2_grpc as native_grpc

from privyseald.model import fields
from privyseald.model.field import NativeBuild
from privyseald.model.policy import Caller
from privyseald.rpc import convert_rotation as convert
from privyseald.rpc.calls import Gate, call, idempotent
from privyseald.services.native import NativeBuilds


class NativeServicer(native_grpc.NativeServiceServicer):
    """privyseal.v1.NativeService."""

    def __init__(self, gate: Gate, builds: NativeBuilds) -> None:
        self.gate, self._builds = gate, builds

    @call
    async def RegisterNativeBuild(
        self, request: pb.RegisterNativeBuildRequest, caller: Caller
    ) -> pb.RegisterNativeBuildResponse:
        """Register a build."""
        message = pb.RegisterNativeBuildResponse
        answer = await self._builds.register(
            caller,
            idempotent(caller, request, lambda b: message(native_build=convert.native_build(b))),
            NativeBuild(
                app=fields.app_name(request.parent, "parent"),
                id=request.native_build_id,
                platform=convert.platform(request.platform),
                version_name=request.version_name,
                version_code=request.version_code,
                plugin=request.plugin,
                trusts=tuple(sorted(set(request.trusted_keys))),
                registered_at=0,
            ),
            allow_unknown=request.allow_unknown,
            already_shipped=request.already_shipped,
        )
        return message.FromString(answer)

    @call
    async def ListNativeBuilds(
        self, request: pb.ListNativeBuildsRequest, caller: Caller
    ) -> pb.ListNativeBuildsResponse:
        """List builds."""
        found = await self._builds.list(caller, fields.app_name(request.parent, "parent"))
        return pb.ListNativeBuildsResponse(native_builds=[convert.native_build(b) for b in found])

    @call
    async def EndNativeBuild(
        self, request: pb.EndNativeBuildRequest, caller: Caller
    ) -> pb.EndNativeBuildResponse:
        """End a build."""
        app, build = fields.parts(request.name, "name", "apps", "nativeBuilds")
        message = pb.EndNativeBuildResponse
        answer = await self._builds.end(
            caller,
            idempotent(caller, request, lambda b: message(native_build=convert.native_build(b))),
            app,
            build,
            reason=request.reason,
            force=request.force,
        )
        return message.FromString(answer)
