"""Whether a rotation can take its next step, checked against field trust as it is now."""

from __future__ import annotations

from collections.abc import Sequence

from privyseald.model import obstacles
from privyseald.model.errors import FailedPrecondition, NotFound
from privyseald.model.field import FieldTrust
from privyseald.model.lifecycle import DAY
from privyseald.model.obstacles import WINDOW_DAYS, Obstacle
from privyseald.model.rotation import Rotation, RotationState
from privyseald.ports import View
from privyseald.services.field_status import situation


def ready(
    view: View,
    now: int,
    name: tuple[str, str, str],
    expected: RotationState | None,
    *,
    force: bool,
) -> tuple[Rotation, RotationState, list[Obstacle]]:
    """Return a rotation, its next state, and what that is forced against.

    Raises:
        FailedPrecondition: If it is in another state, at its end, or something stands in
            its way.
    """
    current = require_rotation(view, *name)
    following = current.next_state
    if following is None:
        raise FailedPrecondition(
            f"{current.name} is {current.state}, which is its end", reason="ROTATION_STATE"
        )
    if expected is not None and current.state is not expected:
        raise FailedPrecondition(
            f"{current.name} is {current.state} and not {expected}: somebody took the step "
            "already; look at its status",
            reason="ROTATION_STATE",
        )
    found = situation(view, now, current.app, current.key)
    hard: list[Obstacle] = []
    soft: list[Obstacle] = []
    for obstacle in obstacles.obstacles(current, found):
        # What lacks signatures is signed on the way.
        if obstacle.reason != "DEPLOYED_UNCOVERED":
            (soft if obstacle.forceable else hard).append(obstacle)
    if hard or (soft and not force):
        raise _blocked(found.trust, now, current, [*hard, *soft])
    return current, following, soft


def in_words(trust: FieldTrust, now: int, found: Sequence[Obstacle]) -> str:
    """Return obstacles in words: the builds with their shares, and whether force helps."""
    since = now // DAY - WINDOW_DAYS
    each = []
    for obstacle in found:
        shares = ", ".join(
            f"{b.id} ({trust.share([b], since):.1%})"
            for b in trust.builds
            if b.id in obstacle.builds[:20]
        )
        more = len(obstacle.builds) - 20
        shares += f" and {more} more" if more > 0 else ""
        each.append(f"{obstacle.text}{': ' + shares if shares else ''}")
    forceable = all(o.forceable for o in found)
    remedy = "; --force goes on all the same, with the consent of others" if forceable else ""
    return "; ".join(each) + remedy


def _blocked(
    trust: FieldTrust, now: int, current: Rotation, found: Sequence[Obstacle]
) -> FailedPrecondition:
    return FailedPrecondition(
        f"{current.name} stays {current.state}: {in_words(trust, now, found)}",
        reason=found[0].reason,
    )


def require_covered(view: View, now: int, current: Rotation) -> None:
    """Raise FailedPrecondition if a deployed release lacks what a served build verifies."""
    lacking = obstacles.uncovered(situation(view, now, current.app, current.key))
    if lacking:
        names = ", ".join(sorted(b.id for b in lacking)[:20])
        raise FailedPrecondition(
            "a deployed release could not be signed for these builds, publish it anew: " + names,
            reason="DEPLOYED_UNCOVERED",
        )


def require_rotation(view: View, app: str, key_id: str, rotation_id: str) -> Rotation:
    """Return a rotation. Raises NotFound."""
    found = view.rotations.get(app, key_id, rotation_id)
    if found is None:
        raise NotFound(
            f"there is no rotation apps/{app}/keys/{key_id}/rotations/{rotation_id}",
            reason="ROTATION_NOT_FOUND",
        )
    return found
