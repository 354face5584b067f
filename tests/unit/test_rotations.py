"""Rotations, a row for each case, readable as a sentence.

Each row says what is done, in words of `WORDS`, and what comes of it. `!` before a step means
that it is refused, with the reason that follows.
"""

import hashlib

import pytest
from privyseal.verify.errors import VerificationError
from privyseal.verify.keys import load_public_key
from privyseal.verify.successor import follow, read_record
from privyseald.model.errors import DomainError
from privyseald.model.rotation import RotationState
from privyseald.model.schemes import Scheme

from tests.simulator import APP, World

OLD, NEW = "android-1.0.0-10", "android-2.0.0-20"
IOS_OLD, IOS_NEW = "ios-1.0.0-10", "ios-2.0.0-20"


def strangers(world):
    from privyseald.model.native import NativeVersion

    for _ in range(20):
        native = NativeVersion("android", "0.5.0", "5")
        world.run(world.resolver.channel(APP, "production", native))
    world.flush()


WORDS = {
    "an old build": lambda w: w.register(OLD, 1),
    "an old build of iOS": lambda w: w.register(IOS_OLD, 1),
    "a new build": lambda w: w.register(NEW, 2),
    "a new build of iOS": lambda w: w.register(IOS_NEW, 2),
    "a build with both": lambda w: w.register(NEW, 1, 2),
    "a build of another key": lambda w: w.register("android-9.0.0-90", 1),
    "a build that verifies nothing": lambda w: w.register("android-0.1.0-1", plugin="ionic"),
    "a standby": lambda w: w.standby(),
    "a release": lambda w: w.publish(),
    "start": lambda w: w.start(),
    "start an emergency": lambda w: w.start(emergency=True),
    "start an emergency about 1": lambda w: w.start(emergency=True, old=1),
    "start back": lambda w: w.start(new=1),
    "end the new build": lambda w: w.end(NEW),
    "resume 1": lambda w: w.change("resume", 1, reason="test"),
    "advance": lambda w: w.advance(),
    "force": lambda w: w.advance(force=True),
    "abort": lambda w: w.abort(),
    "crash": lambda w: w.crash(),
    "end the old build": lambda w: w.end(OLD),
    "end the old build of iOS": lambda w: w.end(IOS_OLD),
    "old devices ask": lambda w: w.check_in(OLD, 20),
    "new devices ask": lambda w: w.check_in(NEW, 20),
    "strangers ask": strangers,
    "40 days": lambda w: w.days(40),
    "a day": lambda w: w.days(1),
    "the clock is set back": lambda w: w.days(-100),
    "suspend 1": lambda w: w.change("suspend", 1, reason="test"),
    "suspend 2": lambda w: w.change("suspend", 2, reason="test"),
    "deactivate 1": lambda w: w.change("deactivate", 1, reason="test", force=False),
    "deactivate 2": lambda w: w.change("deactivate", 2, reason="test", force=False),
    "force-deactivate 1": lambda w: w.change("deactivate", 1, reason="test", force=True),
    "compromise 1": lambda w: w.change("compromise", 1, since=0, evidence="test"),
    "compromise 2": lambda w: w.change("compromise", 2, since=0, evidence="test"),
    "destroy 1": lambda w: w.change("destroy", 1, reason="test", delay=0, force=False),
    "sweep": lambda w: w.sweep(),
    "another officer advances from prepared": lambda w: w.advance(who=w.oscar, expected="prepared"),
}
PLANNED = ["an old build", "a release", "start", "a new build", "advance", "advance", "advance"]

ROWS = {
    "a planned rotation walks through, and the old build is served until it is ended": (
        [*PLANNED, "40 days", "end the old build", "advance"],
        {"state": "retired", 1: "deactivated", 2: "active", "primary": 2, NEW: True},
    ),
    "both builds are served while they overlap": (
        PLANNED,
        {"state": "promoted", 1: "active", 2: "active", "primary": 2, OLD: True, NEW: True},
    ),
    "without a build that trusts the new version nothing is distributed": (
        ["an old build", "start", "! advance NO_BUILD_TRUSTS"],
        {"state": "prepared", 2: "pre-activation"},
    ),
    "a platform whose newest build is behind holds the rotation": (
        [
            *("an old build", "an old build of iOS", "start", "a new build", "advance"),
            "! advance NEWEST_BUILD_BEHIND",
        ],
        {"state": "distributing", 2: "active"},
    ),
    "and lets it go when it has caught up": (
        [
            *("an old build", "an old build of iOS", "a release", "start", "a new build"),
            *("advance", "a new build of iOS", "advance", "advance"),
        ],
        {"state": "promoted", OLD: True, NEW: True, IOS_OLD: True, IOS_NEW: True},
    ),
    "what was deployed before is signed again for the new build": (
        ["an old build", "a release", "start", "a new build", "advance"],
        {OLD: True, NEW: True},
    ),
    "a new build that comes after the distribution began is served at once": (
        [
            *("an old build", "an old build of iOS", "a release", "start", "a new build"),
            *("advance", "a new build of iOS"),
        ],
        {IOS_NEW: True, IOS_OLD: True},
    ),
    "a standby that was shipped makes the rotation a promotion": (
        ["a standby", "a build with both", "a release", "start", "advance", "advance", "advance"],
        {"state": "promoted", "primary": 2, NEW: True},
    ),
    "and with the standby in every build the old version retires at once": (
        [
            *("a standby", "a build with both", "a release", "start"),
            *("advance", "advance", "advance", "advance"),
        ],
        {"state": "retired", 1: "deactivated", NEW: True},
    ),
    "after the overlap no build that depends on the old version is taken": (
        [
            *("an old build", "a release", "start", "a new build", "advance", "advance"),
            "! a build of another key BUILD_BEHIND_ROTATION",
        ],
        {"state": "overlap"},
    ),
    "retiring with a live old build is refused": (
        [*PLANNED, "old devices ask", "! advance BUILDS_DEPEND"],
        {"state": "promoted", 1: "active", OLD: True},
    ),
    "and forced, with the stranded build in the log": (
        [*PLANNED, "old devices ask", "force", "a release"],
        {"state": "retired", 1: "deactivated", OLD: False, NEW: True, "forced": [OLD]},
    ),
    "an old build that still asks is not ended": (
        [*PLANNED, "old devices ask", "! end the old build NATIVE_BUILD_LIVES"],
        {"state": "promoted", OLD: True},
    ),
    "nor is the old version retired while an ended build asks": (
        [*PLANNED, "40 days", "end the old build", "old devices ask", "! advance ENDED_BUILDS_ASK"],
        {"state": "promoted", 1: "active"},
    ),
    "nor while versions that nobody registered make up a share": (
        [
            *PLANNED,
            "40 days",
            "end the old build",
            "strangers ask",
            "! advance UNREGISTERED_VERSIONS",
        ],
        {"state": "promoted", 1: "active"},
    ),
    "and they hold up the promotion, after which they get what the new version signs": (
        [*PLANNED[:-1], "strangers ask", "! advance UNREGISTERED_VERSIONS", "force"],
        {"state": "promoted", "primary": 2, "unregistered": 1},
    ),
    "suspending it first does not retire what a build depends on": (
        [*PLANNED, "suspend 1", "! deactivate 1 BUILDS_DEPEND", "! advance BUILDS_DEPEND"],
        {"state": "promoted", 1: "suspended"},
    ),
    "nor does a standby go that a build could hope for alone": (
        ["an old build", "a standby", "a new build", "! deactivate 2 BUILDS_DEPEND"],
        {2: "pre-activation"},
    ),
    "what check-ins tell against a retirement they tell against a deactivation": (
        [
            *(*PLANNED, "40 days", "end the old build", "old devices ask"),
            *("! advance ENDED_BUILDS_ASK", "! deactivate 1 ENDED_BUILDS_ASK"),
        ],
        {"state": "promoted", 1: "active"},
    ),
    "nor does starting back and aborting retire it": (
        [*PLANNED, "end the old build", "old devices ask", "! start back KEY_VERSION_STATE"],
        {"state": "promoted", 1: "active"},
    ),
    "nor aborting, while strangers ask, retire what was distributed": (
        [
            *("an old build", "start", "a new build", "advance"),
            *("end the new build", "strangers ask", "abort"),
        ],
        {"state": "aborted", 2: "active"},
    ),
    "nor suspending and destroying it": (
        [
            *(*PLANNED, "40 days", "end the old build", "old devices ask", "suspend 1"),
            "! destroy 1 ENDED_BUILDS_ASK",
        ],
        {"state": "promoted", 1: "suspended"},
    ),
    "a suspended primary promotes nothing, since it could not sign the record": (
        [*PLANNED[:-1], "suspend 1", "! advance OLD_VERSION_SUSPENDED", "resume 1", "advance"],
        {"state": "promoted", "primary": 2},
    ),
    "an emergency that is repeated gives up nothing more": (
        ["an old build", "start an emergency about 1", "! start an emergency about 1 NOT_PRIMARY"],
        {1: "compromised", 2: "active", "primary": 2},
    ),
    "nor does one about a version that is not the primary touch the primary": (
        [*PLANNED, "! start an emergency about 1 NOT_PRIMARY"],
        {1: "active", 2: "active", "primary": 2},
    ),
    "a rotation that was promoted ends when what it promoted is given up": (
        [*PLANNED, "start an emergency"],
        {"rotations": ["aborted", "promoted"], 1: "active", 2: "compromised", "primary": 3},
    ),
    "an unregistered build is served what the primary signed": (
        ["an old build", "a release"],
        {"unregistered": 1},
    ),
    "aborted when prepared, the new version goes": (
        ["an old build", "a release", "start", "abort"],
        {"state": "aborted", "primary": 1, OLD: True},
    ),
    "aborted while distributing with a build on the new version, it signs on for that": (
        ["an old build", "a release", "start", "a new build", "advance", "abort", "a release"],
        {"state": "aborted", 2: "active", "primary": 1, OLD: True, NEW: True},
    ),
    "aborted in the overlap likewise": (
        [*PLANNED[:-1], "abort", "a release"],
        {"state": "aborted", 2: "active", "primary": 1, OLD: True, NEW: True},
    ),
    "aborted with a build that trusts both, the new version is deactivated": (
        ["a standby", "a build with both", "a release", "start", "advance", "abort", "a release"],
        {"state": "aborted", 2: "deactivated", NEW: True},
    ),
    "what is promoted is not aborted": (
        [*PLANNED, "! abort ROTATION_STATE"],
        {"state": "promoted"},
    ),
    "after an abort another rotation can begin": (
        ["an old build", "start", "abort", "start"],
        {"state": "prepared"},
    ),
    "two rotations of one key do not run at once": (
        ["an old build", "start", "! start ROTATION_UNDER_WAY"],
        {"state": "prepared"},
    ),
    "of two officers at once one takes the step": (
        [
            *("an old build", "start", "a new build", "advance"),
            "! another officer advances from prepared ROTATION_STATE",
        ],
        {"state": "distributing"},
    ),
    "a crash when prepared loses nothing": (
        ["an old build", "a release", "start", "crash", "a new build", "advance"],
        {"state": "distributing", OLD: True, NEW: True},
    ),
    "a crash while distributing loses nothing": (
        [
            *("an old build", "a release", "start", "a new build", "advance", "crash"),
            "advance",
        ],
        {"state": "overlap", OLD: True, NEW: True},
    ),
    "a crash in the overlap loses nothing": (
        [*PLANNED[:-1], "crash", "advance"],
        {"state": "promoted", "primary": 2, OLD: True, NEW: True},
    ),
    "a crash when promoted loses nothing": (
        [*PLANNED, "crash", "40 days", "end the old build", "advance"],
        {"state": "retired", 1: "deactivated", NEW: True},
    ),
    "an emergency stops the old version and serves builds with the standby": (
        ["a standby", "a build with both", "a release", "a day", "start an emergency", "a release"],
        {"state": "promoted", 1: "compromised", 2: "active", "primary": 2, NEW: True},
    ),
    "an emergency without a standby leaves the old builds to the store": (
        ["an old build", "a release", "a day", "start an emergency", "a release"],
        {"state": "promoted", 1: "compromised", 2: "active", OLD: False},
    ),
    "which a store build repairs": (
        [
            *("an old build", "a release", "a day", "start an emergency", "a release"),
            "a new build",
        ],
        {OLD: False, NEW: True},
    ),
    "and the emergency ends when the old builds are ended": (
        [
            *("an old build", "a release", "a day", "start an emergency", "a release"),
            *("a new build", "! advance BUILDS_WAIT_FOR_STORE", "40 days", "end the old build"),
            "advance",
        ],
        {"state": "retired", NEW: True},
    ),
    "a compromise in the overlap overtakes the planned rotation": (
        [*PLANNED[:-1], "a day", "start an emergency", "a release"],
        {"state": "promoted", 1: "compromised", 2: "active", "primary": 2, NEW: True, OLD: False},
    ),
    "a new version that is compromised stops its rotation": (
        [
            *("an old build", "a release", "start", "a new build", "advance", "compromise 2"),
            *("! advance NEW_VERSION_UNFIT", "abort", "a release"),
        ],
        {"state": "aborted", 2: "compromised", "primary": 1, OLD: True, NEW: False},
    ),
    "with the new version suspended nothing goes on": (
        [
            *("an old build", "a release", "start", "a new build", "advance", "suspend 2"),
            "! advance NEW_VERSION_UNFIT",
        ],
        {"state": "distributing", 2: "suspended"},
    ),
    "with the primary suspended nothing is signed": (
        ["an old build", "a release", "suspend 1", "! a release KEY_NOT_ACTIVE"],
        {1: "suspended", OLD: True},
    ),
    "the primary is not retired but rotated away from": (
        ["an old build", "! deactivate 1 KEY_VERSION_PRIMARY"],
        {1: "active"},
    ),
    "a version that builds depend on is not retired outside of a rotation": (
        [*PLANNED, "old devices ask", "! deactivate 1 BUILDS_DEPEND"],
        {1: "active", OLD: True},
    ),
    "unless it is forced": (
        [*PLANNED, "force-deactivate 1", "a release"],
        {1: "deactivated", OLD: False, NEW: True},
    ),
    "a retired version is destroyed at its time": (
        [*PLANNED, "40 days", "end the old build", "advance", "destroy 1", "sweep"],
        {1: "destroyed", NEW: True},
    ),
    "one that live builds depend on is not": (
        [*PLANNED, "force", "! destroy 1 BUILDS_DEPEND"],
        {1: "deactivated"},
    ),
    "a clock that is set back turns no history around": (
        [*PLANNED[:-2], "the clock is set back", "advance", "advance"],
        {"state": "promoted", OLD: True, NEW: True, "ordered": True},
    ),
    "nor does it make a build look as if nobody had asked": (
        [
            *PLANNED,
            "old devices ask",
            "the clock is set back",
            "! end the old build NATIVE_BUILD_LIVES",
        ],
        {"state": "promoted"},
    ),
    "a build that verifies nothing stands in no way": (
        [
            *("a build that verifies nothing", "a standby", "a build with both", "a release"),
            *("start", "advance", "advance", "advance", "advance"),
        ],
        {"state": "retired"},
    ),
}


@pytest.fixture(scope="module")
def keys_of_before():
    """RSA keys take long to make: rows share a few of them."""
    from privyseald.keyholder import keystore

    made, real = [], keystore._new_private_key
    given = []

    def new(algorithm):
        if not algorithm.rsa_bits:
            return real(algorithm)
        if len(given) >= len(made):
            made.append(real(algorithm))
        given.append(1)
        return made[len(given) - 1]

    patch = pytest.MonkeyPatch()
    patch.setattr(keystore, "_new_private_key", new)
    yield given
    patch.undo()


@pytest.fixture(autouse=True)
def anew(keys_of_before):
    keys_of_before.clear()


@pytest.mark.parametrize("name", ROWS)
def test_rotation(world, name):
    steps, outcome = ROWS[name]
    for step in steps:
        if step.startswith("! "):
            what, _, reason = step[2:].rpartition(" ")
            with pytest.raises(DomainError) as error:
                WORDS[what](world)
            assert error.value.reason == reason, error.value.message
        else:
            WORDS[step](world)
    for what, wanted in outcome.items():
        check(world, what, wanted)
    check_log(world)


def check(world, what, wanted):
    if what == "state":
        assert str(world.rotation().state) == wanted
    elif what == "primary":
        assert world.key_record().primary == wanted
    elif isinstance(what, int):
        assert world.states()[what] == wanted
    elif what == "forced":
        forced = [leaf for leaf in world.leaves("rotation.advance") if leaf.get("forced")]
        assert [leaf["strands"] for leaf in forced] == [wanted]
        assert any(step.forced for step in world.rotation().history)
    elif what == "rotations":
        found = world.view(lambda view: view.rotations.list(APP, world.key))
        assert [str(r.state) for r in found] == wanted
    elif what == "unregistered":
        from privyseald.model.native import NativeVersion

        native = NativeVersion("android", "0.5.0", "5")
        served = world.run(world.resolver.channel(APP, "production", native))
        assert served.signature(str(world.scheme)).key_version.endswith(f"/{wanted}")
    elif what == "ordered":
        times = [step.at for step in world.rotation().history]
        assert times == sorted(times)
    else:
        assert world.updates(what) is wanted, world.status().standings


def check_log(world):
    """Every state that a version has is explained by the log's last word on it."""
    says = {
        "key.create": "active",
        "key.create-version": "pre-activation",
        "key.activate": "active",
        "key.suspend": "suspended",
        "key.resume": "active",
        "key.deactivate": "deactivated",
        "key.compromise": "compromised",
        "key.destroy-schedule": "destroy-scheduled",
        "key.destroy": "destroyed",
    }
    told = {}
    for leaf in world.leaves(*says):
        told[leaf["keyVersion"]] = says[leaf["act"]]
    for version in world.key_record().versions:
        assert told[version.name] == version.state


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
