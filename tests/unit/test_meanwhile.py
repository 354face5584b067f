"""What changes between the halves of an act: it is done as things are then, or not at all."""

import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import pytest
from privyseal.verify.receipt import receipt_parts
from privyseal.verify.statement import Statement
from privyseald.keyholder import kek as keks
from privyseald.keyholder.custodian import Custodian
from privyseald.keyholder.custody_settings import CustodySettings, environment
from privyseald.keyholder.kek import KekError
from privyseald.model.approvals import Approval
from privyseald.model.errors import DomainError, FailedPrecondition, PermissionDenied, Unavailable
from privyseald.model.policy import Action, Grant, Role
from privyseald.model.schemes import KeyPlace, Scheme
from privyseald.services.archives import Archives
from privyseald.services.consent import Consent

from tests.simulator import APP, World

ARCHIVE = b"an archive"


@pytest.fixture
def archived(tmp_path):
    """An app whose archives are signed, a signer, and what may happen while one is taken."""
    world = World(tmp_path, scheme=Scheme.STATEMENT_V1)
    world.do(
        world.keys.create_key(
            *(world.olivia, world.request()),
            app=APP,
            key_id="",
            scheme=Scheme.SPARKLE_ED25519,
            algorithm=None,
            place=KeyPlace(),
        )
    )
    grant = Grant("s", "certificate:sally", Role.SIGNER, APP, world.now)
    world.run(world.store.commit(lambda tx: (tx.grants.add(grant), lambda _: b"")[1]))
    world.sally = world.run(world.access.by_certificate("certificate:sally", "2a"))
    yield world
    world.close()


def sign_archive(world, meanwhile):
    return world.run(signed(world, meanwhile))


async def nothing():
    pass


async def signed(world, meanwhile):
    wanted = Statement(
        app=APP,
        version="1",
        counter=0,
        bundle_sha256=hashlib.sha256(ARCHIVE).digest(),
        bundle_length=len(ARCHIVE),
        manifest_sha256=b"m" * 32,
        native_ranges=(),
        source_commit="",
        signed_at=0,
        log_origin="",
    )
    await world.signing.sign(world.sally, world.request(), wanted)

    class Spool:
        @contextlib.asynccontextmanager
        async def hold(self, pieces, most):
            assert most == len(ARCHIVE)
            await meanwhile()

            async def again():
                yield ARCHIVE

            yield again()

    async def pieces():
        yield ARCHIVE

    archives = Archives(world.store, world.access, world.keyholder, Spool())
    made = []
    request = dataclasses.replace(world.request(), encode=lambda a: made.append(a) or b"")
    await archives.sign(world.sally, request, wanted, pieces())
    return made[0]


def test_an_archive_is_signed_if_nothing_changed(archived):
    added = sign_archive(archived, nothing).added
    assert [signature.scheme for signature in added] == ["sparkle-ed25519"]


def test_an_archive_whose_signer_lost_the_right_meanwhile_gets_no_signature(archived):
    async def revoke():
        await archived.store.commit(lambda tx: (tx.grants.remove("s"), lambda _: b"")[1])

    with pytest.raises(PermissionDenied):
        sign_archive(archived, revoke)


def test_an_archive_whose_key_was_stopped_meanwhile_gets_no_signature(archived):
    async def suspend():
        await archived.versions.suspend(
            archived.olivia, archived.request(), (APP, "sparkle-ed25519", 1), reason="test"
        )

    with pytest.raises(FailedPrecondition):
        sign_archive(archived, suspend)


def test_an_archive_is_signed_once_though_two_send_it(archived):
    async def another():
        assert len((await signed(archived, nothing)).added) == 1

    with pytest.raises(Unavailable, match="this release changed"):
        sign_archive(archived, another)
    assert sign_archive(archived, nothing).added == ()


def test_a_standby_that_came_meanwhile_changes_nothing(archived):
    async def add():
        await archived.versions.create(
            *(archived.olivia, archived.request()),
            app=APP,
            key_id="sparkle-ed25519",
            algorithm=None,
            place=KeyPlace(),
        )

    assert len(sign_archive(archived, add).added) == 1


def test_what_is_signed_again_is_signed_by_who_may_at_the_end(world, monkeypatch):
    old, new = "android-1.0.0-10", "android-2.0.0-20"
    world.register(old, 1)
    world.publish()
    world.start()
    sign, stopped = world.keyholder.sign_release, []

    async def and_then_stopped(statement, statement_key, keys):
        signed = await sign(statement, statement_key, keys)
        if not stopped and any(key.identity.version == 2 for key in keys):
            stopped.append(1)
            name = (APP, world.key, 2)
            await world.versions.suspend(world.olivia, world.request(), name, reason="test")
        return signed

    monkeypatch.setattr(world.keyholder, "sign_release", and_then_stopped)
    with contextlib.suppress(DomainError):
        world.register(new, 2)
        world.advance()
    assert stopped
    receipt = world.view(lambda view: view.releases.signed(APP, counter=1)).receipt
    by = {s.key_version for s in receipt_parts(receipt)[1]}
    assert by == {
        f"apps/{APP}/keys/statement-v1/versions/1",
        f"apps/{APP}/keys/{world.key}/versions/1",
    }


def test_consent_of_as_many_as_were_asked_for_stands_to_the_end(tmp_path):
    """The policies want one; who asked wanted two, and one of these is an approver no more."""
    world = World(tmp_path, approvals=1)
    consent = Consent(world.store, world.access, world.clock, needed=1, alarm=world)
    ada = Grant("ada", "certificate:ada", Role.APPROVER, APP, world.now)
    world.run(world.store.commit(lambda tx: (tx.grants.add(ada), lambda _: b"")[1]))
    person = world.run(world.access.by_certificate("certificate:ada", "2a"))
    made = []
    request = dataclasses.replace(world.request(), encode=lambda a: made.append(a) or b"")
    world.standby()
    wanted = Approval(
        id="",
        action=Action.KEY_DESTROY,
        app=APP,
        subject=f"apps/{APP}/keys/{world.key}/versions/2 after 1d",
        requester="",
        beneficiary="",
        reason="test",
        needed=2,
        uses=1,
        seconds=3600,
        created_at=0,
        expires_at=0,
    )
    world.run(consent.request(world.olivia, request, wanted))
    for approver in (world.oscar, person):
        world.run(consent.approve(approver, world.request(), made[0].id))

    def destroy():
        world.run(
            world.versions.destroy(
                *(world.olivia, world.request(), (APP, world.key, 2)),
                reason="test",
                delay=86_400,
                force=False,
            )
        )

    world.run(world.store.commit(lambda tx: (tx.grants.remove("ada"), lambda _: b"")[1]))
    world.access.forget()
    with pytest.raises((FailedPrecondition, PermissionDenied)):
        destroy()
    world.run(world.store.commit(lambda tx: (tx.grants.add(ada), lambda _: b"")[1]))
    world.access.forget()
    destroy()
    world.close()


def test_shares_that_do_not_open_it_together_are_forgotten(tmp_path, monkeypatch):
    kek = bytes(range(32))
    record, words = keks.split(kek, 2, 3)
    custodian = Custodian(record, CustodySettings(str(tmp_path)))
    join = keks.join
    monkeypatch.setattr(keks, "join", lambda *_: (_ for _ in ()).throw(KekError("no")))
    assert custodian.offer({"share": words[0]})["have"] == 1
    told = custodian.offer({"share": words[1]})
    assert (told["error"], told["have"], told["state"]) == ("no", 0, "sealed")
    monkeypatch.setattr(keks, "join", join)
    assert custodian.offer({"share": words[1]})["have"] == 1
    assert custodian.offer({"share": words[2]})["state"] == "open"


def test_a_keyholder_gets_of_the_environment_what_it_needs(monkeypatch):
    monkeypatch.setenv("PRIVYSEALD_SECRET_OF_ANOTHER", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("SOFTHSM2_CONF", "x")
    given = environment(None)
    assert set(given) <= {"PATH", "PYTHONPATH", "VIRTUAL_ENV"}
    assert "AWS_SECRET_ACCESS_KEY" in environment(None, away=True)
    assert "SOFTHSM2_CONF" in environment(None, away=True)
    assert "PRIVYSEALD_SECRET_OF_ANOTHER" not in environment(None, away=True)


FORKS = """
import json, os, sys
from privyseald.keyholder import process
before = [os.open("/dev/null", os.O_RDONLY) for _ in range(4)]
read, write = os.pipe()
after = [os.open("/dev/null", os.O_RDONLY) for _ in range(4)]
def work():
    handles = sorted(map(int, os.listdir("/proc/self/fd")))
    os.write(write, json.dumps([handles, dict(os.environ)]).encode())
    return 0
process.fork(work, keep=write, env={"ONLY": "this"})
os.close(write)
handles, env = json.loads(os.read(read, 65536))
print(json.dumps([[h for h in handles if h not in (0, 1, 2, write)], env]))
"""


def test_a_fork_keeps_one_file_and_no_environment_of_its_parents():
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "A_SECRET": "x"}
    done = subprocess.run(
        [sys.executable, "-c", FORKS],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    handles, given = json.loads(done.stdout)
    # The one that lists them is open while it does.
    assert len(handles) <= 1
    assert given == {"ONLY": "this"}
