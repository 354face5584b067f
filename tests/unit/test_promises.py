"""Promises that no behaviour shows until the day they are needed."""

import asyncio
import os
import subprocess
import sys

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from privyseal.verify.statement import Statement
from privyseald.adapters.sql_engine import make_engine
from privyseald.config import Settings
from privyseald.keyholder.keystore import LoadedKey, _new_private_key
from privyseald.model.schemes import Algorithm
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from tests.simulator import APP


def test_a_commit_is_on_the_disk_before_anybody_is_answered(tmp_path):
    engine = make_engine(f"sqlite:///{tmp_path / 'a.db'}")
    for _ in range(2):
        with engine.connect() as connection:
            ask = connection.exec_driver_sql
            assert ask("PRAGMA journal_mode").scalar_one() == "wal"
            assert ask("PRAGMA synchronous").scalar_one() == 2, "FULL"
            assert ask("PRAGMA foreign_keys").scalar_one() == 1
            assert ask("PRAGMA secure_delete").scalar_one() == 1
    engine.dispose()


def test_those_who_ask_at_once_share_a_commit(world):
    commits = []
    event.listen(world.store._engine, "commit", commits.append)

    async def sign(number):
        wanted = Statement(
            app=APP,
            version=f"v{number}",
            counter=0,
            bundle_sha256=os.urandom(32),
            bundle_length=1,
            manifest_sha256=b"m" * 32,
            native_ranges=(),
            source_commit="",
            signed_at=0,
            log_origin="",
        )
        return await world.signing.sign(world.olivia, world.request(), wanted)

    async def many():
        return await asyncio.gather(*map(sign, range(60)))

    before = len(world.leaves("release.sign"))
    commits.clear()
    assert all(world.run(many()))
    assert len(world.leaves("release.sign")) == before + 60
    assert len(commits) < 30


CONFINED = """
import ctypes, resource
from privyseald.keyholder.confine import confine
confine(network=True)
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
print(ctypes.CDLL(None).prctl(39, 0, 0, 0, 0))
"""


def test_nobody_reads_a_keyholders_memory_through_a_dump():
    """PR_GET_DUMPABLE is 0, no core file is written, PR_GET_NO_NEW_PRIVS is 1."""
    done = subprocess.run(
        [sys.executable, "-c", CONFINED], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "0 0 0\n1\n"


def test_a_running_keyholder_is_so_confined(daemon):
    pids = daemon.keyholders()
    assert len(pids) >= 2
    for pid in pids:
        with open(f"/proc/{pid}/limits") as limits:
            (core,) = (line for line in limits if line.startswith("Max core file size"))
        assert core.split()[4:6] == ["0", "0"]
        with open(f"/proc/{pid}/status") as status:
            assert "NoNewPrivs:\t1\n" in status.read()


KINDS = (
    ed25519.Ed25519PrivateKey,
    mldsa.MLDSA65PrivateKey,
    ec.EllipticCurvePrivateKey,
    rsa.RSAPrivateKey,
)


def faulty(real):
    """Return a private key whose signatures have a bit flipped, as a fault in memory makes them."""
    (kind,) = (kind for kind in KINDS if isinstance(real, kind))

    class Faulty:
        def sign(self, *arguments):
            made = bytearray(real.sign(*arguments))
            made[len(made) // 2] ^= 1
            return bytes(made)

        def public_key(self):
            return real.public_key()

    kind.register(Faulty)
    return Faulty()


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_signature_that_a_fault_made_does_not_leave(algorithm):
    """Of RSA and of Ed25519 one of these can give the private key away."""
    real = _new_private_key(algorithm)
    assert LoadedKey(real).sign(b"message")
    key = LoadedKey(faulty(real))
    with pytest.raises(InvalidSignature):
        key.sign(b"message")
    if algorithm.rsa_bits:
        with pytest.raises(InvalidSignature):
            key.sign_rsa_digest(b"d" * 32)
        with pytest.raises((InvalidSignature, ValueError)):
            key.sign_rsa_bare(b"d" * 32)


def test_what_only_reads_cannot_write_and_waits_for_no_writer(tmp_path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    writing, reading = make_engine(url), make_engine(url, reads_only=True)
    with writing.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (n)")
    with writing.begin() as writer, reading.begin() as reader:
        writer.exec_driver_sql("INSERT INTO t VALUES (1)")
        assert reader.exec_driver_sql("SELECT count(*) FROM t").scalar_one() == 0
        with pytest.raises(OperationalError, match="readonly"):
            reader.exec_driver_sql("INSERT INTO t VALUES (2)")
    writing.dispose()
    reading.dispose()


def test_a_database_that_is_not_supported_is_no_setting(tmp_path):
    with pytest.raises(ValueError, match="must be sqlite:///FILE"):
        Settings(data=tmp_path, database="postgresql://db.example/privyseal")
    assert Settings(data=tmp_path, database="sqlite:////srv/a.db").database_url.endswith("a.db")
