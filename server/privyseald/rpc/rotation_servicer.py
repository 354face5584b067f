"""RotationService: each method converts, calls one use case and converts back."""

from __future__ import annotations

from privyseal.v1 import rotation_service_pb2 as pb
from privyseal.v1 import rotation_service_pb2_grpc as rotation_grpc

from privyseald.model import fields
from privyseald.model.errors import InvalidArgument
from privyseald.model.policy import Caller
from privyseald.model.schemes import KeyPlace
from privyseald.rpc import convert_rotation as convert
from privyseald.rpc.calls import Gate, call, idempotent
from privyseald.services.field_status import FieldStatus
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
