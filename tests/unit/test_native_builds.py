"""Native builds: which are taken, which are given up, and what devices say of themselves."""

import os

import pytest
from privyseal.cli.common import printable
from privyseald.gateway.check_ins import MOST_STRANGERS
from privyseald.model.errors import DomainError, InvalidArgument, PermissionDenied, Unavailable
from privyseald.model.field import NativeBuild, check
from privyseald.model.native import NativeVersion
from privyseald.model.schemes import Scheme

from tests.simulator import APP, World

OLD, NEW = "android-1.0.0-10", "android-2.0.0-20"


@pytest.fixture(autouse=True)
def a_release(world):
    world.publish()


def refused(world, build, reason, verb=None):
    with pytest.raises(DomainError) as error:
        (verb or world.end)(build)
    assert error.value.reason == reason, error.value.message


def test_many_small_shares_are_not_given_up_one_by_one(world):
    builds = [f"android-1.0.{n}-{n}" for n in range(1, 151)]
    for build in builds:
        world.register(build, 1)
        world.check_in(build, 10)
    world.end(builds[0])
    refused(world, builds[1], "NATIVE_BUILD_LIVES")
    world.end(builds[1], force=True)


def test_nor_is_a_build_whose_share_somebody_diluted(world):
    world.register(OLD, 1)
    world.register(NEW, 1)
    world.check_in(OLD, 1)
    rows = [
        (APP, type(count)(count.build, *count_of(count), count.day, 10_000))
        for count in world.view(lambda view: list(view.builds.check_ins(APP, 0)))
    ]
    world.run(world.store.count(rows))
    world.check_in(NEW, 1)
    (new,) = [
        c
        for c in world.view(lambda view: list(view.builds.check_ins(APP, 0)))
        if c.version_name == "2.0.0"
    ]
    flood = type(new)(new.build, *count_of(new), new.day, 10_000_000)
    world.run(world.store.count([(APP, flood)]))
    refused(world, OLD, "NATIVE_BUILD_LIVES")


def count_of(count):
    return count.platform, count.version_name, count.version_code


def test_ending_a_build_is_not_for_who_only_releases(world, tmp_path):
    from privyseald.model.policy import Caller, Grant, Role

    world.register(OLD, 1)
    releaser = Caller(
        "certificate:ci",
        grants=(Grant("g", "certificate:ci", Role.RELEASER, APP),),
        credential="1e",
    )
    with pytest.raises(PermissionDenied):
        world.run(
            world.builds.end(
                *(releaser, world.request("certificate:ci"), APP, OLD), reason="x", force=False
            )
        )


def test_a_build_that_nothing_could_serve_is_refused_unless_it_is_out_there(world):
    world.register(NEW, 1)
    world.start()
    world.register("android-3.0.0-30", 2)
    for _ in range(3):
        world.advance()
    world.end(NEW)
    world.advance()
    late = "android-1.5.0-15"
    refused(world, late, "KEYS_RETIRED", lambda build: world.register(build, 1))
    world.register("android-1.6.0-16", 1, unknown=os.urandom(32), shipped=True)
    with pytest.raises(DomainError) as error:
        world.register("android-1.7.0-17", 1, unknown=os.urandom(32))
    assert error.value.reason == "KEYS_RETIRED", "an unknown key beside it hides nothing"
    world.register(late, 1, shipped=True)
    assert world.leaves("native.register")[-1]["alreadyShipped"] is True
    assert {s.label: s.verdict for s in world.status().standings}[late] == "stranded"


def test_a_forgotten_build_is_registered_though_the_rotation_went_past_it(world):
    world.register(OLD, 1)
    world.start()
    world.register(NEW, 2)
    for _ in range(3):
        world.advance()
    late = "android-1.5.0-15"
    refused(world, late, "BUILD_BEHIND_ROTATION", lambda build: world.register(build, 1))
    world.register(late, 1, shipped=True)
    assert world.updates(late)
    # One that was ended in error counts again.
    world.end(late)
    refused(world, late, "NATIVE_BUILD_EXISTS", lambda build: world.register(build, 1))
    world.register(late, 1, shipped=True)
    world.publish()
    assert world.updates(late)
    refused(world, late, "NATIVE_BUILD_EXISTS", lambda build: world.register(build, 2))


NAMES = [
    "1.0-\ud800",
    "1.0-\x1b]52;c;ZXZpbA==\x07",
    "1.0-\x00",
    "1.0\n2.0",
    "1.0-\N{FULLWIDTH LATIN SMALL LETTER A}",
    "\N{ARABIC-INDIC DIGIT ONE}.0",
    "1" * 33,
    "9" * 5000,
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_what_devices_say_of_themselves_is_counted_and_harms_nobody(world, name):
    world.register(OLD, 1)
    for native in (NativeVersion("android", name), NativeVersion("android", "0.9.0", name)):
        world.run(world.resolver.channel(APP, "production", native))
    world.check_in(OLD, 3)
    standings = {s.label: s.check_ins for s in world.status().standings}
    assert standings.pop(OLD) == 3
    assert sum(standings.values()) == 2
    assert set(standings) <= {"android-other", "android-0.9.0"}


def test_versions_that_nobody_registered_are_so_many_at_most(world):
    for n in range(MOST_STRANGERS + 20):
        world.run(world.resolver.channel(APP, "production", NativeVersion("ios", f"1.{n}")))
    world.flush()
    standings = {s.label: s.check_ins for s in world.status().standings}
    assert len(standings) == MOST_STRANGERS + 1
    assert standings["ios-other"] == 20


def test_counts_wait_for_the_store_and_not_for_what_it_never_takes(world, monkeypatch):
    world.register(OLD, 1)
    real, errors = world.store.count, [Unavailable("down", reason="X"), ValueError("odd")]

    async def count(rows):
        if errors:
            raise errors.pop(0)
        await real(rows)

    monkeypatch.setattr(world.store, "count", count)
    world.ask(OLD)
    with pytest.raises(Unavailable):
        world.flush()
    with pytest.raises(ValueError, match="odd"):
        world.flush()
    world.ask(OLD)
    world.flush()
    assert [s.check_ins for s in world.status().standings] == [1]


@pytest.mark.parametrize("code", ["\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT ONE}", "1" * 19])
def test_a_version_code_is_ascii_digits(code):
    build = NativeBuild(APP, "b", "android", "1.0.0", code, "ionic", (), 0)
    with pytest.raises(InvalidArgument, match="version_code"):
        check(build)


def test_what_others_wrote_does_nothing_to_a_terminal():
    shown = printable("a\x1b]52;c;x\x07\x9b2J\N{RIGHT-TO-LEFT OVERRIDE}b\tc\nd")
    assert shown == "a\N{REPLACEMENT CHARACTER}]52;c;x" + "\N{REPLACEMENT CHARACTER}" * 2 + "2J" + (
        "\N{REPLACEMENT CHARACTER}b\tc\nd"
    )


def test_builds_of_expo_are_named_by_any_runtime_version(tmp_path):
    (tmp_path / "expo").mkdir()
    world = World(tmp_path / "expo", scheme=Scheme.EXPO_V1, plugin="expo")
    try:
        for name, id_of in (
            ("exposdk:57.0.0", "android-exposdk-57.0.0"),
            ("1.4.0(37)", "android-1.4.0-37-"),
            ("0f" * 20, "android-" + "0f" * 20),
        ):
            trusts = (world.version(1).public_key_sha256,)
            build = NativeBuild(APP, "", "android", name, "", "expo", trusts, registered_at=0)
            made = world.do(
                world.builds.register(
                    *(world.olivia, world.request(), build),
                    allow_unknown=False,
                    already_shipped=False,
                )
            )
            assert made.id == id_of
            native = NativeVersion("android", name)
            world.publish()
            served = world.run(world.resolver.channel(APP, "production", native))
            assert served.build.id == id_of
        bad = NativeBuild(APP, "", "android", "a b", "", "expo", (b"x" * 32,), 0)
        register = world.builds.register(
            world.olivia, world.request(), bad, allow_unknown=True, already_shipped=False
        )
        with pytest.raises(InvalidArgument):
            world.do(register)
    finally:
        world.close()
