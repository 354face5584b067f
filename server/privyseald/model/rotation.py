"""Rotation: from one version of a key to another without stranding a device.

A planned rotation walks through these states, and stays in each as long as it takes::

    PREPARED      the new version exists, and its public key can be compiled into builds
    DISTRIBUTING  a build trusts it: it is active, and releases are signed with both
    OVERLAP       every platform's newest build trusts it; none that does not is taken any more
    PROMOTED      it is the primary; the old one signs on for who needs it
    RETIRED       no live build needs the old one, which is deactivated

An emergency (the old version is compromised) begins at PROMOTED: the old version signs
nothing from that moment on, and the builds that trust nothing else wait for the store.

All of it is computed from field trust. Nothing here acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from privyseal.verify.statement import NativeRange

from privyseald.model.errors import FailedPrecondition
from privyseald.model.field import FieldTrust, NativeBuild, serving, trusted
from privyseald.model.native import admits
from privyseald.model.records import KeyRecord, KeyVersionRecord
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


_ORDER = (
    RotationState.PREPARED,
    RotationState.DISTRIBUTING,
    RotationState.OVERLAP,
    RotationState.PROMOTED,
    RotationState.RETIRED,
)
OPEN = frozenset(_ORDER[:-1])
UNDER_WAY = frozenset(_ORDER[:-2])
"""Before the promotion: of a key, one rotation at a time. Afterwards the old version may take
months to retire, while the next rotation runs."""
WINDOW_DAYS = 30
"""How far back check-ins are looked at."""
STRANGERS = 0.01
"""From which share of check-ins on unregistered versions stand in the way."""


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
        return _ORDER[_ORDER.index(self.state) + 1] if self.open else None

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


@dataclass(frozen=True)
class Deployed:
    """What a channel points at: for which binaries, and the versions of a key that signed it."""

    channel: str
    release: str
    ranges: tuple[NativeRange, ...]
    signed: frozenset[int]


@dataclass(frozen=True)
class Obstacle:
    """Why a rotation cannot go on yet.

    Attributes:
        reason: UPPER_SNAKE_CASE, for programs.
        text: What is the matter and what to do, in a sentence.
        builds: The builds concerned, by id.
        forceable: Whether others can consent to going on all the same.
    """

    reason: str
    text: str
    builds: tuple[str, ...] = ()
    forceable: bool = False


@dataclass(frozen=True)
class PlannedStep:
    """One step ahead: what it does, what it waits for, whom it would strand now."""

    state: RotationState
    effects: tuple[str, ...]
    obstacles: tuple[Obstacle, ...]
    strands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Situation:
    """All that decides over a rotation, as of one moment; check-ins of `WINDOW_DAYS`."""

    key: KeyRecord
    trust: FieldTrust
    deployed: tuple[Deployed, ...] = field(default=())


def start(
    key: KeyRecord, others: Sequence[Rotation], kind: RotationKind, old: int, new: int
) -> None:
    """Check that a rotation can begin.

    Raises:
        FailedPrecondition: If another is under way, or a version is not fit for it.
    """
    busy = next((r for r in others if r.under_way), None)
    # An emergency overtakes a planned rotation, and nothing else.
    planned = busy is not None and busy.kind is RotationKind.PLANNED
    if busy is not None and not (planned and kind is RotationKind.EMERGENCY):
        raise FailedPrecondition(
            f"{busy.name} is under way; finish or abort it first", reason="ROTATION_UNDER_WAY"
        )
    before, after = key.version(old), key.version(new)
    if before is None or after is None:
        missing = old if before is None else new
        raise FailedPrecondition(
            f"{key.name} has no version {missing}; `privyseal key list` shows them",
            reason="KEY_VERSION_STATE",
        )
    if old != key.primary:
        raise FailedPrecondition(
            f"{before.name} is not the primary, which is version {key.primary}, so that there is "
            "nothing to rotate away from; "
            + (
                f"if others may know it, `privyseal key compromise {before.name}` stops it"
                if kind is RotationKind.EMERGENCY
                else "retire it with `privyseal key deactivate`"
            ),
            reason="NOT_PRIMARY",
        )
    if old == new:
        raise FailedPrecondition(
            f"{after.name} is the primary already; name another with --to",
            reason="KEY_VERSION_STATE",
        )
    fit = {KeyVersionState.PRE_ACTIVATION, KeyVersionState.ACTIVE}
    if after.state not in fit:
        raise FailedPrecondition(
            f"{after.name} is {after.state}; a rotation leads to a standby or an active version",
            reason="KEY_VERSION_STATE",
        )


def obstacles(rotation: Rotation, now: Situation) -> tuple[Obstacle, ...]:
    """Return what stands between a rotation and its next state; nothing if it can go on."""
    key, trust = now.key, now.trust
    live = trust.live(key.scheme)
    new = key.version(rotation.new)
    if new is None or new.state in _UNFIT:
        state = new.state if new is not None else "missing"
        remedy = (
            "start another rotation, away from it"
            if rotation.state is RotationState.PROMOTED
            else "abort, and rotate to another"
        )
        return (Obstacle("NEW_VERSION_UNFIT", f"version {rotation.new} is {state}; {remedy}"),)
    if rotation.state is RotationState.PREPARED:
        return _before_distributing(rotation, new, key.scheme, live)
    if rotation.state is RotationState.DISTRIBUTING:
        behind = [b for b in newest_of_platforms(live) if new.public_key_sha256 not in b.trusts]
        return _if_any(
            behind,
            "NEWEST_BUILD_BEHIND",
            f"the newest build of a platform does not trust version {rotation.new}, so that new "
            "installs would still depend on the old one",
        )
    if rotation.state is RotationState.OVERLAP:
        return (
            _if_any(
                uncovered(now),
                "DEPLOYED_UNCOVERED",
                "a deployed release has no signature that these builds verify; advancing signs it "
                "again",
            )
            + _suspended(rotation, key)
            + _strangers(trust, f"they get what version {rotation.new} signs, once it is promoted")
        )
    return _before_retired(rotation, now)


_FOR_PEOPLE = frozenset({Scheme.STATEMENT_V1, Scheme.STATEMENT_ML_DSA_V1})
"""What auditors and the gateway verify: no build need embed a key of these."""
_UNFIT = frozenset(
    {
        KeyVersionState.SUSPENDED,
        KeyVersionState.DEACTIVATED,
        KeyVersionState.COMPROMISED,
        KeyVersionState.DESTROY_SCHEDULED,
        KeyVersionState.DESTROYED,
    }
)


def _before_distributing(
    rotation: Rotation, new: KeyVersionRecord, scheme: Scheme, live: Sequence[NativeBuild]
) -> tuple[Obstacle, ...]:
    if any(new.public_key_sha256 in b.trusts for b in live):
        return ()
    if not live and scheme in _FOR_PEOPLE:
        return ()
    return (
        Obstacle(
            "NO_BUILD_TRUSTS",
            f"no live native build trusts version {rotation.new} yet; compile its public key "
            "into one and register it with `privyseal native register`",
        ),
    )


def _before_retired(rotation: Rotation, now: Situation) -> tuple[Obstacle, ...]:
    if rotation.kind is RotationKind.EMERGENCY:
        old = now.key.version(rotation.old)
        waiting = [
            b
            for b in now.trust.stranded(now.key)
            if old is not None and old.public_key_sha256 in b.trusts
        ]
        return _if_any(
            waiting,
            "BUILDS_WAIT_FOR_STORE",
            "devices with these builds trust the compromised version alone and get nothing before "
            "they update from the store; end the builds when they do not count any more",
            forceable=True,
        )
    return before_retiring(rotation.old, now)


def before_retiring(number: int, now: Situation) -> tuple[Obstacle, ...]:
    """Return what stands in the way of retiring a version, however it is done."""
    version = now.key.version(number)
    depend = _if_any(
        now.trust.lost_by_retiring(now.key, number),
        "BUILDS_DEPEND",
        f"these builds trust nothing but version {number}; end them when they do not count "
        "any more (`privyseal native end`)",
        forceable=True,
    )
    signed = version is not None and version.state is not KeyVersionState.PRE_ACTIVATION
    return depend + (_still_asking(number, now) if signed else ())


def _still_asking(number: int, now: Situation) -> tuple[Obstacle, ...]:
    """Return what check-ins tell against the retirement of a version."""
    trust, old = now.trust, now.key.version(number)
    asked = {c.build for c in trust.counts if c.count}
    ended = [
        b
        for b in trust.builds
        if b.scheme is now.key.scheme
        and not b.live
        and b.id in asked
        and old is not None
        and old.public_key_sha256 in b.trusts
        and serving(b, now.key, [number]) is None
    ]
    found = _if_any(
        ended,
        "ENDED_BUILDS_ASK",
        f"devices with builds that were ended still asked in the last {WINDOW_DAYS} days",
        forceable=True,
    )
    return found + _strangers(trust, f"some may trust version {number} alone")


def _suspended(rotation: Rotation, key: KeyRecord) -> tuple[Obstacle, ...]:
    """Return that the old version cannot sign for the new one now, and could later."""
    old = key.version(rotation.old)
    if old is None or old.state is not KeyVersionState.SUSPENDED:
        return ()
    return (
        Obstacle(
            "OLD_VERSION_SUSPENDED",
            f"version {rotation.old} is suspended and cannot sign the successor record; resume it, "
            "or if others may know it, start an emergency",
        ),
    )


def _strangers(trust: FieldTrust, danger: str) -> tuple[Obstacle, ...]:
    """Return what check-ins of native versions that nobody registered tell against a step."""
    total = sum(c.count for c in trust.counts)
    strangers = sum(c.count for c in trust.counts if not c.build)
    if not total or strangers / total < STRANGERS:
        return ()
    return (
        Obstacle(
            "UNREGISTERED_VERSIONS",
            f"{strangers / total:.0%} of the check-ins in the last {WINDOW_DAYS} days came from "
            "native versions that nobody registered, so that nobody knows what they trust, and "
            f"{danger}; `privyseal rotation status` lists them: register them with the keys that "
            "they embed (`privyseal native register`), or wait until they have updated",
            forceable=True,
        ),
    )


def _if_any(
    builds: Sequence[NativeBuild], reason: str, text: str, *, forceable: bool = False
) -> tuple[Obstacle, ...]:
    if not builds:
        return ()
    return (Obstacle(reason, text, tuple(sorted(b.id for b in builds)), forceable),)


def newest_of_platforms(builds: Sequence[NativeBuild]) -> list[NativeBuild]:
    """Return the newest build of each platform."""
    newest: dict[str, NativeBuild] = {}
    for build in builds:
        best = newest.get(build.platform)
        if best is None or build.order > best.order:
            newest[build.platform] = build
    return [newest[platform] for platform in sorted(newest)]


def uncovered(now: Situation) -> list[NativeBuild]:
    """Return the builds that are served, and verify no signature of a deployed release."""
    found = []
    for build in now.trust.live(now.key.scheme):
        if serving(build, now.key) is None:
            continue
        mine = {v.version for v in trusted(build, now.key)}
        if any(admits(d.ranges, build.native) and not mine & d.signed for d in now.deployed):
            found.append(build)
    return found


def abandons(rotation: Rotation, now: Situation) -> bool:
    """Say whether aborting leaves the new version to nobody, so that it is deactivated."""
    return not now.trust.lost_by_retiring(now.key, rotation.new)


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


def plan(rotation: Rotation, now: Situation) -> list[PlannedStep]:
    """Return the steps ahead, as things are now: a dry run."""
    ahead = list(_ORDER[_ORDER.index(rotation.state) + 1 :]) if rotation.open else []
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
