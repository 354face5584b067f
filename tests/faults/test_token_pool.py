"""The processes that hold a token's session, without a daemon around them."""

import asyncio
import contextlib
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from privyseald.keyholder import wire
from privyseald.keyholder.keystore import TOKEN
from privyseald.keyholder.keystores import HsmSettings
from privyseald.keyholder.supervisor import KeyholderPool
from privyseald.keyholder.v1 import keyholder_pb2 as kpb
from privyseald.model.errors import FailedPrecondition, Unavailable
from privyseald.model.schemes import Algorithm, KeyIdentity, KeyPlace, Scheme, WrappedKey

from tests.conftest import custodian
from tests.contract.test_keyholders import STATEMENT

_PLAIN = NoEncryption()
IDENTITY = KeyIdentity("a", "k", 1, Scheme.STATEMENT_V1, Algorithm.P256)


@pytest.fixture
def settings(softhsm, tmp_path, monkeypatch):
    for name, value in softhsm.env.items():
        monkeypatch.setenv(name, value)
    return HsmSettings(softhsm.module, softhsm.label, str(tmp_path), pin_file=str(softhsm.pin_file))


def test_a_key_that_came_back_with_other_attributes_does_not_sign(softhsm, tmp_path, settings):
    """Whoever has the token's PIN can put it back so that it can be read."""
    private = ec.generate_private_key(ec.SECP256R1())
    for name, part, encoded in (
        ("private", "privkey", private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, _PLAIN)),
        (
            "public",
            "pubkey",
            private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        ),
    ):
        (tmp_path / name).write_bytes(encoded)
        softhsm.tool(
            *("--write-object", tmp_path / name, "--type", part, "--id", "77", "--label", "corp"),
            *(("--sensitive",) if part == "privkey" else ()),
        )

    def put_back(*attributes):
        softhsm.tool("--delete-object", "--type", "privkey", "--id", "77")
        softhsm.tool(
            *("--write-object", tmp_path / "private", "--type", "privkey", "--id", "77"),
            *("--label", "corp", *attributes),
        )

    async def scenario(source):
        place = KeyPlace(token=True, uri="pkcs11:id=%77")
        for attributes in ((), ("--sensitive",), ("--extractable",)):
            pool = KeyholderPool(source, 1, token=True)
            await pool.start()
            try:
                if not attributes:
                    adopted = await pool.generate(IDENTITY, place)
                elif "--extractable" in attributes:
                    with pytest.raises(FailedPrecondition, match="give the private key away"):
                        await pool.sign_release(STATEMENT, adopted.wrapped, [])
                else:
                    await pool.sign_release(STATEMENT, adopted.wrapped, [])
            finally:
                await pool.stop()
            put_back(*(("--sensitive",) if not attributes else ("--extractable", "--sensitive")))

    with custodian(tmp_path, settings) as source:
        asyncio.run(scenario(source))


def test_a_key_that_was_made_in_a_token_signs_and_does_nothing_else(softhsm, tmp_path, settings):
    async def scenario(source):
        pool = KeyholderPool(source, 1, token=True)
        await pool.start()
        try:
            for version, algorithm in ((1, Algorithm.RSA_2048), (2, Algorithm.P256)):
                made = replace(IDENTITY, app="only-signs", version=version, algorithm=algorithm)
                await pool.generate(made, KeyPlace(token=True))
        finally:
            await pool.stop()

    with custodian(tmp_path, settings) as source:
        asyncio.run(scenario(source))
    listed = softhsm.tool("--list-objects", "--type", "privkey")
    made = [told for told in listed.split("Private Key Object") if "apps/only-signs/" in told]
    assert len(made) == 2
    for told in made:
        lines = dict(line.strip().split(":", 1) for line in told.splitlines() if ":" in line)
        assert lines["Usage"].strip() == "sign"
        assert lines["Access"].strip() == "sensitive, always sensitive, never extractable, local"


def test_another_key_in_the_place_of_one_does_not_sign(softhsm, tmp_path, settings):
    async def scenario(source):
        pool = KeyholderPool(source, 1, token=True)
        await pool.start()
        identity = replace(IDENTITY, version=77)
        made = (await pool.generate(identity, KeyPlace(token=True))).wrapped
        await pool.stop()
        listed = softhsm.tool("--list-objects", "--type", "privkey")
        key_id = listed.partition(identity.name)[2].partition("ID:")[2].split()[0]
        for part in ("privkey", "pubkey"):
            softhsm.tool("--delete-object", "--type", part, "--id", key_id)
        softhsm.tool(
            *("--keypairgen", "--key-type", "EC:prime256v1", "--id", key_id),
            *("--label", identity.name),
        )
        pool = KeyholderPool(source, 1, token=True)
        await pool.start()
        try:
            with pytest.raises(FailedPrecondition, match="public key on record"):
                await pool.sign_release(STATEMENT, made, [])
        finally:
            await pool.stop()

    with custodian(tmp_path, settings) as source:
        asyncio.run(scenario(source))


class Broken:
    """Starts keyholders whose token takes a login, and signs nothing until it is mended."""

    def __init__(self):
        self.mended = False

    def spawn(self, link, *, token):
        mine = link.dup()
        thread = threading.Thread(target=self._serve, args=(mine, token), daemon=True)
        thread.start()
        return SimpleNamespace(pid=0, kill=lambda: None, wait=lambda: None)

    def _serve(self, link, token):
        with link, contextlib.suppress(OSError):
            link.sendall(wire.frame(kpb.Response(ready=kpb.Ready()).SerializeToString()))
            buffer = bytearray()
            while chunk := link.recv(65536):
                buffer += chunk
                for message in wire.unframe(buffer):
                    answer = kpb.Response(id=kpb.Request.FromString(message).id)
                    if self.mended:
                        answer.signed_successor.signature = b"s"
                    else:
                        answer.failure.kind = kpb.Failure.KIND_TOKEN_DOWN
                    link.sendall(wire.frame(answer.SerializeToString()))
                    if not self.mended:
                        return


def test_a_token_that_takes_a_login_and_signs_nothing_does_not_serve():
    source = Broken()
    key = WrappedKey(KeyIdentity("a", "k", 1, Scheme.MINISIGN, Algorithm.ED25519), TOKEN + b"x")

    async def scenario():
        pool = KeyholderPool(source, 1, token=True)
        await pool.start()
        try:
            assert pool.token_serving
            for _ in range(3):
                with pytest.raises(Unavailable, match="token cannot be used"):
                    await pool.sign_successor(key, key, b"", 1)
                for _ in range(20):
                    await asyncio.sleep(0.05)
                    assert not pool.token_serving
            assert pool.serving
            source.mended = True
            await pool.sign_successor(key, key, b"", 1)
            assert pool.token_serving
        finally:
            await pool.stop()

    asyncio.run(asyncio.wait_for(scenario(), 30))


async def becomes(pool, seconds, *, serving):
    for _ in range(seconds * 20):
        if pool.token_serving is serving:
            return True
        await asyncio.sleep(0.05)
    return False


def test_a_token_that_goes_as_its_first_key_is_made_is_missed_by_every_process(
    softhsm, tmp_path, settings
):
    async def scenario(source):
        pool = KeyholderPool(source, 2, token=True)
        await pool.start()
        try:
            await pool.generate(IDENTITY, KeyPlace(token=True))
            assert pool.token_serving
            softhsm.remove()
            try:
                # Nobody asks for a signature.
                assert await becomes(pool, 4, serving=False)
            finally:
                softhsm.put_back()
            assert await becomes(pool, 5, serving=True)
        finally:
            await pool.stop()

    with custodian(tmp_path, settings) as source:
        asyncio.run(scenario(source))


def test_a_token_that_goes_as_its_keyholder_comes_is_down_and_lacks_no_key(
    softhsm, tmp_path, settings
):
    async def scenario(source):
        pool = KeyholderPool(source, 1, token=True)
        await pool.start()
        try:
            made = await pool.generate(IDENTITY, KeyPlace(token=True))
            softhsm.remove()
            try:
                with pytest.raises(Unavailable, match="try again"):
                    await pool.sign_release(STATEMENT, made.wrapped, [])
            finally:
                softhsm.put_back()
            end = time.monotonic() + 5
            while True:
                try:
                    await pool.sign_release(STATEMENT, made.wrapped, [])
                    break
                except Unavailable:
                    assert time.monotonic() < end
                    await asyncio.sleep(0.1)
        finally:
            await pool.stop()

    with custodian(tmp_path, settings) as source:
        asyncio.run(scenario(source))


def test_a_token_with_few_sessions_has_few_processes():
    started = []

    class Counts(Broken):
        def spawn(self, link, *, token):
            started.append(token)
            return super().spawn(link, token=token)

    async def scenario(source):
        pool = KeyholderPool(source, 3, token=True, sessions=1)
        await pool.start()
        try:
            await asyncio.sleep(0.1)
            assert sorted(started) == [False, False, False, True]
            assert pool.token_serving
        finally:
            await pool.stop()

    asyncio.run(scenario(Counts()))
