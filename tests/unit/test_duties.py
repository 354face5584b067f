"""What the daemon does unasked: destructions, ends of cryptoperiods, counts."""

import pytest
from privyseald.adapters.store_sql import CHECK_INS_KEPT
from privyseald.model.errors import DomainError, Unavailable
from privyseald.services.refusals import Refusals

from tests.simulator import APP

OLD, NEW = "android-1.0.0-10", "android-2.0.0-20"


def test_cryptoperiods_warn_and_end_what_nothing_needs(world):
    world.do(world.versions.set_cryptoperiod(world.olivia, world.request(), APP, world.key, 100))
    world.register(OLD, 1)
    world.publish()
    said = []
    for _ in range(120):
        world.days(1)
        world.sweep()
    said = [leaf["daysLeft"] for leaf in world.leaves("key.cryptoperiod-warning")]
    assert said == [60, 30, 14, 7, 3, 2, 1, 0]
    assert world.states()[1] == "active", "devices depend on it: it is told of, and signs on"
    assert world.updates(OLD)
    world.start()
    world.register(NEW, 2)
    for _ in range(3):
        world.advance()
    world.end(OLD)
    world.days(1)
    world.sweep()
    assert world.states() == {1: "deactivated", 2: "active"}
    assert world.version(2).expires_at > world.now


def test_a_scheduled_destruction_is_undone_until_its_time(world):
    world.standby()
    world.change("destroy", 2, reason="test", delay=86_400, force=False)
    world.sweep()
    assert world.states()[2] == "destroy-scheduled"
    world.change("restore", 2, reason="mistake")
    assert world.states()[2] == "pre-activation"
    world.change("destroy", 2, reason="test", delay=86_400, force=False)
    world.days(2)
    world.sweep()
    assert world.states()[2] == "destroyed"
    assert world.version(2).blob == b""
    assert world.keyholder.destroyed == [world.version(2).name]
    with pytest.raises(DomainError):
        world.change("restore", 2, reason="too late")


def test_a_destruction_whose_time_has_come_is_not_undone_any_more(world):
    """The private key may be gone from a token by then, and the record must not say otherwise."""
    world.standby()
    world.change("destroy", 2, reason="test", delay=86_400, force=False)
    world.days(1)
    with pytest.raises(DomainError, match="its time has come"):
        world.change("restore", 2, reason="at the last second")
    world.sweep()
    assert world.states()[2] == "destroyed"


def test_people_are_told_of_an_end_that_came_near_while_no_daemon_ran(world):
    world.do(world.versions.set_cryptoperiod(world.olivia, world.request(), APP, world.key, 100))
    world.days(65)
    world.crash()
    world.sweep()
    world.sweep()
    world.crash()
    world.sweep()
    assert [leaf["daysLeft"] for leaf in world.leaves("key.cryptoperiod-warning")] == [60]


def test_a_warning_that_could_not_be_written_is_written_later(world, monkeypatch):
    world.do(world.versions.set_cryptoperiod(world.olivia, world.request(), APP, world.key, 100))
    world.sweep()
    world.days(65)

    async def down(*_):
        raise Unavailable("the store cannot be written now", reason="STORE_DOWN")

    with monkeypatch.context() as broken:
        broken.setattr(world.store, "commit", down)
        world.sweep()
    assert world.leaves("key.cryptoperiod-warning") == []
    world.sweep()
    world.sweep()
    assert [leaf["daysLeft"] for leaf in world.leaves("key.cryptoperiod-warning")] == [60]


def test_counts_of_check_ins_are_forgotten_after_their_time(world):
    world.register(OLD, 1)
    world.publish()
    world.check_in(OLD, 3)
    kept = lambda: world.view(lambda view: len(view.builds.check_ins(APP, 0)))  # noqa: E731
    world.days(CHECK_INS_KEPT)
    world.publish()
    assert kept() == 1
    world.days(1)
    world.publish()
    assert kept() == 0


def test_refusals_that_were_only_counted_are_told_once_a_minute_and_not_lost(world, monkeypatch):
    refusals = Refusals(world.store, world.clock)
    for _ in range(203):
        world.run(refusals.add("token:x", {"principal": "token:x", "reason": "NO_GRANT"}))

    async def down(*_):
        raise Unavailable("the store cannot be written now", reason="STORE_DOWN")

    with monkeypatch.context() as broken:
        broken.setattr(world.store, "commit", down)
        with pytest.raises(Unavailable):
            world.run(refusals.flush())
    counted = lambda: [leaf["counts"] for leaf in world.leaves("refusals.counted")]  # noqa: E731
    assert counted() == []
    world.run(refusals.flush())
    assert counted() == [{"token:x": 3}]
    world.run(refusals.add("token:x", {"principal": "token:x", "reason": "NO_GRANT"}))
    world.now += 30
    world.run(refusals.flush())
    assert len(counted()) == 1
    world.now += 30
    world.run(refusals.flush())
    assert counted()[1:] == [{"token:x": 1}]


def test_what_came_due_meanwhile_is_told_though_others_came_first(world):
    world.do(world.versions.set_cryptoperiod(world.olivia, world.request(), APP, world.key, 100))
    world.days(99.5)
    world.crash()
    world.run(world.sweeper.begin())
    world.publish()
    world.sweep()
    assert [leaf["daysLeft"] for leaf in world.leaves("key.cryptoperiod-warning")] == [1]


def test_what_people_change_while_the_sweeper_looks_counts(world, monkeypatch):
    """It reads, they lengthen the cryptoperiod, it commits."""
    world.do(world.versions.set_cryptoperiod(world.olivia, world.request(), APP, world.key, 10))
    world.start()
    world.register(NEW, 2)
    for _ in range(3):
        world.advance()
    world.days(11)
    real, meanwhile = world.store.commit, []

    async def commit(*given):
        if not meanwhile:
            meanwhile.append(1)
            await world.versions.set_cryptoperiod(
                world.olivia, world.request(), APP, world.key, 500
            )
        return await real(*given)

    monkeypatch.setattr(world.store, "commit", commit)
    world.sweep()
    assert meanwhile
    assert world.states()[1] == "active"


def test_a_key_that_is_being_erased_is_destroyed_and_nothing_else(world, monkeypatch):
    world.standby()
    world.change("destroy", 2, reason="test", delay=0, force=False)
    real, refused = world.keyholder.destroy, []

    async def destroy(key):
        await real(key)
        try:
            await world.versions.compromise(
                world.oscar,
                world.request("certificate:oscar"),
                (APP, world.key, 2),
                since=0,
                evidence="test",
            )
        except DomainError as error:
            refused.append(error.message)

    monkeypatch.setattr(world.keyholder, "destroy", destroy)
    world.sweep()
    assert "has come" in refused[0]
    assert world.states()[2] == "destroyed"
    assert world.leaves("key.destroy")
