"""Successor records, chains of them, and what the log tells of a promotion."""

import dataclasses
import hashlib
import json
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from privyseal.cli.log import proved_promotions
from privyseal.v1 import log_service_pb2 as log_pb
from privyseal.verify.canonical import canonical
from privyseal.verify.errors import VerificationError
from privyseal.verify.keys import spki_der
from privyseal.verify.merkle import leaf_hash, node_hash
from privyseal.verify.note import Checkpoint, NoteVerifier, format_note
from privyseal.verify.successor import (
    MAX_CHAIN,
    MAX_RECORD,
    PROMOTE_ACT,
    Logged,
    Successor,
    follow,
    open_record,
    read_record,
    signing_input,
    verify_logged,
)
from privyseal.verify.successor import envelope as record_of

LOG_KEY = ed25519.Ed25519PrivateKey.generate()
KEY = ed25519.Ed25519PrivateKey.generate()
OTHER = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
LOG = NoteVerifier("example.com/log", LOG_KEY.public_key().public_bytes_raw())


def record(key=KEY, new=RSA, *, old=1, to=2, app="a", name="minisign"):
    made = Successor(
        app=app,
        key=name,
        old=old,
        new=to,
        old_sha256=_digest(key),
        new_public_key=spki_der(new.public_key()),
        at=1_800_000_000,
    )
    return made, record_of(made, _sign(key, signing_input(made)))


def _digest(key):
    return hashlib.sha256(spki_der(key.public_key())).digest()


def _sign(key, message):
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(message)


def test_a_successor_is_signed_by_the_key_that_is_trusted():
    made, data = record()
    assert open_record(data, KEY.public_key()) == made
    forged = record_of(made, OTHER.sign(signing_input(made)))
    with pytest.raises(VerificationError, match="does not verify"):
        open_record(forged, KEY.public_key())
    with pytest.raises(VerificationError, match="another old key"):
        open_record(data, OTHER.public_key())


def test_nothing_is_handed_on_from_a_key_that_did_not_sign():
    """A compromised key's record is made unsigned, to tell of the promotion."""
    made, _ = record()
    unsigned = record_of(made, b"")
    assert read_record(unsigned) == (made, False)
    with pytest.raises(VerificationError, match="did not sign for version 2"):
        open_record(unsigned, KEY.public_key())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"payloadType": "application/vnd.privyseal.statement.v1+json"}, "not a successor record"),
        ({"signatures": [{"sig": "AAAA"}, {"sig": "AAAA"}]}, "not a successor record"),
        ({"signatures": [{"sig": "***"}]}, "lacks a field"),
        ({"payload": None}, "lacks a field"),
        ({"more": "x" * MAX_RECORD}, "too long"),
    ],
)
def test_a_record_has_one_form(changes, why):
    _, data = record()
    with pytest.raises(VerificationError, match=why):
        open_record(canonical({**json.loads(data), **changes}), KEY.public_key())


def test_a_chain_is_of_bounded_length():
    _, data = record()
    with pytest.raises(VerificationError, match="too many"):
        follow([data] * (MAX_CHAIN + 1), KEY.public_key())


def test_a_chain_is_of_one_key_and_lacks_no_link():
    first, second = record()[1], record(RSA, OTHER, old=2, to=3)[1]
    assert [step.new for step in follow([first, second], KEY.public_key())] == [2, 3]
    gap = record(OTHER, OTHER, old=2, to=3)[1]
    with pytest.raises(VerificationError, match="lacks a record"):
        follow([first, gap], RSA.public_key())
    for stranger in ({"app": "b"}, {"name": "other"}):
        with pytest.raises(VerificationError, match="several keys"):
            follow([first, record(RSA, OTHER, old=2, to=3, **stranger)[1]], KEY.public_key())


def logged(data, **members):
    leaf = canonical(
        {
            "act": PROMOTE_ACT,
            "keyVersion": "apps/a/keys/minisign/versions/2",
            "successor": data.decode(),
            **members,
        }
    )
    other = leaf_hash(b"another")
    text = Checkpoint(LOG.name, 2, node_hash(leaf_hash(leaf), other)).text()
    note = format_note(text, LOG.name, LOG.public_key, LOG_KEY.sign(text.encode()))
    return Logged(leaf, 0, (other,), note)


def test_the_log_tells_of_a_promotion_by_this_very_record():
    data = record()[1]
    verify_logged(data, logged(data), LOG)
    for members in (
        {"act": "release.sign"},
        {"keyVersion": "apps/a/keys/minisign/versions/3"},
        {"keyVersion": "apps/b/keys/minisign/versions/2"},
        {"successor": record(KEY, OTHER)[1].decode()},
    ):
        with pytest.raises(VerificationError, match="does not tell"):
            verify_logged(data, logged(data, **members), LOG)
    text = logged(data).checkpoint.partition("\n\n")[0] + "\n"
    forged = format_note(text, LOG.name, LOG.public_key, OTHER.sign(text.encode()))
    with pytest.raises(VerificationError, match="does not verify"):
        verify_logged(data, dataclasses.replace(logged(data), checkpoint=forged), LOG)
    elsewhere = dataclasses.replace(logged(data), proof=(bytes(32),))
    with pytest.raises(VerificationError, match="does not lead to"):
        verify_logged(data, elsewhere, LOG)


def daemon(*leaves, proofs=None):
    """Return a connection to a daemon whose log has these leaves, of which there are two."""
    hashes = [leaf_hash(leaf) for leaf in leaves]
    text = Checkpoint(LOG.name, 2, node_hash(*hashes)).text()
    note = format_note(text, LOG.name, LOG.public_key, LOG_KEY.sign(text.encode()))
    answers = {
        "GetCheckpoint": lambda _: log_pb.GetCheckpointResponse(checkpoint=note),
        "ListEntries": lambda _: log_pb.ListEntriesResponse(
            entries=[{"index": n, "leaf": leaf} for n, leaf in enumerate(leaves)]
        ),
        "GetInclusionProof": lambda request: log_pb.GetInclusionProofResponse(
            hashes=[(proofs or hashes)[1 - request.index]]
        ),
    }
    to = SimpleNamespace(log=SimpleNamespace(**answers))
    to.call = lambda method, request: method(request)
    return to


def test_the_log_is_asked_for_each_promotion_and_for_its_proof(tmp_path):
    path = tmp_path / "log.vkey"
    path.write_text(LOG.vkey())
    data, other = record()[1], canonical({"act": "deploy"})
    leaf = logged(data).leaf
    found = proved_promotions(daemon(other, leaf), [data], path)
    assert (found[data].index, found[data].leaf) == (1, leaf)
    with pytest.raises(VerificationError, match="does not tell of a successor record"):
        proved_promotions(daemon(other, other), [data], path)
    another = logged(data, keyVersion="apps/b/keys/minisign/versions/2").leaf
    with pytest.raises(VerificationError, match="does not tell that version 2"):
        proved_promotions(daemon(other, another), [data], path)
    with pytest.raises(VerificationError, match="does not lead to"):
        proved_promotions(daemon(other, leaf, proofs=[bytes(32)] * 2), [data], path)
