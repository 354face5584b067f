"""What went wrong is in the daemon's log: where, and with no value; and it is no "try again"."""

import pytest
from privyseald.adapters.alarm import LoudAlarm
from privyseald.model.errors import FailedPrecondition, Unavailable, explain
from privyseald.model.schemes import Algorithm, KeyIdentity, Scheme
from privyseald.rpc.status import to_status
from privyseald.services.certificates import CertifiedKeys
from structlog.testing import capture_logs

from tests.simulator import APP


def faulty(secret):
    return {}[secret]


def test_a_fault_is_explained_by_its_place_and_by_no_value():
    with pytest.raises(KeyError) as caught:
        faulty("a secret")
    told = explain(caught.value)
    assert told.startswith("KeyError < test_faults.py:")
    assert "secret" not in told
    assert explain(Unavailable("come back", reason="DOWN")) == "DOWN: come back"


def test_a_fault_in_an_act_is_internal_and_found_in_the_log(world):
    with pytest.raises(KeyError) as caught:
        world.run(world.store.commit(lambda _: faulty("a secret")))
    with capture_logs() as logs:
        status = to_status(caught.value)
    assert "try again" not in status.message
    (entry,) = (e for e in logs if e["event"] == "internal error")
    assert entry["error_id"] in status.message
    assert "test_faults.py:" in entry["error"]
    assert "secret" not in str(logs)
    # The next one is none the worse.
    world.publish()


def test_a_fault_in_a_whole_commit_is_every_callers_and_the_next_one_goes_on(world, monkeypatch):
    def signs(_):
        return faulty("a secret")

    with monkeypatch.context() as broken:
        broken.setattr(world.store, "_sign", signs)
        with pytest.raises(KeyError), capture_logs() as logs:
            world.standby()
    assert [e["event"] for e in logs] == ["commit failed"]
    assert "test_faults.py:" in logs[0]["error"]
    world.standby()


def test_a_destruction_that_fails_is_told_of_and_tried_again(world, monkeypatch):
    world.standby()
    world.change("destroy", 2, reason="test", delay=86_400, force=False)
    world.days(2)

    async def away(_):
        raise Unavailable("the token cannot be used now; try again", reason="TOKEN_DOWN")

    with monkeypatch.context() as broken:
        broken.setattr(world.keyholder, "destroy", away)
        world.sweep()
    assert world.states()[2] == "destroy-scheduled"
    name = f"apps/{APP}/keys/{world.key}/versions/2"
    told = ("destroy", name, "TOKEN_DOWN: the token cannot be used now; try again")
    assert world.undone == [told]
    world.sweep()
    assert world.states()[2] == "destroyed"
    assert world.undone == [told]


def test_the_log_tells_of_a_duty_that_fails_on_once_in_a_while():
    alarm, error = LoudAlarm(), Unavailable("come back", reason="DOWN")
    with capture_logs() as logs:
        for _ in range(5):
            alarm.duty_failed("destroy", error, "a")
        alarm.duty_failed("destroy", error, "b")
        alarm.duty_failed("destroy", Unavailable("come back", reason="GONE"), "a")
    assert [(e["of"], e["error"]) for e in logs] == [
        ("a", "DOWN: come back"),
        ("b", "DOWN: come back"),
        ("a", "GONE: come back"),
    ]


def test_a_key_that_nobody_has_and_that_stays_is_told_of(world, monkeypatch):
    identity = KeyIdentity(APP, world.key, 2, Scheme.STATEMENT_V1, Algorithm.ED25519)
    made = world.run(world.keyholder.generate(identity)).wrapped

    async def down(_):
        raise Unavailable("come back", reason="DOWN")

    monkeypatch.setattr(world.keyholder, "destroy", down)
    makes = CertifiedKeys(world.store, world.keyholder, world.clock, world, pauses=(0, 0))
    world.run(makes.destroy_unless_kept(made))
    told = ("destroy a key that was made for nothing", identity.name, "DOWN: come back")
    assert world.undone == [told]


@pytest.mark.parametrize("downs", [0, 1, 2])
def test_a_key_that_nobody_has_is_destroyed_when_its_token_comes_back(world, monkeypatch, downs):
    identity = KeyIdentity(APP, world.key, 2, Scheme.STATEMENT_V1, Algorithm.ED25519)
    made = world.run(world.keyholder.generate(identity)).wrapped
    left, destroyed = [Unavailable("come back", reason="DOWN")] * downs, []

    async def down(key):
        if left:
            raise left.pop()
        destroyed.append(key)

    monkeypatch.setattr(world.keyholder, "destroy", down)
    makes = CertifiedKeys(world.store, world.keyholder, world.clock, world, pauses=(0, 0))
    world.run(makes.destroy_unless_kept(made))
    assert (destroyed, world.undone) == ([made], [])


def test_a_key_that_cannot_be_destroyed_is_told_of_at_once(world, monkeypatch):
    identity = KeyIdentity(APP, world.key, 2, Scheme.STATEMENT_V1, Algorithm.ED25519)
    made = world.run(world.keyholder.generate(identity)).wrapped

    async def another(_):
        raise FailedPrecondition("another key is there", reason="KEY_UNUSABLE")

    monkeypatch.setattr(world.keyholder, "destroy", another)
    makes = CertifiedKeys(world.store, world.keyholder, world.clock, world, pauses=(600,))
    world.run(makes.destroy_unless_kept(made))
    assert len(world.undone) == 1
