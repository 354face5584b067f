"""What is resolved of a channel, a snapshot and a place: what the log says now, and no more."""

from dataclasses import replace

import pytest
from privyseal.verify.errors import VerificationError
from privyseal.verify.statement import NativeRange
from privyseald.adapters.repositories_releases import SqlReleases
from privyseald.model.native import NativeVersion
from privyseald.services.releases import Artifact

from tests.simulator import APP, GATEWAY

pytestmark = pytest.mark.usefixtures("anew")


def resolve(world, kind, *given):
    return world.run(getattr(world.resolver, kind)(*given))


def withdraw(world, counter):
    call = world.releases.withdraw
    world.do(call(world.olivia, world.request(), app=APP, counter=counter, reason="test"))


def snapshot(world):
    world.publish()
    served = resolve(world, "channel", APP, "production", NativeVersion("android", "1.0", "1"))
    return served.snapshot


def test_a_snapshot_is_served_by_its_own_name_alone(world):
    name = snapshot(world)
    assert resolve(world, "snapshot", APP, name).snapshot == name
    counter, _, digest = name.partition("-")
    for other in (f"{counter}-{digest[::-1]}", f"{counter}-", counter, f"0{name}", f"2-{digest}"):
        assert resolve(world, "snapshot", APP, other) is None, other


def test_a_withdrawn_releases_snapshot_is_not_served(world):
    name = snapshot(world)
    withdraw(world, 1)
    assert resolve(world, "snapshot", APP, name) is None


@pytest.mark.parametrize("change", ["app", "version"])
def test_a_receipt_of_another_release_is_not_served(world, monkeypatch, change):
    """Also where a daemon of before logged the registration without the statement's digest."""
    name = snapshot(world)
    read = SqlReleases.signed

    def another(self, _app, **which):
        return read(self, APP, **which)

    world.run(world.resolver.snapshot(APP, name))
    state = world.run(world.resolver._follower.state())
    release = state.releases[f"apps/{APP}/releases/1"]
    other = replace(release, statement_sha256=b"", **{change: "other"})
    monkeypatch.setattr(SqlReleases, "signed", another)
    with pytest.raises(VerificationError, match="another release"):
        world.run(world.resolver._receipt(other))
    assert world.run(world.resolver._receipt(replace(release, statement_sha256=b"")))


def test_of_a_place_the_newest_that_was_not_withdrawn_is_served(world):
    place, counters = f"{APP}/a.zip", (1, 2, 3)
    for _ in counters:
        version = world.publish(register=False)
        artifact = Artifact(f"{GATEWAY}/artifacts/{place}", "zip", "", "", "")
        world.do(
            world.releases.register(
                *(world.olivia, world.request()), app=APP, version=version, artifact=artifact
            )
        )

    def served():
        found = resolve(world, "artifact", place)
        return found and (found[0].counter, found[1].counter)

    assert served() == (3, 3)
    withdraw(world, 3)
    assert served() == (2, 2)
    withdraw(world, 1)
    assert served() == (2, 2)
    withdraw(world, 2)
    assert served() is None


def test_ranges_that_were_set_later_narrow_those_that_were_signed(world):
    world.publish(ranges=(NativeRange("android", "2.0", "5.0", ""),))
    world.do(
        world.releases.set_native_versions(
            *(world.olivia, world.request()),
            app=APP,
            counter=1,
            ranges=(NativeRange("android", "4.0", "9.0", ""),),
        )
    )
    compatible = {
        name: resolve(
            world, "channel", APP, "production", NativeVersion("android", name, "1")
        ).compatible
        for name in ("1.0", "3.0", "4.0", "5.0", "7.0")
    }
    assert compatible == {"1.0": False, "3.0": False, "4.0": True, "5.0": True, "7.0": False}
