"""RotationService and NativeService: each method converts, calls one use case, converts back."""

from __future__ import annotations

from privyseal.v1 import native_service_pb2 as native_pb
from privyseal.v1 import native_service_pb2_grpc as native_grpc
from privyseal.v1 import rotation_service_pb2 as pb
from privyseal.v1 import rotation_service_pb2_grpc as rotation_grpc

from privyseald.model import fields
from privyseald.model.errors import InvalidArgument
from privyseald.model.field import NativeBuild
from privyseald.model.policy import Caller
from privyseald.model.schemes import KeyPlace
from privyseald.rpc import convert_rotation as convert
from privyseald.rpc.calls import Gate, call, idempotent
from privyseald.services.field_status import FieldStatus
from privyseald.services.native import NativeBuilds
from privyseald.services.rotations import Rotations, Start


class RotationServicer(rotation_grpc.RotationServiceServicer):
    """privyseal.v1.RotationService."""

    def __init__(self, gate: Gate, rotations: Rotations, status: FieldStatus) -> None:
        self.gate, self._rotations, self._status = gate, rotations, status

    @call
    async def StartRotation(
        self, request: pb.StartRotationRequest, caller: Caller
    ) -> pb.StartRotationResponse:
        """Begin a rotation."""
        app, key = fields.parts(request.parent, "parent", "apps", "keys")
        message = pb.StartRotationResponse
        answer = await self._rotations.start(
            caller,
            idempotent(caller, request, lambda r: message(rotation=convert.rotation(r))),
            Start(
                app,
                key,
                convert.kind(request.kind),
                request.reason,
                old=_version_of(request.parent, request.old_version, "old_version"),
                new=_version_of(request.parent, request.new_version, "new_version"),
                place=KeyPlace(token=request.in_token),
                since=request.compromise_time.seconds,
            ),
        )
        return message.FromString(answer)

    @call
    async def GetRotation(
        self, request: pb.GetRotationRequest, caller: Caller
    ) -> pb.GetRotationResponse:
        """Return a rotation."""
        found = await self._rotations.get(caller, _name(request.name))
        return pb.GetRotationResponse(rotation=convert.rotation(found))

    @call
    async def ListRotations(
        self, request: pb.ListRotationsRequest, caller: Caller
    ) -> pb.ListRotationsResponse:
        """List rotations."""
        if "/keys/" in request.parent:
            app, key = fields.parts(request.parent, "parent", "apps", "keys")
        else:
            app, key = fields.app_name(request.parent, "parent"), ""
        found = await self._rotations.listed(caller, app, key)
        return pb.ListRotationsResponse(rotations=[convert.rotation(r) for r in found])

    @call
    async def AdvanceRotation(
        self, request: pb.AdvanceRotationRequest, caller: Caller
    ) -> pb.AdvanceRotationResponse:
        """Take the next step."""
        message = pb.AdvanceRotationResponse
        answer = await self._rotations.advance(
            caller,
            idempotent(caller, request, lambda r: message(rotation=convert.rotation(r))),
            name=_name(request.name),
            expected=convert.state(request.expected_state),
            force=request.force,
        )
        return message.FromString(answer)

    @call
    async def AbortRotation(
        self, request: pb.AbortRotationRequest, caller: Caller
    ) -> pb.AbortRotationResponse:
        """Give a rotation up."""
        message = pb.AbortRotationResponse
        answer = await self._rotations.abort(
            caller,
            idempotent(caller, request, lambda r: message(rotation=convert.rotation(r))),
            name=_name(request.name),
            reason=request.reason,
        )
        return message.FromString(answer)

    @call
    async def GetFieldStatus(
        self, request: pb.GetFieldStatusRequest, caller: Caller
    ) -> pb.GetFieldStatusResponse:
        """Return how a key stands."""
        app, key = fields.parts(request.name, "name", "apps", "keys")
        return convert.status(await self._status.of(caller, app, key))


class NativeServicer(native_grpc.NativeServiceServicer):
    """privyseal.v1.NativeService."""

    def __init__(self, gate: Gate, builds: NativeBuilds) -> None:
        self.gate, self._builds = gate, builds

    @call
    async def RegisterNativeBuild(
        self, request: native_pb.RegisterNativeBuildRequest, caller: Caller
    ) -> native_pb.RegisterNativeBuildResponse:
        """Register a build."""
        message = native_pb.RegisterNativeBuildResponse
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
        self, request: native_pb.ListNativeBuildsRequest, caller: Caller
    ) -> native_pb.ListNativeBuildsResponse:
        """List builds."""
        found = await self._builds.list(caller, fields.app_name(request.parent, "parent"))
        return native_pb.ListNativeBuildsResponse(
            native_builds=[convert.native_build(b) for b in found]
        )

    @call
    async def EndNativeBuild(
        self, request: native_pb.EndNativeBuildRequest, caller: Caller
    ) -> native_pb.EndNativeBuildResponse:
        """End a build."""
        app, build = fields.parts(request.name, "name", "apps", "nativeBuilds")
        message = native_pb.EndNativeBuildResponse
        answer = await self._builds.end(
            caller,
            idempotent(caller, request, lambda b: message(native_build=convert.native_build(b))),
            app,
            build,
            reason=request.reason,
            force=request.force,
        )
        return message.FromString(answer)


def _name(value: str) -> tuple[str, str, str]:
    app, key, rotation = fields.parts(value, "name", "apps", "keys", "rotations")
    return app, key, rotation


def _version_of(key: str, name: str, field: str) -> int:
    """Return the number of a key's version; 0 if none is named."""
    if not name:
        return 0
    *_, number = fields.parts(name, field, "apps", "keys", "versions")
    if name != f"{key}/versions/{number}":
        raise InvalidArgument(field, f"must be a version of {key}")
    return fields.number(number, field)
