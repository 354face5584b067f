"""Native builds, rotations and field status as messages."""

from __future__ import annotations

from datetime import UTC, datetime

from privyseal.v1 import native_service_pb2 as native_pb
from privyseal.v1 import rotation_service_pb2 as pb
from privyseal.v1 import types_pb2

from privyseald.model.errors import InvalidArgument
from privyseald.model.field import NativeBuild, Standing
from privyseald.model.lifecycle import DAY
from privyseald.model.obstacles import Obstacle
from privyseald.model.plan import PlannedStep
from privyseald.model.rotation import Rotation, RotationKind, RotationState
from privyseald.rpc.convert import time
from privyseald.services.field_status import Status

_PLATFORMS = {types_pb2.PLATFORM_ANDROID: "android", types_pb2.PLATFORM_IOS: "ios"}


def platform(value: types_pb2.Platform.ValueType) -> str:
    """Return a platform. Raises InvalidArgument."""
    found = _PLATFORMS.get(value)
    if found is None:
        raise InvalidArgument("platform", "must be android or ios")
    return found


def native_build(build: NativeBuild) -> native_pb.NativeBuild:
    """Return a native build."""
    return native_pb.NativeBuild(
        name=build.name,
        platform=next(value for value, name in _PLATFORMS.items() if name == build.platform),
        version_name=build.version_name,
        version_code=build.version_code,
        plugin=build.plugin,
        trusted_keys=build.trusts,
        register_time=time(build.registered_at),
        end_time=time(build.ended_at) if build.ended_at else None,
    )


def kind(value: pb.RotationKind.ValueType) -> RotationKind:
    """Return the kind of a rotation; planned if unspecified."""
    emergency = value == pb.ROTATION_KIND_EMERGENCY
    return RotationKind.EMERGENCY if emergency else RotationKind.PLANNED


def state(value: pb.RotationState.ValueType) -> RotationState | None:
    """Return a state, None if unspecified. Raises InvalidArgument."""
    if value == pb.ROTATION_STATE_UNSPECIFIED:
        return None
    for known in RotationState:
        if state_to_wire(known) == value:
            return known
    raise InvalidArgument("expected_state", "must be one this daemon knows")


def state_to_wire(value: RotationState) -> pb.RotationState.ValueType:
    """Return the enum value of a state."""
    return pb.RotationState.Value(f"ROTATION_STATE_{value.upper()}")


def rotation(record: Rotation) -> pb.Rotation:
    """Return a rotation."""
    key = f"apps/{record.app}/keys/{record.key}"
    return pb.Rotation(
        name=record.name,
        kind=pb.RotationKind.Value(f"ROTATION_KIND_{record.kind.upper()}"),
        state=state_to_wire(record.state),
        old_version=f"{key}/versions/{record.old}",
        new_version=f"{key}/versions/{record.new}",
        reason=record.reason,
        history=[
            pb.RotationStep(
                state=state_to_wire(step.state),
                time=time(step.at),
                principal=step.principal,
                forced=step.forced,
            )
            for step in record.history
        ],
    )


def status(found: Status) -> pb.GetFieldStatusResponse:
    """Return how a key stands."""
    app = found.key.app
    return pb.GetFieldStatusResponse(
        rotation=rotation(found.rotation) if found.rotation else None,
        standings=[_standing(s) for s in found.standings],
        steps=[_step(s) for s in found.steps],
        days=[pb.DayCoverage(day=_day(day), check_ins=counts) for day, counts in found.days],
        affected_releases=[f"apps/{app}/releases/{n}" for n in found.affected],
        primary=found.key.primary,
    )


def _standing(standing: Standing) -> pb.NativeStanding:
    return pb.NativeStanding(
        native_build=standing.build.name if standing.build else "",
        label=standing.label,
        embedded_versions=standing.embedded,
        served_by=standing.served_by,
        check_ins=standing.check_ins,
        share=standing.share,
        verdict=standing.verdict,
        last_day=_day(standing.last_day) if standing.last_day else "",
        unknown_keys=standing.unknown,
    )


def _step(step: PlannedStep) -> pb.PlannedStep:
    return pb.PlannedStep(
        state=state_to_wire(step.state),
        effects=step.effects,
        obstacles=[_obstacle(o) for o in step.obstacles],
        strands=step.strands,
    )


def _obstacle(obstacle: Obstacle) -> pb.Obstacle:
    return pb.Obstacle(
        reason=obstacle.reason,
        text=obstacle.text,
        native_builds=obstacle.builds,
        forceable=obstacle.forceable,
    )


def _day(day: int) -> str:
    return datetime.fromtimestamp(day * DAY, UTC).strftime("%Y-%m-%d")
