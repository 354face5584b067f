"""A fleet in the field, through planned rotations and an emergency, on days that pass quickly.

Twelve native versions of two platforms come to the store one after the other. Devices update
their binary some time after, at their own pace; the oldest versions are ended when hardly any
device has them. All ask each day; a sample of them verifies what it gets with the keys that
its binary embeds, and nothing else.
"""

import random

import pytest
from privyseald.model.errors import DomainError

from tests.simulator import World


class Fleet:
    """So many devices, each with one native version."""

    def __init__(self, world: World, devices: int, days: int, seed: int = 1) -> None:
        self.world, self.days = world, days
        self.chance = random.Random(seed)
        self.counts: dict[str, int] = {}
        self.total = devices
        self.newest: dict[str, str] = {}
        self.served = self.refused = 0
        self.stranded: list[tuple[int, str]] = []
        self.forecasts: list[tuple[int, dict[str, bool], dict[str, bool]]] = []

    def ship(self, platform: str, number: int, key: int) -> None:
        """Bring a build that embeds a version of the key to the store."""
        build = f"{platform}-{number}.0.0-{number}0"
        self.world.register(build, key)
        first = not self.counts
        before = self.newest.get(platform)
        self.newest[platform] = build
        self.counts[build] = 0
        if before is None:
            self.counts[build] = self.total // 2
        assert first or sum(self.counts.values()) <= self.total

    def move(self) -> None:
        """Have some devices update their binary from the store: 12 % a day, a few never."""
        for build, count in list(self.counts.items()):
            newest = self.newest[build.split("-")[0]]
            if build == newest or not count:
                continue
            moving = min(count, max(1, int(count * self.chance.uniform(0.08, 0.16))))
            self.counts[build] -= moving
            self.counts[newest] += moving

    def ask(self, day: int) -> None:
        """Every device asks; of each version one verifies. Compare with the forecast."""
        world = self.world
        standings = {s.label: s for s in world.status().standings}
        forecast, seen = {}, {}
        for build, count in self.counts.items():
            if not count:
                continue
            standing = standings[build]
            if standing.build.live:
                forecast[build] = standing.served_by > 0
                seen[build] = world.updates(build)
                if not seen[build]:
                    self.stranded.append((day, build))
            self.served += count if seen.get(build) else 0
            self.refused += 0 if seen.get(build, True) else count
            world.counter._counts[self._key(build)] = (
                world.counter._counts.get(self._key(build), 0) + count
            )
        world.flush()
        self.forecasts.append((day, forecast, seen))

    def _key(self, build: str):
        device = self.world.devices[build]
        day = self.world.now // 86_400
        version = (device.platform, device.version_name, device.version_code)
        return ("app", build, *version, day)

    def end_old(self) -> None:
        """End the builds that hardly any device has any more, as far as that is allowed."""
        for build, count in self.counts.items():
            if count < self.total // 2000 and build not in self.newest.values():
                try:
                    self.world.end(build)
                except DomainError:
                    continue


class Campaign:
    """Half a year of releases, store builds and rotations, by day."""

    def __init__(self, world: World, devices: int, days: int) -> None:
        self.world, self.days = world, days
        self.fleet = Fleet(world, devices, days)
        self.rotations = {int(days * part) for part in (0.04, 0.2, 0.36, 0.68, 0.84)}
        self.emergency = int(days * 0.52)
        # With what rotations ship, twelve native versions in all at a time.
        self.builds = {int(days * n / 3): n + 1 for n in range(3)}
        self.embedded = 1
        self.lost: set[str] = set()

    def run(self) -> Fleet:
        for day in range(self.days):
            self.ship(day)
            if day % 3 == 0:
                self.world.publish()
            self.rotate(day)
            self.fleet.ask(day)
            self.fleet.move()
            self.fleet.end_old()
            self.world.days(1)
            self.world.sweep()
        return self.fleet

    def ship(self, day: int) -> None:
        if day in self.builds:
            self._store(self.builds[day])

    def _store(self, number: int) -> None:
        for platform in ("android", "ios"):
            self.fleet.ship(platform, number, self.embedded)

    def rotate(self, day: int) -> None:
        world = self.world
        if day == self.emergency:
            since = world.now - 2 * 86_400
            self.embedded = world.start(emergency=True, since=since).new
            self.lost = {s.label for s in world.status().standings if s.verdict == "stranded"}
            self._store(100 + day)
            world.publish()
        elif day in self.rotations:
            self.embedded = world.start().new
            self._store(100 + day)
        for rotation in world.view(lambda view: view.rotations.list("app")):
            if rotation.open:
                try:
                    world.advance(found=rotation)
                except DomainError:
                    continue


@pytest.mark.parametrize(
    ("devices", "days"),
    [(5_000, 60), pytest.param(100_000, 180, marks=pytest.mark.long)],
)
def test_no_device_that_could_be_served_is_ever_stranded(tmp_path, devices, days):
    world = World(tmp_path)
    campaign = Campaign(world, devices, days)
    fleet, emergency = campaign.run(), campaign.emergency

    # Only what trusts the compromised version alone waits for the store, as was told at once.
    assert {build for _, build in fleet.stranded} <= campaign.lost
    assert all(day >= emergency for day, _ in fleet.stranded)
    for day, forecast, seen in fleet.forecasts:
        assert forecast == seen, day
    kinds = [str(r.kind) for r in world.view(lambda v: v.rotations.list("app"))]
    assert kinds.count("emergency") == 1
    assert kinds.count("planned") >= 5 if days >= 180 else kinds.count("planned") >= 3
    assert fleet.refused < fleet.served / 5, "those wait for the store, and come back with it"
    told = sum(s.check_ins for s in world.status().standings)
    assert told > devices * min(days, 28) * 0.9
    print(
        f"{devices:,} devices, {days} days: {fleet.served:,} check-ins served, {fleet.refused:,} "
        f"waited for the store after the emergency; versions {world.states()}"
    )
    world.close()
