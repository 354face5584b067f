"""Keys that are given up: an app publishes on without them, and never by accident."""

import uuid

import pytest
from privyseal.verify.receipt import receipt_parts
from privyseal.verify.statement import Statement
from privyseald.model.errors import DomainError, FailedPrecondition
from privyseald.model.lifecycle import DAY
from privyseald.model.schemes import KeyPlace, Scheme

from tests.rotation_words import NEW, OLD
from tests.simulator import APP

pytestmark = pytest.mark.usefixtures("anew")


def make(world, scheme):
    world.run(
        world.keys.create_key(
            *(world.olivia, world.request()),
            app=APP,
            key_id="",
            scheme=scheme,
            algorithm=None,
            place=KeyPlace(),
        )
    )


def deactivate(world, key, number=1, *, force=False):
    call = world.versions.deactivate
    name = (APP, key, number)
    return world.do(call(world.olivia, world.request(), name, reason="test", force=force))


def schemes(world, version):
    record = world.view(lambda view: view.releases.signed(APP, version=version))
    return sorted(s.scheme for s in receipt_parts(record.receipt)[1])


def sign(world):
    wanted = Statement(
        *(APP, uuid.uuid4().hex, 0, b"b" * 32, 1, b"m" * 32, (), "", 0, ""),
    )
    return world.run(world.signing.sign(world.olivia, world.request(), wanted))


def test_a_key_of_the_wrong_scheme_is_given_up(world):
    make(world, Scheme.EXPO_V1)
    with pytest.raises(DomainError, match="key deactivate apps/app/keys/expo-v1/versions/1"):
        sign(world)
    deactivate(world, "expo-v1")
    assert sign(world)
    assert schemes(world, world.publish()) == ["capawesome-v1", "statement-v1"]


def test_an_archives_key_that_is_given_up_is_asked_for_no_more(world):
    make(world, Scheme.SPARKLE_ED25519)
    deactivate(world, "sparkle-ed25519")
    version = world.publish()
    release = world.run(world.releases.release(world.olivia, APP, 1))
    assert release[0].version == version


def test_builds_that_trust_it_stand_in_the_way_and_it_comes_back_by_a_rotation(world):
    world.register(OLD, 1)
    world.publish()
    with pytest.raises(FailedPrecondition, match="these builds trust nothing but version 1"):
        deactivate(world, world.key)
    world.days(40)
    world.end(OLD)
    deactivate(world, world.key)
    assert schemes(world, world.publish()) == ["statement-v1"]
    world.start()
    world.register(NEW, 2)
    for _ in range(3):
        state = world.advance().state
    assert state == "promoted"
    assert schemes(world, world.publish()) == ["capawesome-v1", "statement-v1"]


def test_what_others_could_follow_or_everything_hangs_on_is_not_given_up(world):
    with pytest.raises(FailedPrecondition, match="is the primary"):
        deactivate(world, "statement-v1")
    world.standby()
    with pytest.raises(FailedPrecondition, match="is the primary"):
        deactivate(world, world.key)


@pytest.mark.parametrize("how", ["destroyed", "compromised"])
def test_a_primary_that_is_gone_is_missed_until_its_key_is_given_up(world, how):
    world.register(OLD, 1)
    if how == "destroyed":
        world.change("suspend", 1, reason="test")
        world.change("destroy", 1, reason="x", delay=0, force=True)
        world.days(1)
        world.run(world.sweeper.sweep())
    else:
        world.change("compromise", 1, since=0, evidence="x")
    assert world.states()[1] == how
    with pytest.raises(FailedPrecondition, match="privyseal rotation start"):
        sign(world)
    with pytest.raises(FailedPrecondition, match="these builds verify what the key signs"):
        deactivate(world, world.key)
    world.days(40)
    world.end(OLD)
    with pytest.raises(FailedPrecondition, match="privyseal rotation start"):
        sign(world)
    deactivate(world, world.key)
    assert world.states()[1] == how
    assert schemes(world, world.publish()) == ["statement-v1"]


def test_what_is_given_up_stays_so_whatever_becomes_of_its_version(world):
    deactivate(world, world.key)
    world.change("destroy", 1, reason="x", delay=DAY, force=False)
    assert schemes(world, world.publish()) == ["statement-v1"]
    world.change("restore", 1, reason="x")
    world.change("compromise", 1, since=0, evidence="x")
    assert schemes(world, world.publish()) == ["statement-v1"]
    with pytest.raises(DomainError):
        deactivate(world, world.key)
