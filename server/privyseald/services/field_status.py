"""How native versions stand with a key, and how far its rotation is; nothing here acts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from privyseal.verify.receipt import receipt_parts

from privyseald.model import rotation
from privyseald.model.field import FieldTrust, Standing
from privyseald.model.lifecycle import DAY
from privyseald.model.obstacles import WINDOW_DAYS, Deployed, Situation
from privyseald.model.plan import PlannedStep, plan
from privyseald.model.policy import Action, Caller
from privyseald.model.records import KeyRecord, signers_text
from privyseald.model.rotation import Rotation, RotationKind
from privyseald.ports import Clock, Store, View
from privyseald.services.access import Access
from privyseald.services.key_records import deployed, require_key, require_version


@dataclass(frozen=True)
class Status:
    """A rotation as things are now.

    Attributes:
        rotation: The rotation; None of a key that is not being rotated.
        key: The key.
        standings: How each native version stands.
        steps: What is ahead.
        days: Check-ins by day and by version that served them, for a picture.
        affected: In an emergency, the releases that the compromised version signed.
    """

    rotation: Rotation | None
    key: KeyRecord
    standings: list[Standing]
    steps: list[PlannedStep]
    days: list[tuple[int, dict[int, int]]]
    affected: list[int]


class FieldStatus:
    """Tells how things stand."""

    def __init__(self, store: Store, access: Access, clock: Clock) -> None:
        self._store = store
        self._access = access
        self._clock = clock

    async def of(self, caller: Caller, app: str, key_id: str) -> Status:
        """Return how a key stands, and its rotation that is under way or was last."""
        await self._access.authorise(caller, Action.KEY_READ, app)

        def query(view: View) -> Status:
            found = situation(view, self._clock(), app, key_id)
            current = rotation.current(view.rotations.list(app, key_id))
            since = self._clock() // DAY - WINDOW_DAYS
            return Status(
                current,
                found.key,
                found.trust.standings(found.key, since),
                plan(current, found) if current else [],
                _by_day(found),
                _affected(view, current),
            )

        status: Status = await self._store.read(query)
        return status


def situation(view: View, now: int, app: str, key_id: str) -> Situation:
    """Return all that decides over a key's rotation, as of a view."""
    key = require_key(view, app, key_id)
    builds = tuple(view.builds.list(app))
    counts = tuple(view.builds.check_ins(app, now // DAY - WINDOW_DAYS))
    return Situation(key, FieldTrust(builds, counts), tuple(_deployed(view, key)))


def _deployed(view: View, key: KeyRecord) -> list[Deployed]:
    found = []
    for release, signed, channels in deployed(view, key.app):
        ranges = (*release.signed_ranges, *release.ranges)
        by = signed.versions_of(key.id)
        if not signed.signers:
            # From before signers were kept: the receipt tells.
            names = signers_text(s.key_version for s in receipt_parts(signed.receipt)[1])
            by = replace(signed, signers=names).versions_of(key.id)
        found += [Deployed(channel, release.name, ranges, by) for channel in channels]
    return found


def signed_since(view: View, current: Rotation, since: int) -> list[int]:
    """Return the releases that a rotation's old version signed since a time, by counter."""
    found = view.releases.signed_by(current.app, current.key, current.old, since)
    return [record.counter for record in found]


def _affected(view: View, current: Rotation | None) -> list[int]:
    if current is None or current.kind is not RotationKind.EMERGENCY:
        return []
    old = require_version(view, current.app, current.key, current.old)
    return signed_since(view, current, old.compromised_at)


def _by_day(found: Situation) -> list[tuple[int, dict[int, int]]]:
    """Return check-ins of each day by the version that serves their build; 0 for none."""
    served = {
        s.build.id: s.served_by for s in found.trust.standings(found.key, 0) if s.build is not None
    }
    days: dict[int, dict[int, int]] = {}
    for c in found.trust.counts:
        day = days.setdefault(c.day, {})
        version = served.get(c.build, 0)
        day[version] = day.get(version, 0) + c.count
    return sorted(days.items())
