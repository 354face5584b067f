"""What stands between a rotation and its next step, computed from field trust and check-ins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from privyseal.verify.statement import NativeRange

from privyseald.model.field import HOPES, FieldTrust, NativeBuild, embeds, serving, trusted
from privyseald.model.native import admits
from privyseald.model.records import KeyRecord, KeyVersionRecord
from privyseald.model.rotation import Rotation, RotationKind, RotationState
from privyseald.model.schemes import KeyVersionState, Scheme

WINDOW_DAYS = 30
"""How far back check-ins are looked at."""
STRANGERS = 0.01
"""From which share of check-ins on unregistered versions stand in the way."""


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
class Situation:
    """All that decides over a rotation, as of one moment; check-ins of `WINDOW_DAYS`."""

    key: KeyRecord
    trust: FieldTrust
    deployed: tuple[Deployed, ...] = field(default=())


def obstacles(rotation: Rotation, now: Situation) -> tuple[Obstacle, ...]:
    """Return what stands between a rotation and its next state; nothing if it can go on."""
    key, trust = now.key, now.trust
    live = trust.live(key.scheme)
    new = key.version(rotation.new)
    # What was promoted can have been replaced since; what it replaced is retired all the same.
    replaced = rotation.state is RotationState.PROMOTED and key.primary != rotation.new
    if new is None or (new.state in _UNFIT and not replaced):
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
        behind = [b for b in newest_of_platforms(live) if not new.trusted_with(b.trusts)]
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
            + _strangers(now, f"they get what version {rotation.new} signs, once it is promoted")
        )
    return _before_retired(rotation, now)


_NOT_GIVEN_UP = frozenset({Scheme.STATEMENT_V1, Scheme.EXPO_ROOT_V1})
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
    if any(new.trusted_with(b.trusts) for b in live):
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
            b for b in now.trust.stranded(now.key) if old is not None and old.trusted_with(b.trusts)
        ]
        return _if_any(
            waiting,
            "BUILDS_WAIT_FOR_STORE",
            "devices with these builds trust the compromised version alone and get nothing before "
            "they update from the store; end the builds when they do not count any more",
            forceable=True,
        )
    return before_retiring(rotation.old, now)


def is_given_up_with(key: KeyRecord, number: int) -> bool:
    """Say whether a key is given up when a version is deactivated: no other could follow.

    A statement's key and a root are never: every release, or every leaf, hangs on them.
    """
    if key.given_up or number != key.primary or key.scheme in _NOT_GIVEN_UP:
        return False
    return not any(v.version != number and v.state in HOPES for v in key.versions)


def before_giving_up(number: int, now: Situation) -> tuple[Obstacle, ...]:
    """Return what stands in the way of giving a key up with its last version."""
    version = now.key.version(number)
    if version is not None and version.state in HOPES:
        return before_retiring(number, now)
    return _if_any(
        now.trust.live(now.key.scheme),
        "BUILDS_DEPEND",
        "these builds verify what the key signs, and get nothing without it; rotate it, or end "
        "them when they do not count any more (`privyseal native end`)",
        forceable=True,
    )


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
        if embeds(b.plugin, now.key.scheme)
        and not b.live
        and b.id in asked
        and old is not None
        and old.trusted_with(b.trusts)
        and serving(b, now.key, [number]) is None
    ]
    found = _if_any(
        ended,
        "ENDED_BUILDS_ASK",
        f"devices with builds that were ended still asked in the last {WINDOW_DAYS} days",
        forceable=True,
    )
    return found + _strangers(now, f"some may trust version {number} alone")


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


def _strangers(now: Situation, danger: str) -> tuple[Obstacle, ...]:
    """Return what check-ins of native versions that nobody registered tell against a step."""
    counts = now.trust.counts
    total = sum(c.count for c in counts)
    strangers = sum(c.count for c in counts if not c.build)
    # No device embeds what only auditors and the gateway verify.
    if now.key.scheme in _FOR_PEOPLE or not total or strangers / total < STRANGERS:
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
    return not before_retiring(rotation.new, now)
