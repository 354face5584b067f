"""kill -9 of the daemon at random instants: what a client received is in the log."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import grpc
import pytest
from privyseal.connection import Connection, load_profile
from privyseal.v1 import log_service_pb2 as log_pb
from privyseal.v1 import signing_service_pb2 as pb
from privyseal.verify.merkle import leaf_hash, root_of
from privyseal.verify.note import NoteVerifier, open_checkpoint
from privyseal.verify.receipt import verify_receipt

from tests.conftest import Daemon


def load(profile, app, received, stop):
    with Connection(profile) as to:
        while not stop.is_set():
            request = pb.SignReleaseRequest(
                parent=f"apps/{app}",
                version=uuid.uuid4().hex,
                bundle_sha256=os.urandom(32),
                bundle_length=1,
                manifest_sha256=os.urandom(32),
                request_id=str(uuid.uuid4()),
            )
            try:
                received.append(to.signing.SignRelease(request, timeout=5).receipt)
            except grpc.RpcError:
                stop.wait(0.01)


def keep(daemon, ended, started):
    """Start it again whenever it ends, as `Restart=always` in deploy/systemd does: no more."""
    while True:
        while daemon.process.poll() is None:
            if ended.wait(0.01):
                return
        daemon.log.close()
        daemon.start()
        started.release()


def campaign(tmp_path, kills):
    daemon = Daemon(tmp_path / "data")
    daemon.init()
    daemon.start()
    ended, started = threading.Event(), threading.Semaphore(0)
    keeper = threading.Thread(target=keep, args=(daemon, ended, started))
    keeper.start()
    try:
        return kill_it(daemon, kills, started)
    finally:
        ended.set()
        keeper.join()
        daemon.stop(signal.SIGKILL)


def kill_it(daemon, kills, started):
    daemon.ok("app", "create", "--app-id", "app")
    profile = load_profile(str(daemon.data / "admin/profile.toml"))
    received, chance = [], random.Random(20261124)
    for _ in range(kills):
        stop = threading.Event()
        callers = [
            threading.Thread(target=load, args=(profile, "app", received, stop)) for _ in range(4)
        ]
        for caller in callers:
            caller.start()
        before, end = len(received), time.monotonic() + 30
        while len(received) == before and time.monotonic() < end:
            time.sleep(0.01)
        stop.wait(chance.random() * 0.6)
        os.kill(daemon.process.pid, signal.SIGKILL)
        stop.set()
        for caller in callers:
            caller.join()
        assert len(received) > before, "no load before the kill"
        assert started.acquire(timeout=30), "it did not start again"
    verifier = NoteVerifier.parse((daemon.data / "log.vkey").read_text())
    with Connection(profile) as to:
        leaves = []
        note = to.call(to.log.GetCheckpoint, log_pb.GetCheckpointRequest()).checkpoint
        head = open_checkpoint(note, verifier)
        while len(leaves) < head.size:
            request = log_pb.ListEntriesRequest(start=len(leaves), page_size=1000)
            leaves += [e.leaf for e in to.call(to.log.ListEntries, request).entries]
    hashes = [leaf_hash(leaf) for leaf in leaves]
    assert root_of(hashes[: head.size]) == head.root
    roots = {}
    for data in received:
        receipt = verify_receipt(data, log=verifier)
        size = receipt.checkpoint.size
        if size not in roots:
            roots[size] = root_of(hashes[:size])
        assert roots[size] == receipt.checkpoint.root, "a checkpoint the log does not extend"
    return len(received)


def test_ten_kills_lose_nothing(tmp_path):
    assert campaign(tmp_path, 10) > 10


@pytest.mark.long
def test_two_hundred_kills_lose_nothing(tmp_path):
    assert campaign(tmp_path, 200) > 200


def test_a_killed_keyholder_comes_back_and_the_daemon_stays(tmp_path):
    daemon = Daemon(tmp_path / "data")
    daemon.init()
    daemon.start()
    daemon.ok("app", "create", "--app-id", "app")
    text = daemon.log_text()
    import json

    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    for pid in [line["pid"] for line in lines if line["event"] == "keyholder ready"]:
        os.kill(pid, signal.SIGKILL)
    made = [daemon.run("app", "create", "--app-id", f"app{n}").code for n in range(3)]
    assert made[-1] == 0
    assert daemon.stop() == 0


def test_no_private_key_outside_the_keyholder(tmp_path):
    """A canary: the key's own secret bytes, looked for wherever they must not be."""
    from cryptography.hazmat.primitives import serialization
    from privyseald.adapters.repositories import Db
    from privyseald.adapters.sql_engine import make_engine
    from privyseald.adapters.sql_transaction import SqlView
    from privyseald.keyholder.keystore import SoftwareKeystore

    daemon = Daemon(tmp_path / "data")
    daemon.init()
    daemon.start()
    daemon.ok("app", "create", "--app-id", "app")
    daemon.ok(
        *("live-update", "generate-signing-key", "--app-id", "app", "--public", tmp_path / "p.pem")
    )
    profile = load_profile(str(daemon.data / "admin/profile.toml"))
    received, stop = [], threading.Event()
    caller = threading.Thread(target=load, args=(profile, "app", received, stop))
    caller.start()
    stop.wait(1)
    stop.set()
    caller.join()
    places = {"client memory": client_memory(daemon)}
    keystore = SoftwareKeystore((daemon.data / "kek").read_bytes())
    engine = make_engine(f"sqlite:///{daemon.data / 'privyseal.db'}")
    canaries = [(daemon.data / "kek").read_bytes()]
    with engine.connect() as connection:
        for key in SqlView(Db(connection)).keys.list("app"):
            private = keystore.open(key.versions[0].wrapped)._private
            if hasattr(private, "private_bytes_raw"):
                canaries.append(private.private_bytes_raw())
                continue
            numbers = private.private_numbers()
            for number in (numbers.p, numbers.q, numbers.d):
                raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
                # OpenSSL keeps big numbers in little-endian words.
                canaries += [raw[8:40], raw[::-1][8:40]]
            der = private.private_bytes(
                serialization.Encoding.DER,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            canaries.append(der[600:664])  # past the modulus, which is public
    engine.dispose()
    assert len(canaries) == 9
    assert len(received) > 10

    # Where keys are, the search finds them: without that it would prove nothing elsewhere.
    holders = b"".join(memory(pid) for pid in daemon.keyholders())
    found = [canary in holders for canary in canaries]
    assert found[0], "the key-encryption key"
    assert any(found[1:-1]), "private keys"
    places["api memory"] = memory(daemon.process.pid)
    places["answers"] = b"".join(received)
    for path in daemon.data.rglob("*"):
        if path.is_file() and path.name != "kek":
            places[path.name] = path.read_bytes()
    for place in ("api memory", "client memory"):
        found = b"apps/app/keys/statement-v1" in places[place]
        assert found, "the search must find what is there"
    for place, content in places.items():
        for canary in canaries:
            assert canary not in content, f"private key material in {place}"
    assert daemon.stop() == 0


CLIENT = """
import os, sys, uuid
from privyseal.connection import Connection, load_profile
from privyseal.v1 import key_service_pb2, signing_service_pb2 as pb
with Connection(load_profile(sys.argv[1])) as to:
    request = pb.SignReleaseRequest(
        parent="apps/app", version=uuid.uuid4().hex, bundle_sha256=os.urandom(32),
        bundle_length=1, manifest_sha256=os.urandom(32),
    )
    signed = to.call(to.signing.SignRelease, request)
    keys = to.call(to.keys.ListKeys, key_service_pb2.ListKeysRequest(parent="apps/app"))
    print("signed", flush=True)
    sys.stdin.read()
"""


def client_memory(daemon):
    """Return the memory of a client that has asked for keys and a signature."""
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(daemon.data / "admin/profile.toml")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=daemon.client_env(),
    )
    with client:
        assert client.stdout.readline() == b"signed\n"
        return memory(client.pid)


def memory(pid):
    found = []
    proc = Path(f"/proc/{pid}")
    with (proc / "maps").open() as maps, (proc / "mem").open("rb") as mem:
        for line in maps:
            span, rights = line.split()[:2]
            start, end = (int(part, 16) for part in span.split("-"))
            if rights.startswith("rw") and "[v" not in line:
                mem.seek(start)
                try:
                    found.append(mem.read(end - start))
                except OSError:
                    continue
    return b"".join(found)
