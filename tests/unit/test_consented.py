"""Consent is to one act, done once: to no other step, delay or backup."""

import asyncio
import hashlib
import json

import pytest
from privyseald.model.approvals import Approval
from privyseald.model.errors import DomainError, FailedPrecondition
from privyseald.model.lifecycle import DAY, in_short
from privyseald.model.policy import Action
from privyseald.services.backups import SUBJECT, Backups
from privyseald.services.consent import Consent

from tests.rotation_words import NEW, OLD
from tests.simulator import APP, World

pytestmark = pytest.mark.usefixtures("anew")


@pytest.fixture
def strict(tmp_path):
    made = World(tmp_path, approvals=1)
    yield made
    made.close()


def consent(world, action, subject, app=APP):
    service = Consent(world.store, world.access, world.clock, needed=1, alarm=world)
    wanted = Approval("", action, app, subject, "", "", "because", 0, 0, 7 * DAY, 0, 0)
    asked = world.do(service.request(world.olivia, world.request(), wanted))
    world.do(service.approve(world.oscar, world.request("certificate:oscar"), asked.id))


def test_consent_to_force_one_step_of_a_rotation_forces_no_other(strict):
    world = strict
    world.register(OLD, 1)
    world.publish()
    world.start()
    world.register(NEW, 2)
    for _ in range(3):
        state = world.advance().state
    assert state == "promoted"
    name = f"apps/{APP}/keys/{world.key}/rotations/1"
    consent(world, Action.KEY_FORCE_RETIRE, f"{name} to promoted")
    with pytest.raises(FailedPrecondition, match="to retired"):
        world.advance(force=True)
    consent(world, Action.KEY_FORCE_RETIRE, f"{name} to retired")
    assert world.advance(force=True).state == "retired"


def test_consent_to_a_destruction_is_to_its_delay(strict):
    world = strict
    world.change("suspend", 1, reason="test")
    version = f"apps/{APP}/keys/{world.key}/versions/1"
    consent(world, Action.KEY_DESTROY, f"{version} after 90d")
    destroy = world.versions.destroy

    def run(delay):
        name = (APP, world.key, 1)
        return world.do(
            destroy(world.olivia, world.request(), name, reason="x", delay=delay, force=False)
        )

    with pytest.raises(FailedPrecondition, match="after 0s"):
        run(0)
    assert run(90 * DAY).destroy_at == world.now + 90 * DAY


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (1, "1s"), (90, "90s"), (120, "2m"), (3600, "1h"), (7 * DAY, "7d")],
)
def test_a_delay_is_named_as_on_the_command_line(seconds, text):
    assert in_short(seconds) == text


class Numbered:
    """Makes archives that tell which one they are."""

    def __init__(self):
        self.made = 0

    async def make(self):
        await asyncio.sleep(0.01)
        self.made += 1
        return Archive(b"backup %d" % self.made)


class Archive:
    def __init__(self, content):
        self.content, self.size = content, len(content)
        self.sha256 = hashlib.sha256(content).digest()

    async def pieces(self):
        yield self.content

    def discard(self):
        pass


def test_each_backup_that_leaves_is_in_the_log_and_took_a_consent(strict):
    world = strict
    backups = Backups(world.store, world.access, Numbered())

    async def fetch(request):
        return [piece async for piece in backups.create(world.olivia, request)]

    async def at_once(request):
        calls = (fetch(request) for _ in range(4))
        return await asyncio.gather(*calls, return_exceptions=True)

    def logged():
        leaves = world.view(lambda view: view.log.leaves(0, 10_000))
        acts = [json.loads(leaf)["act"] for _, leaf, _ in leaves]
        return acts.count("backup.create"), acts.count("approval.use")

    consent(world, Action.BACKUP_EXPORT, SUBJECT, "-")
    request = world.request()
    got = world.run(at_once(request))
    assert [type(one) for one in got].count(list) == 1, got
    assert all(isinstance(one, list | DomainError) for one in got)
    assert logged() == (1, 1)
    consent(world, Action.BACKUP_EXPORT, SUBJECT, "-")
    with pytest.raises(DomainError, match="request_id"):
        world.run(fetch(request))
    assert logged() == (1, 1)
    assert world.run(fetch(world.request()))
    assert logged() == (2, 2)
