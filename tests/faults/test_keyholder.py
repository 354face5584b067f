"""Keyholders that hang or die: the call fails in time, and the next one is served."""

import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from privyseal.verify.merkle import EMPTY_ROOT
from privyseal.verify.note import Checkpoint
from privyseald.keyholder import custodian as custodian_module
from privyseald.keyholder import kek, supervisor
from privyseald.keyholder.custody_settings import CustodySettings
from privyseald.keyholder.keystores import HsmSettings
from privyseald.keyholder.log_keyholder import LogKeyholder
from privyseald.keyholder.supervisor import KeyholderPool
from privyseald.model.errors import Unavailable
from privyseald.model.schemes import Algorithm, KeyIdentity, Scheme
from privyseald.setup import log_key_identity

from tests.conftest import custodian
from tests.contract.test_keyholders import STATEMENT
from tests.thief import KEYHOLDERS

IDENTITY = KeyIdentity("app", "statement-v1", 1, Scheme.STATEMENT_V1, Algorithm.ED25519)


@pytest.fixture
def source(tmp_path):
    with custodian(tmp_path) as running:
        yield running


FORKING = """
import json, os, pathlib
from privyseald.keyholder import process
opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
ours, theirs = os.pipe()
opened += [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
def work():
    found = [int(p.name) for p in pathlib.Path("/proc/self/fd").iterdir() if p.exists()]
    os.write(theirs, json.dumps([found, dict(os.environ)]).encode())
    return 7
child = process.fork(work, keep=theirs, env={"ONLY": "this"})
found, environment = json.loads(os.read(ours, 65536))
assert set(found) <= {0, 1, 2, theirs}, found
assert environment == {"ONLY": "this"}, environment
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


def test_a_fork_of_the_custodian_has_nothing_else_of_it():
    """Neither files, such as other keyholders' sockets, nor the environment, which has secrets."""
    env = {**os.environ, "AWS_SECRET_ACCESS_KEY": "secret"}
    subprocess.run([sys.executable, "-c", FORKING], env=env, check=True, timeout=30)


def test_the_daemon_holds_no_end_that_the_key_could_be_read_from(source, tmp_path):
    kek = (tmp_path / "kek").read_bytes()
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = source.spawn(theirs, token=False)
        ours.settimeout(10)
        told = ours.recv(65536)
        assert told
        assert kek not in told
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                assert "kek" not in entry.readlink().name
        # Nor does the keyholder's socket give it away, whatever is written into it.
        ours.sendall(b"\xff" * 8)
        with contextlib.suppress(OSError):
            while chunk := ours.recv(65536):
                assert kek not in chunk
    process.kill()
    process.wait()
    # Asked for anything else, the custodian sends nothing and stays.
    for request in ({"op": "give"}, {"op": "spawn"}, {"op": "backup"}, {}, [], "give"):
        for handles in (0, 1, 2):
            ends = [os.pipe() for _ in range(handles)]
            socket.send_fds(source._link, [json.dumps(request).encode()], [w for _, w in ends])
            for read, write in ends:
                os.close(write)
                assert os.read(read, 100) == b""
                os.close(read)
    assert source.opened


def test_nobody_of_its_user_can_read_a_keyholder_from_its_first_moment_on(tmp_path):
    (tmp_path / "kek").write_bytes(os.urandom(32))
    (tmp_path / "kek").chmod(0o600)
    command = [sys.executable, "-m", "tests.thief", str(tmp_path)]
    if os.geteuid() == 0:
        # As any other user: without the right to trace what does not want to be traced.
        command[:0] = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    told = json.loads(subprocess.check_output(command, timeout=60).splitlines()[-1])
    assert "mem" in told["sleep"], "a thief who can read nothing shows nothing"
    assert told["seen"] >= KEYHOLDERS / 2
    assert told["stolen"] == []


def test_a_process_that_its_user_can_read_is_no_keyholder():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        code = (
            "import sys\n"
            "from privyseald.keyholder.process import Secrets, serve\n"
            "sys.exit(serve(int(sys.argv[1]), Secrets(bytes(32)), None, 1))"
        )
        command = [sys.executable, "-c", code, str(theirs.fileno())]
        done = subprocess.run(
            command, capture_output=True, pass_fds=[theirs.fileno()], timeout=20, check=False
        )
    assert done.returncode == 1
    assert b"its user can read it" in done.stderr


def test_what_lies_in_the_working_directory_is_no_module_of_the_custodian(tmp_path, monkeypatch):
    (tmp_path / "orjson.py").write_text("raise SystemExit('taken in')")
    monkeypatch.chdir(tmp_path)
    with custodian(tmp_path) as running:
        assert running.opened


def test_a_share_is_not_tried_as_a_pin(tmp_path, monkeypatch):
    """Tokens lock after a few wrong PINs, and officers are a few."""
    token = HsmSettings(module="m", token="t", state=str(tmp_path), pin_prompt=True)
    keeper = custodian_module.Custodian(None, CustodySettings(str(tmp_path), token=token))
    tried = []
    monkeypatch.setattr(custodian_module, "_log_in", tried.append)
    _, shares = kek.split(bytes(32), 2, 3)
    for given in (shares[0], f"share 1 of 3: {shares[1]}", shares[2].upper()):
        answer = keeper.offer({"pin": given})
        assert "that is a share; the token's PIN comes first" in answer["error"]
    assert (tried, keeper.pin) == ([], "")


@pytest.mark.parametrize("how", ["dies", "writes half", "ends before it is looked at"])
def test_a_pin_whose_trial_fails_is_not_taken_for_right(tmp_path, monkeypatch, how):
    """What a token's module does in a process of its own takes nothing else with it."""
    token = HsmSettings(module="m", token="t", state=str(tmp_path), pin_prompt=True)
    keeper = custodian_module.Custodian(None, CustodySettings(str(tmp_path), token=token))

    def work():
        if how == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        if how == "writes half":
            # As if it were killed while it writes what it found.
            for entry in Path("/proc/self/fd").iterdir():
                handle = int(entry.name)
                with contextlib.suppress(OSError):
                    if handle > 2 and stat.S_ISFIFO(os.fstat(handle).st_mode):
                        os.write(handle, b'{"done": "0')
            os._exit(1)
        return b""

    monkeypatch.setattr(custodian_module, "_log_in", lambda _: work())
    if how == "ends before it is looked at":
        looked = os.pidfd_open
        monkeypatch.setattr(os, "pidfd_open", lambda pid: time.sleep(0.3) or looked(pid))
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    handles = len(list(Path("/proc/self/fd").iterdir()))
    try:
        told = keeper.offer({"pin": "1234"})
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert len(list(Path("/proc/self/fd").iterdir())) <= handles
    if how == "ends before it is looked at":
        assert (keeper.pin, told["error"]) == ("1234", "")
    else:
        assert (keeper.pin, told["wants"]) == ("", "pin")
        assert "module failed" in told["error"]


def test_keyholders_end_with_their_custodian(source):
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = source.spawn(theirs, token=False)
        ours.settimeout(10)
        assert ours.recv(65536)
        source._process.kill()
        assert ours.recv(65536) == b""
    process.wait()


def test_a_call_that_hangs_costs_the_process_its_life_and_nobody_else_waits(source):
    async def scenario():
        pool = KeyholderPool(source, 1, call_limit=0.5)
        await pool.start()
        try:
            key = (await pool.generate(IDENTITY)).wrapped
            hung = pool.pids[0]
            os.kill(hung, signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(Unavailable, match="restarted"):
                await pool.sign_release(replace(STATEMENT, app=IDENTITY.app), key, [])
            assert time.monotonic() - began < 5
            await asyncio.sleep(1.5)  # a keyholder takes well under a second to start
            assert (await pool.generate(IDENTITY)).public_key
            assert pool.pids[0] != hung
            with pytest.raises(ProcessLookupError):
                os.kill(hung, 0)
        finally:
            await pool.stop()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_who_worked_is_started_again_at_once_however_often_it_is_killed(source):
    async def scenario():
        pool = KeyholderPool(source, 1)
        await pool.start()
        try:
            for _ in range(8):
                end = time.monotonic() + 4
                while True:
                    try:
                        await pool.generate(IDENTITY)
                        break
                    except Unavailable:
                        assert time.monotonic() < end
                        await asyncio.sleep(0.02)
                os.kill(pool.pids[0], signal.SIGKILL)
        finally:
            await pool.stop()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_process_that_gets_ready_while_the_daemon_stops_does_not_hold_it_up(source, monkeypatch):
    stopping, begun = [], asyncio.Event()

    class Link(supervisor.Link):
        def data_received(self, data):
            super().data_received(data)
            stopping.append(asyncio.ensure_future(pool.stop()))
            begun.set()

    async def scenario():
        nonlocal pool
        pool = KeyholderPool(source, 1)
        monkeypatch.setattr(supervisor, "Link", Link)
        starting = asyncio.ensure_future(pool.start())
        await begun.wait()
        async with asyncio.timeout(5):
            await stopping[0]
        starting.cancel()
        with pytest.raises(ProcessLookupError):
            os.kill(pool.pids[0], 0)

    pool = None
    asyncio.run(scenario())


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_the_logs_keyholder_is_replaced_within_the_call(source, how):
    async def make():
        pool = KeyholderPool(source, 1)
        await pool.start()
        try:
            return await pool.generate(log_key_identity())
        finally:
            await pool.stop()

    made = asyncio.run(make())
    keyholder = LogKeyholder(source, made.wrapped, call_limit=0.5)
    checkpoint = Checkpoint("test", 0, EMPTY_ROOT)
    try:
        first = keyholder.sign_checkpoint(checkpoint)
        os.kill(keyholder.pid, how)
        assert keyholder.sign_checkpoint(checkpoint) == first
    finally:
        keyholder.stop()


def test_a_call_to_a_process_that_has_just_gone_fails_at_once(source):
    async def scenario():
        pool = KeyholderPool(source, 1)
        await pool.start()
        try:
            link = pool._links[0]
            os.kill(pool.pids[0], signal.SIGKILL)
            while not link.closed:  # noqa: ASYNC110 - the very turn in which it closes
                await asyncio.sleep(0)
            # The pool has not noticed yet: nobody would ever answer.
            assert pool._links == [link]
            with pytest.raises(Unavailable, match="restarted"):
                # Not wait_for, which begins a turn later.
                async with asyncio.timeout(2):
                    await pool.generate(IDENTITY)
        finally:
            await pool.stop()

    asyncio.run(scenario())
