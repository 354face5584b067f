"""Forgeries that are right in all but one thing: each rule of the verifiers alone.

The forger here has every key, the log's and the app's among them, and breaks one rule at a time:
what nothing else would refuse.
"""

import dataclasses
import hashlib
import io
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from privyseal.bundling.bundle import write_bundle
from privyseal.cli.verify import verified
from privyseal.verify import backup, expo, schemes
from privyseal.verify.canonical import canonical
from privyseal.verify.errors import VerificationError
from privyseal.verify.keys import load_public_key, spki_der, spki_pem
from privyseal.verify.merkle import leaf_hash, node_hash, verify_consistency, verify_inclusion
from privyseal.verify.note import Checkpoint, NoteVerifier, format_note
from privyseal.verify.receipt import (
    MAX_RECEIPT,
    SchemeSignature,
    build_receipt,
    signature_act,
    verify_receipt,
)
from privyseal.verify.statement import (
    MAX_SIGNATURES,
    PAYLOAD_TYPE,
    Statement,
    envelope,
    open_envelope,
    pae,
)
from privyseald.keyholder.backup import open_with_shares, seal_for
from privyseald.keyholder.kek import KekError
from privyseald.keyholder.keystore import LoadedKey
from privyseald.keyholder.schemes import SIGN
from privyseald.model.schemes import Scheme

LOG_KEY = ed25519.Ed25519PrivateKey.generate()
KEY = ed25519.Ed25519PrivateKey.generate()
OTHER = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
LOG = NoteVerifier("example.com/log", LOG_KEY.public_key().public_bytes_raw())
UPDATES = tuple(
    expo.ExpoUpdate(platform, "1", f"{platform}.hbc", bytes(32), ()) for platform in expo.PLATFORMS
)
STATEMENT = Statement(
    app="a",
    version="1",
    counter=1,
    bundle_sha256=bytes(range(32)),
    bundle_length=1,
    manifest_sha256=bytes(32),
    native_ranges=(),
    source_commit="",
    signed_at=1_800_000_000,
    log_origin=LOG.name,
    bundle_blake2b=bytes(64),
    codepush_sha256=bytes(32),
    expo=expo.Expo(UPDATES),
)


def checkpoint(size, root, *, origin=LOG.name, name=LOG.name, key=LOG_KEY):
    text = Checkpoint(origin, size, root).text()
    public = key.public_key().public_bytes_raw()
    return format_note(text, name, public, key.sign(text.encode()))


def signed(scheme, key, statement=STATEMENT, *, app="a", number=1):
    """Return a signature as the keyholder makes it, and as receipts carry it."""
    made = SIGN[Scheme(scheme)](LoadedKey(key), statement, statement.build())
    name = f"apps/{app}/keys/{scheme}/versions/{number}"
    return SchemeSignature(scheme, "any", name, spki_der(key.public_key()), made)


def receipt(statement=STATEMENT, signatures=None, *, leaf=None, note=None, proof=None, index=0):
    """Return a receipt whose log has this leaf and another, with whatever is to be otherwise."""
    signatures = signatures or (signed("statement-v1", KEY, statement),)
    payload = statement.build()
    leaf = leaf or canonical(signature_act(payload, statement, signatures))
    other = leaf_hash(b"another")
    return build_receipt(
        payload=payload,
        signatures=signatures,
        leaf=leaf,
        index=index,
        proof=[other] if proof is None else proof,
        checkpoint=note or checkpoint(2, node_hash(leaf_hash(leaf), other)),
    )


def verify(data, key=KEY):
    return verify_receipt(data, log=LOG, statement_key=key.public_key())


def changed(data, **members):
    value = json.loads(data)
    for path, member in members.items():
        at = value
        *folders, name = path.split("__")
        for folder in folders:
            at = at[int(folder)] if folder.isdigit() else at[folder]
        at[name] = member
    return canonical(value)


def test_what_is_right_in_everything_verifies():
    proven = verify(receipt())
    assert proven.statement == STATEMENT
    every = tuple(
        signed(str(scheme), RSA if scheme in _OF_RSA else KEY) for scheme in (*_OF_RSA, "minisign")
    )
    assert len(verify(receipt(signatures=(signed("statement-v1", KEY), *every))).signatures) == 6


_OF_RSA = (Scheme.CAPAWESOME_V1, Scheme.CAPGO_V2, Scheme.CODEPUSH_V1, Scheme.EXPO_V1)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (lambda: receipt() + b" " * MAX_RECEIPT, "larger than 1 MiB"),
        (lambda: changed(receipt(), mediaType="application/json"), "not a Privyseal receipt"),
        (lambda: receipt(signatures=(signed("minisign", KEY),)), "does not begin with"),
        (
            lambda: receipt(dataclasses.replace(STATEMENT, log_origin="another")),
            "names another log",
        ),
        (lambda: receipt(note=checkpoint(2, bytes(32))), "does not lead to"),
        (lambda: receipt(index=1), "does not lead to"),
        (lambda: receipt(index=2), "is outside a tree"),
        (lambda: receipt(index=-1), "is outside a tree"),
        (lambda: receipt(proof=[leaf_hash(b"another")] * 2), "too long"),
        (lambda: receipt(leaf=canonical({"act": "release.sign"})), "tells of another signature"),
        (
            lambda: receipt(
                leaf=canonical(
                    {
                        **signature_act(STATEMENT.build(), STATEMENT, ()),
                        "signatures": [],
                    }
                )
            ),
            "tells of another signature",
        ),
        (
            lambda: receipt(
                signatures=(
                    signed("statement-v1", KEY),
                    signed("minisign", KEY, app="b"),
                )
            ),
            "key of another app",
        ),
        (
            lambda: changed(receipt(), statement__payloadType="application/vnd.other+json"),
            "does not hold a Privyseal statement",
        ),
    ],
)
def test_a_receipt_that_breaks_one_rule_is_refused(data, says):
    with pytest.raises(VerificationError, match=says):
        verify(data())


def test_a_receipt_of_another_key_is_refused():
    with pytest.raises(VerificationError, match="another statement key"):
        verify(receipt(), key=OTHER)
    # The key that is given, and a signature that it never made.
    forged = dataclasses.replace(
        signed("statement-v1", OTHER), public_key=spki_der(KEY.public_key())
    )
    with pytest.raises(VerificationError, match="does not verify"):
        verify(receipt(signatures=(forged,)))


@pytest.mark.parametrize("scheme", [*map(str, _OF_RSA), "minisign"])
def test_every_signature_in_a_receipt_is_verified(scheme):
    key = KEY if scheme == "minisign" else RSA
    other = dataclasses.replace(STATEMENT, counter=2, bundle_sha256=bytes(32), signed_at=1)
    forged = signed(scheme, key, other)
    if scheme == "codepush-v1":
        forged = signed(scheme, key, dataclasses.replace(STATEMENT, signed_at=1))
    with pytest.raises(VerificationError):
        verify(receipt(signatures=(signed("statement-v1", KEY), forged)))


@pytest.mark.parametrize(("scheme", "half"), [("minisign", 0), ("minisign", 1), ("capgo-v2", 1)])
def test_both_halves_of_a_signature_are_verified(scheme, half):
    key = KEY if scheme == "minisign" else RSA
    right = signed(scheme, key)
    middle = len(right.signature) // 2
    halves = [right.signature[:middle], right.signature[middle:]]
    halves[half] = bytes(len(halves[half]))
    forged = dataclasses.replace(right, signature=b"".join(halves))
    with pytest.raises(VerificationError):
        verify(receipt(signatures=(signed("statement-v1", KEY), forged)))


@pytest.mark.parametrize("missing", ["codepush_sha256", "bundle_blake2b"])
def test_a_signature_over_nothing_is_none(missing):
    scheme, key = {"codepush_sha256": ("codepush-v1", RSA), "bundle_blake2b": ("minisign", KEY)}[
        missing
    ]
    without = dataclasses.replace(STATEMENT, **{missing: b""})
    if scheme == "minisign":
        first = key.sign(b"")
        made = first + key.sign(first + schemes.minisign_comment(without))
    else:
        made = key.sign(schemes.codepush_input(without), padding.PKCS1v15(), hashes.SHA256())
    with pytest.raises(VerificationError, match="statement has no"):
        schemes.verify(scheme, key.public_key(), made, without, without.build())


def test_an_envelope_needs_a_signature_that_verifies():
    payload = STATEMENT.build()
    good = KEY.sign(pae(PAYLOAD_TYPE, payload))
    assert open_envelope(envelope(payload, ("k", good)), KEY.public_key()) == payload
    for bad in (OTHER.sign(pae(PAYLOAD_TYPE, payload)), KEY.sign(payload), bytes(64)):
        with pytest.raises(VerificationError, match="does not verify"):
            open_envelope(envelope(payload, ("k", bad)), KEY.public_key())
    for count in (0, MAX_SIGNATURES + 1):
        with pytest.raises(VerificationError, match="1 to 32 signatures"):
            open_envelope(envelope(payload, *[("k", good)] * count), KEY.public_key())


def test_an_inclusion_proof_is_as_long_as_the_tree_is_high():
    leaves = [leaf_hash(bytes([n])) for n in range(4)]
    left, right = node_hash(*leaves[:2]), node_hash(*leaves[2:])
    root = node_hash(left, right)
    verify_inclusion(index=0, size=4, leaf=leaves[0], proof=[leaves[1], right], root=root)
    for size, proof in ((4, [right]), (8, [leaves[1], right]), (2, [leaves[1], right])):
        with pytest.raises(VerificationError):
            verify_inclusion(index=0, size=size, leaf=leaves[0], proof=proof, root=root)
    # A node of the tree is no leaf of a smaller one with the same root.
    with pytest.raises(VerificationError):
        verify_inclusion(index=0, size=4, leaf=left, proof=[right], root=root)
    with pytest.raises(VerificationError):
        verify_inclusion(index=4, size=4, leaf=leaves[0], proof=[leaves[1], right], root=root)


def test_trees_of_one_size_are_consistent_if_they_are_one():
    root, other = bytes(32), bytes([1]) * 32
    verify_consistency(old_size=3, new_size=3, proof=[], old_root=root, new_root=root)
    for proof, old, new in (([], root, other), ([root], root, root), ([other], root, other)):
        with pytest.raises(VerificationError):
            verify_consistency(old_size=3, new_size=3, proof=proof, old_root=old, new_root=new)
    with pytest.raises(VerificationError):
        verify_consistency(old_size=0, new_size=3, proof=[root], old_root=root, new_root=root)


def test_both_roots_of_a_consistency_proof_are_compared():
    one, two = leaf_hash(b"1"), leaf_hash(b"2")
    root = node_hash(one, two)
    good = {"old_size": 1, "new_size": 2, "proof": [two]}
    verify_consistency(**good, old_root=one, new_root=root)
    for old, new in ((two, root), (one, two)):
        with pytest.raises(VerificationError):
            verify_consistency(**good, old_root=old, new_root=new)


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
    ],
    ids=["rsa-1024", "p384", "secp256k1"],
)
def test_a_key_that_is_too_weak_or_of_another_kind_is_none(key):
    with pytest.raises(VerificationError, match="public key is not"):
        load_public_key(spki_der(key.public_key()))


def header(**changes):
    private = x25519.X25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    sealed = seal_for(bytes(32), "id", 1, [public])
    made = backup.Header(
        id="id",
        origin=LOG.name,
        created_at=1,
        checkpoint="c",
        threshold=1,
        recipients=(backup.Recipient(public, sealed.shares[0]),),
        sealed_kek=sealed.kek,
        kek_check=sealed.check,
    )
    return dataclasses.replace(made, **changes), private


def written(head, *, name=LOG.name):
    """Return a backup with this header, whose note is right."""
    file = io.BytesIO()
    file.write(backup.MAGIC + head.line())
    writer = backup.BodyWriter(file, bytes(32))
    writer.write(b"x" * 200_000)
    writer.finish()
    text = backup.note_text(name, hashlib.sha256(file.getvalue()).digest())
    file.write(format_note(text, name, LOG.public_key, LOG_KEY.sign(text.encode())).encode())
    return file.getvalue()


def test_a_backup_is_of_the_log_that_it_names():
    head, _ = header()
    data = written(head)
    assert backup.verify(io.BytesIO(data), LOG) == head
    with pytest.raises(VerificationError, match="of another log"):
        backup.verify(io.BytesIO(written(header(origin="other")[0])), LOG)
    for at in (len(backup.MAGIC) + 10, len(data) // 2):
        spoiled = bytearray(data)
        spoiled[at] ^= 1
        with pytest.raises(VerificationError):
            backup.verify(io.BytesIO(bytes(spoiled)), LOG)


def test_a_backups_header_has_one_form():
    line = header()[0].line()
    assert backup.Header.parse(line).line() == line
    for other in (line.replace(b'"id"', b' "id"', 1), line.rstrip(b"\n"), line + b"\n"):
        with pytest.raises(VerificationError):
            backup.Header.parse(other)


def test_what_a_backups_shares_open_is_the_key_that_it_names():
    head, private = header()
    share = head.open_share(private)
    assert open_with_shares(head, [share])[0] == bytes(32)
    other = dataclasses.replace(head, kek_check="00" * 32)
    with pytest.raises(KekError, match="not the one that it names"):
        open_with_shares(other, [share])


def test_chunks_of_a_backup_keep_their_order():
    key, file = bytes(32), io.BytesIO()
    writer = backup.BodyWriter(file, key)
    writer.write(bytes(range(256)) * 1200)
    writer.finish()
    data = file.getvalue()
    assert b"".join(backup.read_body(io.BytesIO(data), key)) == bytes(range(256)) * 1200
    chunks, at = [], 0
    while True:
        length = int.from_bytes(data[at : at + 4])
        chunks.append(data[at : at + 4 + length])
        at += 4 + length
        if not length:
            break
    if len(chunks) < 3:
        pytest.fail("too few chunks to change their order")
    chunks[0], chunks[1] = chunks[1], chunks[0]
    with pytest.raises(VerificationError):
        b"".join(backup.read_body(io.BytesIO(b"".join(chunks)), key))


def test_each_platforms_signature_is_over_its_own_manifest():
    right = signed("expo-v1", RSA)
    half = len(right.signature) // 2
    swapped = right.signature[half:] + right.signature[:half]
    twice = right.signature[:half] * 2
    for made in (swapped, twice, right.signature[:half]):
        forged = dataclasses.replace(right, signature=made)
        with pytest.raises(VerificationError):
            verify(receipt(signatures=(signed("statement-v1", KEY), forged)))


def test_who_has_the_archive_verifies_what_is_signed_over_it(tmp_path):
    (tmp_path / "www").mkdir()
    (tmp_path / "www/index.html").write_text("hello")
    bundle = write_bundle(tmp_path / "www", tmp_path / "bundle.zip")
    statement = dataclasses.replace(
        STATEMENT,
        bundle_sha256=bundle.sha256,
        bundle_length=bundle.length,
        manifest_sha256=bundle.manifest_sha256,
        bundle_blake2b=b"",
        codepush_sha256=b"",
        expo=None,
    )
    (tmp_path / "log.vkey").write_text(LOG.vkey())
    (tmp_path / "key.pem").write_text(spki_pem(spki_der(KEY.public_key())))
    data = bundle.path.read_bytes()
    for signature, good in ((KEY.sign(data), True), (KEY.sign(data + b"x"), False)):
        over = SchemeSignature(
            *("sparkle-ed25519", "ed25519", "apps/a/keys/sparkle-ed25519/versions/1"),
            *(spki_der(KEY.public_key()), signature),
        )
        made = receipt(statement, (signed("statement-v1", KEY, statement), over))
        (tmp_path / "receipt.json").write_bytes(made)
        given = [tmp_path / name for name in ("bundle.zip", "receipt.json", "key.pem", "log.vkey")]
        if good:
            assert verified(*given).statement == statement
            (tmp_path / "other.pem").write_text(spki_pem(spki_der(OTHER.public_key())))
            with pytest.raises(VerificationError, match="another statement key"):
                verified(*given[:2], tmp_path / "other.pem", given[3])
            continue
        with pytest.raises(VerificationError, match="sparkle-ed25519 signature does not verify"):
            verified(*given)
