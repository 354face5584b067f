"""A dry run of a rotation: what each step ahead does, waits for, and would strand."""

from __future__ import annotations

from dataclasses import dataclass, replace

from privyseald.model.obstacles import Obstacle, Situation, obstacles
from privyseald.model.rotation import ORDER, Rotation, RotationKind, RotationState


@dataclass(frozen=True)
class PlannedStep:
    """One step ahead: what it does, what it waits for, whom it would strand now."""

    state: RotationState
    effects: tuple[str, ...]
    obstacles: tuple[Obstacle, ...]
    strands: tuple[str, ...] = ()


def plan(rotation: Rotation, now: Situation) -> list[PlannedStep]:
    """Return the steps ahead, as things are now: a dry run."""
    ahead = list(ORDER[ORDER.index(rotation.state) + 1 :]) if rotation.open else []
    steps, at = [], rotation
    for state in ahead:
        strands: tuple[str, ...] = ()
        if state is RotationState.RETIRED and rotation.kind is RotationKind.PLANNED:
            lost = now.trust.lost_by_retiring(now.key, rotation.old)
            strands = tuple(sorted(b.id for b in lost))
        steps.append(PlannedStep(state, _effects(rotation, state), obstacles(at, now), strands))
        at = replace(at, state=state)
    return steps


def _effects(rotation: Rotation, state: RotationState) -> tuple[str, ...]:
    old, new = rotation.old, rotation.new
    return {
        RotationState.DISTRIBUTING: (
            f"version {new} becomes active",
            "releases are signed with every version that their audience needs",
            f"deployed releases are signed again, for the builds that trust version {new}",
        ),
        RotationState.OVERLAP: (
            f"native builds that do not trust version {new} are refused from now on",
        ),
        RotationState.PROMOTED: (
            f"version {new} becomes the primary",
            f"version {old} signs a successor record for it, and signs on for who needs it",
        ),
        RotationState.RETIRED: (
            (f"version {old} is deactivated",)
            if rotation.kind is RotationKind.PLANNED
            else ("the rotation is closed",)
        ),
    }[state]
