"""What bites in PKCS #11: the points of docs/decisions/0010-pkcs11.md that no other test shows."""

import asyncio
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    NoDigestInfo,
    Prehashed,
    decode_dss_signature,
)
from pkcs11 import Mechanism
from pkcs11.exceptions import OperationActive
from privyseald.keyholder import wire
from privyseald.keyholder.hsm import HsmKey
from privyseald.keyholder.keystore import SoftwareKeystore
from privyseald.keyholder.keystores import HsmDownError
from privyseald.keyholder.v1 import keyholder_pb2 as pb
from privyseald.keyholder.worker import Worker
from privyseald.model.errors import DomainError, FailedPrecondition, Unavailable
from privyseald.model.schemes import Algorithm, KeyPlace

from tests.contract.test_keyholders import STATEMENT
from tests.token_pool import IN_TOKEN, calls, identity, settings, sign, told_of, with_pool


def test_point_1_and_9_processes_with_a_session_each_sign_at_once(token, tmp_path):
    async def scenario(pool):
        made = await pool.generate(identity(), IN_TOKEN)
        pids = dict(pool.pids)
        await asyncio.gather(*(sign(pool, made, n + 1) for n in range(200)))
        assert pool.pids == pids, "a keyholder died"
        for pid in pids.values():
            assert re.search(r"^Threads:\s+1$", told_of(pid, "status"), re.MULTILINE)

    with_pool(token, tmp_path, scenario, processes=2)
    assert calls(token, "C_Sign") >= 200
    assert calls(token, "C_OpenSession") == 2
    assert calls(token, "C_Login") == 2


def test_point_2_another_programs_login_and_logout_end_no_session(token, tmp_path):
    async def scenario(pool):
        made = await pool.generate(identity(), IN_TOKEN)
        await sign(pool, made)
        pids = dict(pool.pids)
        await asyncio.to_thread(token.tool, "--list-objects")
        await sign(pool, made)
        assert pool.pids == pids

    with_pool(token, tmp_path, scenario)


def test_point_2_keys_that_were_open_sign_on_when_the_session_is_made_anew(token, tmp_path):
    """To adopt and to destroy, the process logs in again: what it had open is found again."""
    token.tool("--keypairgen", "--key-type", "EC:prime256v1", "--label", "corp", "--id", "01")

    async def scenario(pool):
        made = await pool.generate(identity(), IN_TOKEN)
        await sign(pool, made)
        pids = dict(pool.pids)
        corp = KeyPlace(token=True, uri="pkcs11:object=corp")
        adopted = await pool.generate(identity(version=2), corp)
        for each in (made, adopted, made):
            await sign(pool, each)
        await pool.destroy(adopted.wrapped)
        await sign(pool, made)
        with pytest.raises(FailedPrecondition, match="no private key"):
            await sign(pool, adopted)
        assert pool.pids == pids

    with_pool(token, tmp_path, scenario)


def failing(error):
    def refuse(*_args, **_named):
        raise error

    return SimpleNamespace(sign=refuse)


def test_point_4_a_session_that_failed_is_not_used_on():
    key = HsmKey(failing(OperationActive()), None, Algorithm.ED25519)
    store = SimpleNamespace(open=lambda _: key, software=SoftwareKeystore(b"k" * 32))
    worker = Worker(store)
    made = store.software.generate(identity(Algorithm.ED25519))
    call = pb.SignRelease(
        content=wire.content_to_wire(STATEMENT), statement_key=wire.key_to_wire(made.wrapped)
    )
    answer = worker.answer(pb.Request(id=1, sign_release=call))
    assert answer.failure.kind == pb.Failure.KIND_TOKEN_DOWN
    assert worker.token_failed, "the process would go on with a poisoned session"


def test_point_5_modules_are_loaded_after_the_last_fork(token, tmp_path):
    async def scenario(pool):
        pid = pool.pids[1]  # after the one without the token
        assert "pkcs11-spy.so" in told_of(pid, "maps")
        parent = re.search(r"^PPid:\s+(\d+)", told_of(pid, "status"), re.MULTILINE)[1]
        for other in (parent, os.getpid()):
            assert "pkcs11-spy.so" not in told_of(other, "maps")

    with_pool(token, tmp_path, scenario)


class Token:
    """A token of pyca's keys that does what real ones were seen to do."""

    def __init__(self, private, spoil=lambda signature: signature):
        self.private, self.spoil = private, spoil
        self.asked = []

    def sign(self, data, mechanism):
        self.asked.append((mechanism, data))
        if mechanism is Mechanism.ECDSA:
            # SoftHSM cuts off what is longer than the curve, and signs the rest.
            digest = data[:32]
            der = self.private.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256())))
            made = b"".join(part.to_bytes(32) for part in decode_dss_signature(der))
        elif mechanism is Mechanism.RSA_PKCS:
            made = self.private.sign(data, padding.PKCS1v15(), NoDigestInfo())
        else:
            made = self.private.sign(data)
        return self.spoil(made)


RSA = rsa.generate_private_key(65537, 2048)
PAIRS = {
    Algorithm.RSA_2048: RSA,
    Algorithm.P256: ec.generate_private_key(ec.SECP256R1()),
    Algorithm.ED25519: ed25519.Ed25519PrivateKey.generate(),
}


def test_point_6_an_rsa_digest_goes_with_its_digest_info():
    token = Token(RSA)
    signature = HsmKey(token, RSA.public_key(), Algorithm.RSA_2048).sign(b"message")
    RSA.public_key().verify(signature, b"message", padding.PKCS1v15(), hashes.SHA256())
    ((mechanism, data),) = token.asked
    # RFC 8017 section 9.2, note 1.
    assert mechanism is Mechanism.RSA_PKCS
    assert data[:19].hex() == "3031300d060960864801650304020105000420"
    assert len(data) == 51


@pytest.mark.parametrize("length", [0, 31, 33, 51, 256])
def test_point_6_no_other_length_is_a_digest(length):
    token = Token(RSA)
    key = HsmKey(token, RSA.public_key(), Algorithm.RSA_2048)
    for method in (key.sign_rsa_digest, key.sign_rsa_bare):
        with pytest.raises(Exception, match="scheme needs an RSA key"):
            method(b"d" * length)
    assert not token.asked


def test_point_7_a_long_message_is_signed_whole_and_as_der():
    private = PAIRS[Algorithm.P256]
    token = Token(private)
    message = os.urandom(1000)
    signature = HsmKey(token, private.public_key(), Algorithm.P256).sign(message)
    private.public_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        private.public_key().verify(signature, message[:32], ec.ECDSA(hashes.SHA256()))
    assert [(m, len(d)) for m, d in token.asked] == [(Mechanism.ECDSA, 32)]


@pytest.mark.parametrize("length", [0, 63, 65, 72])
def test_point_7_what_is_not_r_and_s_is_refused(length):
    private = PAIRS[Algorithm.P256]
    token = Token(private, lambda _: b"s" * length)
    with pytest.raises(HsmDownError, match="malformed signature"):
        HsmKey(token, private.public_key(), Algorithm.P256).sign(b"m")


def test_point_8_no_flag_for_a_hash_is_relied_on():
    private = PAIRS[Algorithm.ED25519]
    token = Token(private)
    HsmKey(token, private.public_key(), Algorithm.ED25519).sign(b"m" * 64)
    # The mechanism alone, without parameters: pure Ed25519 of the bytes.
    assert token.asked == [(Mechanism.EDDSA, b"m" * 64)]


def test_point_10_of_two_tokens_of_one_label_the_serial_says_which(token, tmp_path):
    token.run(
        "--init-token", "--free", "--label", token.label, "--so-pin", "1234", "--pin", token.pin
    )
    shown = token.run("--show-slots")
    serials = re.findall(r"Serial number: +(\S+)", shown)
    assert len(serials) == 2

    async def make(pool):
        made = await pool.generate(identity(), IN_TOKEN)
        await sign(pool, made)
        return made

    made = [with_pool(token, tmp_path, make, serial=serial) for serial in serials]
    for one, serial in zip(made, serials, strict=True):
        assert f"serial={serial}" in one.protection["uri"]

    async def other(pool):
        with pytest.raises(DomainError):
            await sign(pool, made[1])
        elsewhere = KeyPlace(token=True, uri=f"pkcs11:serial={serials[1]};object=x")
        with pytest.raises(FailedPrecondition, match="names another token"):
            await pool.generate(identity(version=2), elsewhere)

    with_pool(token, tmp_path, other, serial=serials[0])

    async def which(pool):
        with pytest.raises(Unavailable):
            await pool.generate(identity(version=3), IN_TOKEN)

    with_pool(token, tmp_path, which)


def test_point_13_a_module_under_another_path_is_one_module(token, tmp_path):
    link = tmp_path / "module.so"
    link.symlink_to(token.module)

    async def scenario(pool):
        await sign(pool, await pool.generate(identity(), IN_TOKEN))

    with_pool(token, tmp_path, scenario, module=str(link))


def test_point_14_a_key_that_could_leave_the_token_is_refused(token, tmp_path):
    token.tool(
        *("--keypairgen", "--key-type", "EC:prime256v1", "--label", "loose", "--extractable")
    )

    async def scenario(pool):
        with pytest.raises(FailedPrecondition, match="must be sensitive"):
            await pool.generate(identity(), KeyPlace(token=True, uri="pkcs11:object=loose"))
        made = await pool.generate(identity(version=2), IN_TOKEN)
        names = ("sensitive", "always_sensitive", "never_extractable", "local")
        assert [made.protection[name] for name in names] == ["true"] * 4
        assert made.protection["extractable"] == "false"

    with_pool(token, tmp_path, scenario)


@pytest.mark.parametrize("algorithm", PAIRS)
@pytest.mark.parametrize("place", [0, 20, -1])
def test_point_15_a_signature_that_does_not_verify_stays_inside(algorithm, place):
    def flip(signature):
        spoiled = bytearray(signature)
        spoiled[place] ^= 1
        return bytes(spoiled)

    private = PAIRS[algorithm]
    key = HsmKey(Token(private, flip), private.public_key(), algorithm)
    with pytest.raises(HsmDownError, match="does not verify"):
        key.sign(b"message")
    if algorithm.rsa_bits:
        for method in (key.sign_rsa_digest, key.sign_rsa_bare):
            with pytest.raises(HsmDownError, match="does not verify"):
                method(b"d" * 32)


def test_a_key_that_is_not_found_out_is_not_destroyed(token, tmp_path):
    """The log must not tell that a private key is gone that is still in the token."""
    named = identity()

    async def scenario(pool):
        made = await pool.generate(named, IN_TOKEN)
        # Without its public object nobody can say whether it is the one.
        token.tool("--delete-object", "--type", "pubkey", "--label", named.name)
        with pytest.raises(FailedPrecondition, match="public part"):
            await pool.destroy(made.wrapped)
        assert "Private Key Object" in token.tool("--list-objects", "--type", "privkey")
        token.tool("--delete-object", "--type", "privkey", "--label", named.name)
        await pool.destroy(made.wrapped)

        token.tool("--keypairgen", "--key-type", "EC:prime256v1", "--label", "corp", "--id", "01")
        corp = KeyPlace(token=True, uri="pkcs11:object=corp")
        adopted = await pool.generate(named, corp)
        token.tool("--keypairgen", "--key-type", "EC:prime256v1", "--label", "corp", "--id", "02")
        with pytest.raises(FailedPrecondition, match="more than one"):
            await pool.destroy(adopted.wrapped)
        token.tool("--delete-object", "--type", "privkey", "--label", "corp", "--id", "01")
        with pytest.raises(FailedPrecondition, match="another key is at its address"):
            await pool.destroy(adopted.wrapped)

    with_pool(token, tmp_path, scenario)


UNFINISHED = """
import json, os, sys
from privyseald.keyholder import hsm
from privyseald.keyholder.keystore import KeyUnusableError, SoftwareKeystore
from privyseald.keyholder.keystores import HsmSettings
from privyseald.model.schemes import Algorithm, KeyIdentity, Scheme

software = SoftwareKeystore(os.urandom(32))
store = hsm.HsmKeystore(HsmSettings(**json.loads(sys.argv[1])), software)
store.connect()
wanted = KeyIdentity("a", "statement", 1, Scheme.STATEMENT_V1, Algorithm.P256)
kept = store.generate(wanted)

def refused(*_, **__):
    raise KeyUnusableError("as if it could leave the token")

hsm.assert_attributes = refused
try:
    store.generate(wanted)
except KeyUnusableError as error:
    print(error)
"""


def test_of_a_key_that_could_not_be_made_whole_nothing_stays(token, tmp_path):
    given = json.dumps(asdict(settings(token, tmp_path)))
    done = subprocess.run(
        [sys.executable, "-c", UNFINISHED, given],
        env={**os.environ, **token.env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "as if it could leave the token\n", done.stderr
    listed = token.tool("--list-objects")
    assert listed.count("Private Key Object") == listed.count("Public Key Object") == 1


@pytest.mark.parametrize("source", ["pin_file", "pin_env", "pin_credential"])
def test_a_pin_comes_from_where_the_settings_say(token, tmp_path, monkeypatch, source):
    where = {"pin_file": str(token.pin_file), "pin_env": "THE_PIN", "pin_credential": "pin"}
    monkeypatch.setenv("THE_PIN", token.pin if source == "pin_env" else "wrong")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(token.pin_file.parent))
    given = {"pin_file": "", source: where[source]}

    async def scenario(pool):
        await sign(pool, await pool.generate(identity(), IN_TOKEN))

    with_pool(token, tmp_path, scenario, **given)
