"""A clock that was set makes nothing count again, and nothing older than what it follows."""

import json

import pytest
from privyseald.adapters.clock import Steps
from privyseald.model.errors import FailedPrecondition
from privyseald.model.lifecycle import DAY
from privyseald.model.records import SessionRecord

from tests.expo_world import ExpoWorld
from tests.simulator import APP, World


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, clock_leeway=60)
    yield made
    made.close()


def test_nothing_is_written_while_the_clock_is_behind_the_log(world):
    world.publish()
    size = len(world.leaves())
    world.now -= 3600
    assert "3,600 seconds behind" in world.store.broken
    with pytest.raises(FailedPrecondition) as caught:
        world.publish()
    assert caught.value.reason == "CLOCK_BEHIND"
    world.crash()
    with pytest.raises(FailedPrecondition, match="set it right"):
        world.standby()
    assert len(world.leaves()) == size
    world.now += 3600
    assert world.store.broken == ""
    world.publish()


def test_a_clock_that_is_a_little_behind_makes_no_entry_older_than_the_one_before(world):
    world.publish()
    world.now -= 30
    world.publish()
    times = [leaf["time"] for leaf in world.leaves()]
    assert times == sorted(times)


def test_a_start_with_the_clock_behind_says_so_at_once(world):
    world.publish()
    world.now -= DAY
    world.crash()
    world.run(world.store.check())
    assert "behind the log's last entry" in world.store.broken


def test_what_expo_is_given_after_a_restart_is_later_whatever_the_clock_says(tmp_path):
    world = ExpoWorld(tmp_path)
    try:
        world.embed(world.leaf())
        created = []
        for back in (0, 3600):
            world.now -= back
            world.crash()
            world.publish()
            _, _, body = world.fetch()
            created.append(json.loads(body.split(b"\r\n\r\n")[1].split(b"\r\n--")[0])["createdAt"])
        assert created == sorted(created)
        assert created[0] != created[1]
    finally:
        world.close()


def test_a_jump_ahead_makes_no_used_token_usable_again():
    seconds = [1000.0]
    steps = Steps(60, lambda: seconds[0])
    now = 1_800_000_000
    steps.wrote(now)
    seconds[0] += 10
    assert steps.forgets_before(now + 10) == now + 10
    seconds[0] += 3600
    # A year ahead: nothing that could still count is forgotten.
    assert steps.forgets_before(now + 365 * DAY) == now + 3610
    seconds[0] += 3600
    assert steps.forgets_before(now + 365 * DAY + 3600) == now + 365 * DAY + 3600


def test_a_daemon_that_was_away_for_long_forgets_at_its_second_look():
    seconds = [5.0]
    steps = Steps(60, lambda: seconds[0])
    steps.wrote(1_000_000)
    later = 1_000_000 + 30 * DAY
    assert steps.forgets_before(later) == 1_000_000
    seconds[0] += 3600
    assert steps.forgets_before(later + 3600) == later + 3600


def test_sessions_outlive_a_clock_that_ran_ahead_for_a_moment(world):
    seconds = [0.0]
    world.store._steps = Steps(60, lambda: seconds[0])
    world.publish()
    session = SessionRecord("s", "workload:ci:1", b"", {}, APP, (), world.now, world.now + 600)
    world.run(world.store.commit(lambda tx: (tx.tokens.add_session(session), lambda _: b"")[1]))
    world.now += 400 * DAY
    world.standby()
    kept = world.view(lambda view: view.tokens.session("s"))
    assert kept is not None
    seconds[0] += 7200
    world.now += 7200
    world.standby()
    assert world.view(lambda view: view.tokens.session("s")) is None
