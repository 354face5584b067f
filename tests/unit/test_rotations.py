"""What successor records, statuses and emergencies of a rotation hold."""

import hashlib

import pytest
from privyseal.verify.errors import VerificationError
from privyseal.verify.keys import load_public_key
from privyseal.verify.successor import follow, read_record
from privyseald.model.errors import DomainError
from privyseald.model.rotation import RotationState
from privyseald.model.schemes import Scheme

from tests.rotation_words import NEW, OLD, PLANNED, WORDS, strangers
from tests.simulator import APP, World

pytestmark = pytest.mark.usefixtures("anew")


def test_old_binaries_find_the_newest_key_along_the_successor_records(world):
    first = world.version(1).public_key
    builds = [OLD]
    world.register(OLD, 1)
    for number in (2, 3):
        world.start()
        build = f"android-{number}.0.0-{number}0"
        world.register(build, number)
        for _ in range(3):
            world.advance()
        world.days(40)
        world.end(builds[-1])
        world.advance()
        builds.append(build)
    chain = [r.record for r in world.run(world.versions.successors(world.olivia, APP, world.key))]
    steps = follow(chain, load_public_key(first))
    assert [(s.old, s.new) for s in steps] == [(1, 2), (2, 3)]
    assert steps[-1].new_public_key == world.version(3).public_key
    assert follow(chain, load_public_key(world.version(3).public_key)) == []
    with pytest.raises(VerificationError, match="does not tell of the trusted key"):
        follow(chain[1:], load_public_key(first))
    changed = chain[0].replace(b'"sig":"', b'"sig":"AAAA')
    with pytest.raises(VerificationError):
        follow([changed, chain[1]], load_public_key(first))
    with pytest.raises(VerificationError):
        follow([chain[1], chain[0]], load_public_key(first))


def test_a_compromised_version_hands_no_trust_on(world):
    first = world.version(1).public_key
    world.start(emergency=True)
    chain = [r.record for r in world.run(world.versions.successors(world.olivia, APP, world.key))]
    assert read_record(chain[0])[1] is False
    with pytest.raises(VerificationError, match="it was compromised"):
        follow(chain, load_public_key(first))


def test_a_changed_row_of_the_new_version_gets_no_record(world):
    """Who writes the database and holds no key cannot have the old key name one of its own."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from privyseald.adapters import schema
    from privyseald.adapters.store_sql import make_engine
    from sqlalchemy import update

    for step in PLANNED[:-1]:
        WORDS[step](world)
    theirs = ec.generate_private_key(ec.SECP256R1()).public_key()
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    foreign = theirs.public_bytes(serialization.Encoding.DER, spki)
    engine = make_engine(world.url)
    t = schema.key_versions
    for change in (
        {"public_key": foreign},
        {"public_key": foreign, "public_key_sha256": hashlib.sha256(foreign).digest()},
    ):
        with engine.begin() as connection:
            connection.execute(update(t).where(t.c.version == 2).values(**change))
        with pytest.raises(DomainError):
            world.advance()
        assert not world.leaves("key.promote")
    engine.dispose()


def test_what_a_compromised_key_signed_is_not_registered_or_deployed_later(world):
    world.register(NEW, 1)
    world.publish(deploy=False)
    version = world.publish(register=False)
    world.days(1)
    world.start(emergency=True, since=world.now - 2 * 86_400)
    with pytest.raises(DomainError) as error:
        world.register_release(version)
    assert error.value.reason == "SIGNED_AFTER_COMPROMISE"
    with pytest.raises(DomainError) as error:
        world.deploy(1)
    assert error.value.reason == "RELEASE_WITHDRAWN"


def test_nor_without_an_emergency(world):
    world.register(NEW, 1)
    world.publish(deploy=False)
    world.change("compromise", 1, since=0, evidence="x")
    with pytest.raises(DomainError) as error:
        world.deploy(1)
    assert error.value.reason == "SIGNED_AFTER_COMPROMISE"


def test_devices_hold_up_no_key_that_none_of_them_embeds(tmp_path):
    world = World(tmp_path, scheme=Scheme.STATEMENT_V1)
    world.publish()
    strangers(world)
    world.start()
    for _ in range(4):
        world.advance()
    assert str(world.rotation().state) == "retired"
    world.close()


def test_of_two_officers_who_expect_the_same_state_one_goes_on(world, monkeypatch):
    for step in ("an old build", "start", "a build with both"):
        WORDS[step](world)
    real, meanwhile = world.versions.permits, []

    async def permits(*given, **more):
        found = await real(*given, **more)
        if not meanwhile:
            meanwhile.append(1)
            await world.rotations.advance(
                *(world.oscar, world.request("certificate:oscar")),
                name=(APP, world.key, "1"),
                expected=RotationState.PREPARED,
                force=False,
            )
        return found

    monkeypatch.setattr(world.versions, "permits", permits)
    with pytest.raises(DomainError, match="somebody took the step already"):
        world.advance(expected=RotationState.PREPARED)
    assert str(world.rotation().state) == "distributing"


@pytest.mark.parametrize("verb", ["compromise", "suspend"])
def test_no_record_is_released_of_a_version_that_was_stopped_meanwhile(world, monkeypatch, verb):
    for step in PLANNED[:-1]:
        WORDS[step](world)
    real = world.keyholder.sign_successor
    more = {"since": 0, "evidence": "test"} if verb == "compromise" else {"reason": "test"}

    async def sign(*given):
        signature = await real(*given)
        request = world.request("certificate:oscar")
        name = (APP, world.key, 1)
        await getattr(world.versions, verb)(world.oscar, request, name, **more)
        return signature

    monkeypatch.setattr(world.keyholder, "sign_successor", sign)
    with pytest.raises(DomainError, match=r"meanwhile|suspended"):
        world.advance()
    assert not world.leaves("key.promote")
    assert world.key_record().primary == 1


def test_an_emergency_withdraws_what_was_signed_since(world):
    world.standby()
    world.register(NEW, 1, 2)
    world.publish()
    world.days(10)
    world.publish()
    since = world.now - 5 * 86_400
    world.start(emergency=True, since=since)
    assert world.status().affected == [2]
    assert world.ask(NEW) is None, "what may be forged is served to nobody"
    world.deploy(1)
    assert world.updates(NEW), "the earlier release is signed by the standby now"
    with pytest.raises(DomainError, match="was withdrawn"):
        world.deploy(2)


def test_status_and_plan_say_how_it_stands(world):
    world.register(OLD, 1)
    world.publish()
    world.start()
    world.register(NEW, 2)
    world.check_in(OLD, 30)
    world.check_in(NEW, 10)
    found = world.status()
    shares = {s.label: (s.check_ins, round(s.share, 2), s.verdict) for s in found.standings}
    assert shares == {
        OLD: (30, 0.75, "served by version 1"),
        NEW: (10, 0.25, "stranded"),
    }
    ahead = {str(step.state): step for step in found.steps}
    assert list(ahead) == ["distributing", "overlap", "promoted", "retired"]
    assert ahead["distributing"].obstacles == ()
    assert ahead["retired"].strands == (OLD,)
    world.advance()
    assert {s.label: s.served_by for s in world.status().standings} == {OLD: 1, NEW: 2}
    assert world.status().days == [(world.now // 86_400, {1: 30, 2: 10})]


def test_a_key_that_nobody_knows_is_refused_unless_told(world):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    other = rsa.generate_private_key(65537, 2048).public_key()
    key = other.public_bytes(serialization.Encoding.DER, spki)
    world.publish()
    from privyseald.model.field import NativeBuild

    build = NativeBuild(
        APP, "", "android", "3.0.0", "30", "capawesome", (hashlib.sha256(key).digest(),), 0
    )
    with pytest.raises(DomainError) as error:
        world.do(
            world.builds.register(
                world.olivia, world.request(), build, allow_unknown=False, already_shipped=False
            )
        )
    assert error.value.reason == "UNKNOWN_KEY"
    world.register("android-3.0.0-30", unknown=key)
    assert world.ask("android-3.0.0-30").signature(str(world.scheme)) is None
    assert not world.updates("android-3.0.0-30")
