"""Rotation: from one version of a key to another without stranding a device.

A planned rotation walks through these states, and stays in each as long as it takes::

    PREPARED      the new version exists, and its public key can be compiled into builds
    DISTRIBUTING  a build trusts it: it is active, and releases are signed with both
    OVERLAP       every platform's newest build trusts it; none that does not is taken any more
    PROMOTED      it is the primary; the old one signs on for who needs it
    RETIRED       no live build needs the old one, which is deactivated

An emergency (the old version is compromised) begins at PROMOTED: the old version signs
nothing from that moment on, and the builds that trust nothing else wait for the store.

`obstacles` says, from field trust, what is against a step. Nothing here acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from privyseald.model.errors import FailedPrecondition
from privyseald.model.records import KeyRecord
from privyseald.model.schemes import KeyVersionState, Scheme


class RotationState(StrEnum):
    """How far a rotation is."""

    PREPARED = "prepared"
    DISTRIBUTING = "distributing"
    OVERLAP = "overlap"
    PROMOTED = "promoted"
    RETIRED = "retired"
    ABORTED = "aborted"


class RotationKind(StrEnum):
    """Why a key is rotated."""

    PLANNED = "planned"
    EMERGENCY = "emergency"


ORDER = (
    RotationState.PREPARED,
    RotationState.DISTRIBUTING,
    RotationState.OVERLAP,
    RotationState.PROMOTED,
    RotationState.RETIRED,
)
OPEN = frozenset(ORDER[:-1])
UNDER_WAY = frozenset(ORDER[:-2])
"""Before the promotion: of a key, one rotation at a time. Afterwards the old version may take
months to retire, while the next rotation runs."""


@dataclass(frozen=True)
class Step:
    """A state that was reached: when, by whom, and whether against an obstacle."""

    state: RotationState
    at: int
    principal: str
    forced: bool = False


@dataclass(frozen=True)
class Rotation:
    """A rotation of a key.

    Attributes:
        app, key: Of what.
        id: Within the key: a number, from 1 on.
        kind: Planned, or an emergency.
        old, new: The numbers of the versions.
        state: How far it is.
        reason: For people.
        history: The states so far, the first one first.
    """

    app: str
    key: str
    id: str
    kind: RotationKind
    old: int
    new: int
    state: RotationState
    reason: str
    history: tuple[Step, ...] = ()

    @property
    def name(self) -> str:
        """apps/{app}/keys/{key}/rotations/{id}."""
        return f"apps/{self.app}/keys/{self.key}/rotations/{self.id}"

    @property
    def open(self) -> bool:
        """Whether it goes on."""
        return self.state in OPEN

    @property
    def under_way(self) -> bool:
        """Whether it keeps another rotation of the key from beginning."""
        return self.state in UNDER_WAY

    @property
    def next_state(self) -> RotationState | None:
        """Return what comes next; None at its end."""
        return ORDER[ORDER.index(self.state) + 1] if self.open else None

    def reached(self, state: RotationState, at: int, principal: str, *, forced: bool) -> Rotation:
        """Return it in another state. Time never runs backwards in a history."""
        last = self.history[-1].at if self.history else 0
        step = Step(state, max(at, last), principal, forced)
        return replace(self, state=state, history=(*self.history, step))


def current(rotations: Sequence[Rotation]) -> Rotation | None:
    """Return the rotation to look at: what is under way, else what is open, else the last."""
    for wanted in (lambda r: r.under_way, lambda r: r.open, lambda _: True):
        found = [r for r in rotations if wanted(r)]
        if found:
            return found[-1]
    return None


def require_free(others: Sequence[Rotation], kind: RotationKind) -> None:
    """Raise FailedPrecondition if a rotation of the key is under way, before its promotion."""
    busy = next((r for r in others if r.under_way), None)
    # An emergency overtakes a planned rotation, and nothing else.
    planned = busy is not None and busy.kind is RotationKind.PLANNED
    if busy is not None and not (planned and kind is RotationKind.EMERGENCY):
        raise FailedPrecondition(
            f"{busy.name} is under way; finish or abort it first", reason="ROTATION_UNDER_WAY"
        )


def require_primary(key: KeyRecord, kind: RotationKind, old: int) -> None:
    """Raise FailedPrecondition if the version to rotate away from is not the primary.

    Nor is a root rotated: each leaf hangs on one, and binaries embed one.
    """
    name = f"{key.name}/versions/{old}"
    if key.scheme is Scheme.EXPO_ROOT_V1 and kind is RotationKind.PLANNED:
        raise FailedPrecondition(
            f"{key.name} is a root, whose leaf keys the daemon rotates; if others may know it, "
            "start an emergency (--emergency), and put the next root into the next binaries",
            reason="ROOT_NOT_ROTATED",
        )
    if old != key.primary:
        raise FailedPrecondition(
            f"{name} is not the primary, which is version {key.primary}, so that there is "
            "nothing to rotate away from; "
            + (
                f"if others may know it, `privyseal key compromise {name}` stops it"
                if kind is RotationKind.EMERGENCY
                else "retire it with `privyseal key deactivate`"
            ),
            reason="NOT_PRIMARY",
        )


def require_startable(
    key: KeyRecord, others: Sequence[Rotation], kind: RotationKind, old: int, new: int
) -> None:
    """Check that a rotation can begin.

    Raises:
        FailedPrecondition: If another is under way, or a version is not fit for it.
    """
    require_free(others, kind)
    before, after = key.version(old), key.version(new)
    if before is None or after is None:
        missing = old if before is None else new
        raise FailedPrecondition(
            f"{key.name} has no version {missing}; `privyseal key list` shows them",
            reason="KEY_VERSION_STATE",
        )
    require_primary(key, kind, old)
    if old == new:
        raise FailedPrecondition(
            f"{after.name} is the primary already; name another with --to",
            reason="KEY_VERSION_STATE",
        )
    if new < old and kind is RotationKind.PLANNED:
        raise FailedPrecondition(
            f"{after.name} is older than the primary, which signs for no version before it; name a "
            "newer one with --to",
            reason="KEY_VERSION_STATE",
        )
    fit = {KeyVersionState.PRE_ACTIVATION, KeyVersionState.ACTIVE}
    if after.state not in fit:
        raise FailedPrecondition(
            f"{after.name} is {after.state}; a rotation leads to a standby or an active version",
            reason="KEY_VERSION_STATE",
        )


def require_abortable(rotation: Rotation) -> None:
    """Raise FailedPrecondition if a rotation cannot be aborted any more."""
    if rotation.state in {
        RotationState.PREPARED,
        RotationState.DISTRIBUTING,
        RotationState.OVERLAP,
    }:
        return
    raise FailedPrecondition(
        f"{rotation.name} is {rotation.state} and cannot be aborted; start another rotation, away "
        f"from version {rotation.new}",
        reason="ROTATION_STATE",
    )
