"""The daemon rotates the leaf keys of a root, and guards the root."""

import asyncio

import pytest
from cryptography import x509
from privyseal.verify.errors import VerificationError
from privyseald.model.errors import DomainError, FailedPrecondition, Unavailable
from privyseald.model.schemes import Scheme

from tests.expo_world import BUILD, DAY, ExpoWorld
from tests.simulator import APP


@pytest.fixture
def world(tmp_path):
    made = ExpoWorld(tmp_path, scheme=Scheme.STATEMENT_V1)
    yield made
    made.close()


def test_leaves_of_a_root_are_rotated_and_devices_never_notice(world):
    root = world.root()
    first = world.leaf()
    assert first.anchor_sha256 == root.public_key_sha256
    world.key = "expo-v1"
    world.embed(root)
    world.publish()
    for day in range(400):
        world.days(1)
        world.sweep()
        assert world.updates_with(root.certificate), f"day {day}"
        active = [n for n, state in world.states().items() if state == "active"]
        assert len(active) == 1, "what is not needed does not sign"
    assert len(world.states()) == 7
    assert world.alarms == []
    leaf = world.version(world.key_record().primary)
    certificate = x509.load_der_x509_certificate(leaf.certificate)
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= (
        __import__("datetime").timedelta(days=91)
    )
    told = world.leaves("key.promote")
    assert len(told) == 6
    assert all(leaf["successor"] for leaf in told)
    embedded = x509.load_der_x509_certificate(root.certificate)
    constraints = embedded.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.ca
    assert constraints.value.path_length == 0


def test_who_cannot_rotate_is_told_of_once_a_day_and_it_goes_on_later(world):
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    world.key = "expo-root-v1"
    world.change("suspend", 1, reason="test")
    world.days(61)
    for _ in range(3):
        world.sweep()
    assert world.alarms == ["apps/app/keys/expo-v1"]
    world.days(1)
    world.sweep()
    assert len(world.alarms) == 2
    world.change("resume", 1, reason="test")
    world.days(0.1)
    world.sweep()
    world.days(40)
    assert world.updates_with(root.certificate)


def test_a_rotation_that_people_began_comes_first(world):
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    world.key = "expo-v1"
    world.start()
    world.days(61)
    world.sweep()
    assert world.key_record().primary == 1
    assert world.alarms
    for _ in range(4):
        world.advance()
    assert world.states() == {1: "deactivated", 2: "active"}
    assert world.updates_with(root.certificate)


def test_a_suspended_root_issues_nothing_and_one_that_was_given_up_is_left(world):
    world.root()
    world.key = "expo-root-v1"
    world.change("suspend", 1, reason="test")
    with pytest.raises(FailedPrecondition, match="issues no certificate"):
        world.leaf()
    world.change("compromise", 1, since=0, evidence="test")
    assert world.leaf().anchor_sha256 == b""


def test_a_root_signs_no_release_and_keeps_none_from_being_signed(world):
    world.root()
    world.leaf()
    world.key = "expo-root-v1"
    world.change("suspend", 1, reason="test")
    world.publish()
    signed = world.view(lambda view: view.releases.signed(APP, counter=1))
    assert "expo-root-v1" not in signed.signers


def test_what_cannot_be_rotated_makes_no_key_pairs(world):
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    world.days(61)
    made = world.keyholder.generated
    world.key = "expo-root-v1"
    world.change("suspend", 1, reason="test")
    for _ in range(48):
        world.days(1 / 24)
        world.sweep()
    assert world.keyholder.generated == made
    world.change("resume", 1, reason="test")
    world.start(emergency=True)
    made = world.keyholder.generated
    for _ in range(48):
        world.days(1 / 24)
        world.sweep()
    assert world.keyholder.generated == made, "the new root is not in those binaries"


def test_a_key_pair_that_does_not_become_one_is_destroyed(world, monkeypatch):
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    world.days(61)

    async def down(*_):
        raise Unavailable("the store cannot be written now", reason="STORE_DOWN")

    with monkeypatch.context() as broken:
        broken.setattr(world.store, "commit", down)
        world.sweep()
    assert set(world.keyholder.destroyed) == {"apps/app/keys/expo-v1/versions/2"}
    assert world.alarms


@pytest.mark.parametrize("verb", ["suspend", "compromise"])
def test_a_root_that_is_stopped_meanwhile_has_issued_nothing(world, monkeypatch, verb):
    """The certificate is made, the root is stopped, and only then comes the commit."""
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    world.days(61)
    real, meanwhile = world.store.commit, []
    more = {"reason": "test"} if verb == "suspend" else {"since": 0, "evidence": "test"}

    async def commit(*given):
        if not meanwhile:
            meanwhile.append(1)
            name = (APP, "expo-root-v1", 1)
            await getattr(world.versions, verb)(world.olivia, world.request(), name, **more)
        return await real(*given)

    monkeypatch.setattr(world.store, "commit", commit)
    world.sweep()
    world.key = "expo-v1"
    assert meanwhile
    assert world.states() == {1: "active"}
    if verb == "compromise":
        return
    world.key = "expo-root-v1"
    world.change("resume", 1, reason="test")
    meanwhile.clear()
    world.key = "expo-v1"
    with pytest.raises(DomainError):
        world.standby()


def test_a_root_that_binaries_embed_is_not_destroyed_unseen(world):
    root = world.root()
    world.leaf()
    world.embed(root)
    world.key = "expo-root-v1"
    world.change("suspend", 1, reason="test")
    with pytest.raises(FailedPrecondition, match=r"android-1\.0\.0-10") as error:
        world.change("destroy", 1, reason="test", delay=0, force=False)
    assert error.value.reason == "BUILDS_DEPEND"
    (standing,) = world.status().standings
    assert standing.build.id == BUILD
    assert standing.embedded == (1,)
    with pytest.raises(FailedPrecondition, match="is a root") as error:
        world.start()
    assert error.value.reason == "ROOT_NOT_ROTATED"


def test_deployed_releases_that_lack_the_new_signature_are_told_of(world):
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    world.key = "statement-v1"
    world.change("suspend", 1, reason="test")
    world.days(61)
    world.sweep()
    world.key = "expo-v1"
    assert world.key_record().primary == 2, "the key itself was rotated"
    assert world.alarms == ["apps/app/keys/expo-v1"]
    assert world.states()[1] == "active", "devices still need it"
    world.key = "statement-v1"
    world.change("resume", 1, reason="test")
    world.days(1)
    world.sweep()
    world.key = "expo-v1"
    assert world.states() == {1: "deactivated", 2: "active"}
    world.days(10)
    world.sweep()
    assert len(world.alarms) == 1


def test_what_cannot_be_read_is_told_of_and_keeps_no_other_key_waiting(world, monkeypatch):
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    world.days(61)

    async def cover(*_):
        raise VerificationError("statement is not well-formed JSON")

    with monkeypatch.context() as broken:
        broken.setattr(world.renewal, "cover", cover)
        world.sweep()
    assert world.alarms == ["apps/app/keys/expo-v1"]


def test_a_release_of_another_kind_keeps_no_old_leaf_alive(world):
    root = world.root()
    # Signed before there was an expo-v1 key, so that its statement has no update.
    world.publish()
    world.leaf()
    world.embed(root)
    world.key = "expo-v1"
    for _ in range(130):
        world.days(1)
        world.sweep()
    assert sorted(world.states().values()) == ["active", "deactivated", "deactivated"]


def test_a_root_that_ends_soon_makes_no_leaf_after_leaf(world):
    import sqlite3

    world.root()
    world.leaf()
    with sqlite3.connect(world.folder / "world.db") as database:
        ends = world.now + 70 * DAY
        database.execute("UPDATE key_versions SET certificate_ends = ?", (ends,))
    world.key = "expo-v1"
    world.days(45)
    for _ in range(48):
        world.days(1 / 24)
        world.sweep()
    assert len(world.states()) == 1
    assert world.alarms


def test_a_leaf_is_not_what_binaries_embed(world):
    world.root()
    leaf = world.leaf()
    with pytest.raises(FailedPrecondition) as error:
        world.embed(leaf)
    assert error.value.reason == "LEAF_EMBEDDED"


def due(world):
    """Bring a world to where its leaf is due, with a device and a release."""
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    world.days(61)
    world.key = "expo-v1"
    return root


def test_a_key_that_was_committed_is_not_destroyed_though_the_commit_failed(world, monkeypatch):
    """What is kept outside cannot be written; what was committed stays."""
    due(world)

    def full(_note):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(world.kept, "write", full)
        world.sweep()
    assert world.key_record().primary == 2
    assert world.keyholder.destroyed == []


def test_a_daemon_that_stops_meanwhile_destroys_no_key_that_was_committed(world, monkeypatch):
    due(world)
    real, entered = world.store.commit, asyncio.Event()

    async def slow(*given):
        entered.set()
        await asyncio.sleep(0.05)
        return await real(*given)

    async def stop():
        duty = asyncio.ensure_future(world.leaf_keys.rotate())
        await entered.wait()
        duty.cancel()
        await asyncio.wait([duty])

    monkeypatch.setattr(world.store, "commit", slow)
    world.run(stop())
    assert world.key_record().primary == 2
    assert world.keyholder.destroyed == []


def test_what_people_are_rotating_to_is_left_alone(world):
    root = due(world)
    world.now -= 61 * DAY
    world.start()
    for _ in range(4):
        world.advance()
        world.days(0.1)
        world.sweep()
        assert world.states()[2] == "active"
        assert world.updates_with(root.certificate)
    assert world.states() == {1: "deactivated", 2: "active"}


def test_a_promoted_rotation_that_waits_for_old_binaries_keeps_no_leaf_from_rotating(world):
    """An app certificate first, a root later: both kinds of binaries are out there for long."""
    first = world.leaf()
    world.embed(first)
    world.publish()
    world.key = "expo-v1"
    root = world.root()
    world.start()
    world.embed(root, "android-2.0.0-20")
    for _ in range(3):
        world.advance()
    for day in range(200):
        world.days(1)
        world.sweep()
        assert world.updates_with(root.certificate, privyseal_native_version="2.0.0"), day
        assert world.updates_with(first.certificate, privyseal_native_version="1.0.0"), day
    assert world.alarms == []
    assert world.key_record().primary > 2
    world.days(40)
    world.end(BUILD)
    world.advance(force=True)
    assert world.rotation().state == "retired"
    assert world.states()[1] == "deactivated"


def test_builds_with_a_root_that_was_given_up_are_not_taken_any_more(world):
    root = world.root()
    world.leaf()
    world.key = "expo-root-v1"
    world.start(emergency=True)
    with pytest.raises(FailedPrecondition) as error:
        world.embed(root)
    assert error.value.reason == "BUILD_BEHIND_ROTATION"
    new = world.version(2)
    world.key = "expo-v1"
    world.standby()
    world.embed(new)


def test_no_rotation_leads_to_a_leaf_that_ends_or_hangs_on_nothing(world):
    world.root()
    world.leaf()
    world.key = "expo-v1"
    world.standby()
    world.days(70)
    with pytest.raises(FailedPrecondition) as error:
        world.start(new=2)
    assert error.value.reason == "CERTIFICATE_ENDS"
    world.start()
    assert world.rotation().new == 3, "a new one, rather than the old standby"
    world.abort()
    world.key = "expo-root-v1"
    world.start(emergency=True)
    world.key = "expo-v1"
    world.start(emergency=True)
    assert world.version(world.key_record().primary).anchor_sha256 == (
        world.view(lambda view: view.keys.get(APP, "expo-root-v1")).version(2).public_key_sha256
    )


def test_a_suspended_leaf_that_devices_hang_on_is_told_of(world):
    due(world)
    world.change("suspend", 1, reason="test")
    world.sweep()
    assert world.alarms == ["apps/app/keys/expo-v1"]


def test_a_clock_that_was_ahead_strands_nobody(world):
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    world.days(50)
    world.sweep()
    world.days(15)
    world.sweep()
    world.days(-15)
    for _ in range(60):
        world.sweep()
        assert world.updates_with(root.certificate)
        world.days(1)


def test_an_alarm_of_the_future_silences_none(world):
    due(world)
    world.key = "expo-root-v1"
    world.change("suspend", 1, reason="test")
    world.days(400)
    world.sweep()
    world.days(-400)
    world.sweep()
    assert len(world.alarms) == 2
