"""Formats as they are kept and sent, bit for bit: what these change, others cannot read.

`tests/vectors/formats.json` has what is made of fixed input; `tests/vectors/kept.json` what was
made once, with chance in it, and must open for ever. See `tests/vectors/README.md`.
"""

import base64
import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
from privyseal.verify import backup, expo, schemes
from privyseal.verify.canonical import canonical, parse_object
from privyseal.verify.importing import ImportTarget, import_key_text, unseal
from privyseal.verify.keys import load_public_key
from privyseal.verify.merkle import leaf_hash, root_of
from privyseal.verify.note import Checkpoint, NoteVerifier, format_note, open_checkpoint
from privyseal.verify.receipt import SchemeSignature, signature_act, verify_receipt
from privyseal.verify.statement import (
    PAYLOAD_TYPE,
    NativeRange,
    Statement,
    content_sha256,
    envelope,
    pae,
)
from privyseal.verify.successor import Successor, follow, signing_input
from privyseal.verify.successor import envelope as successor_envelope
from privyseald.keyholder.backup import open_with_shares
from privyseald.keyholder.kek import KekRecord, check_of, join, open_with_passphrase
from privyseald.keyholder.keystore import LoadedKey, SoftwareKeystore
from privyseald.keyholder.schemes import SIGN
from privyseald.model.schemes import Algorithm, KeyIdentity, Scheme, WrappedKey

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
KEK = bytes(range(32))
SIGNER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
LOG = NoteVerifier("example.com/log", SIGNER.public_key().public_bytes_raw())
STATEMENT = Statement(
    app="042a1261",
    version="1.2.3",
    counter=7,
    bundle_sha256=bytes(range(32)),
    bundle_length=1_234_567,
    manifest_sha256=bytes(range(100, 132)),
    native_ranges=(NativeRange("android", "1.0.0", "2.0.0", "1.5.0"), NativeRange("ios", "17")),
    source_commit="0123456789abcdef",
    signed_at=1_800_000_000,
    log_origin=LOG.name,
    bundle_blake2b=bytes(range(64)),
    codepush_sha256=schemes.codepush_package_sha256(
        {"index.html": bytes(32), "a/\u00e9.js": bytes(range(32))}
    ),
    expo=expo.Expo(
        (
            expo.ExpoUpdate(
                "android",
                "1.0.0",
                "_expo/index.hbc",
                bytes(range(32)),
                (expo.ExpoAsset("assets/a b.png", "image/png", ".png", bytes(32)),),
            ),
        ),
        canonical({"name": "app", "extra": {"eas": {"projectId": "p"}}}),
        "https://updates.example",
    ),
)


def kept(name):
    return json.loads((VECTORS / "kept.json").read_text())[name]


def pkcs8(name):
    return serialization.load_pem_private_key(kept("keys")[name].encode(), None)


def spki(key):
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def b64(data):
    return base64.b64encode(data).decode()


def formats():
    """Return each format, made of the fixed input."""
    payload, signer = STATEMENT.build(), LoadedKey(SIGNER)
    rsa = LoadedKey(pkcs8("rsa-2048"))
    record = Successor(
        app="042a1261",
        key="minisign",
        old=1,
        new=2,
        old_sha256=hashlib.sha256(spki(SIGNER)).digest(),
        new_public_key=spki(pkcs8("rsa-2048")),
        at=1_800_000_001,
    )
    leaves = [bytes([n]) * n for n in range(7)]
    checkpoint = Checkpoint(LOG.name, 7, root_of([leaf_hash(leaf) for leaf in leaves]))
    signed = {
        scheme: SIGN[scheme](rsa if scheme in _OF_RSA else signer, STATEMENT, payload)
        for scheme in (*_OF_RSA, Scheme.MINISIGN, Scheme.STATEMENT_V1)
    }
    one = SchemeSignature(
        "minisign", "ed25519", "apps/042a1261/keys/minisign/versions/1", spki(SIGNER), b"s" * 128
    )
    target = ImportTarget("042a1261", "minisign", "minisign", "ed25519", bytes(32))
    return {
        "statement": payload.decode(),
        "pae": b64(pae(PAYLOAD_TYPE, payload)),
        "envelope": canonical(envelope(payload, ("key", signer.sign(b"x")))).decode(),
        "content": content_sha256(
            bundle_sha256=STATEMENT.bundle_sha256,
            bundle_length=STATEMENT.bundle_length,
            manifest_sha256=STATEMENT.manifest_sha256,
            bundle_blake2b=STATEMENT.bundle_blake2b,
            codepush_sha256=STATEMENT.codepush_sha256,
            expo=STATEMENT.expo,
        ).hex(),
        "leaf": canonical(signature_act(payload, STATEMENT, (one,))).decode(),
        "snapshot": STATEMENT.snapshot,
        "vkey": LOG.vkey(),
        "checkpoint": format_note(
            checkpoint.text(), LOG.name, LOG.public_key, SIGNER.sign(checkpoint.text().encode())
        ),
        "import key": import_key_text(LOG.name, bytes(32)),
        "import info": target.info().decode(),
        "backup note": backup.note_text(LOG.name, bytes(32)),
        "recipient": backup.new_recipient(bytes(range(32))),
        "successor": successor_envelope(record, SIGNER.sign(signing_input(record))).decode(),
        "kek check": check_of(KEK),
        **{f"signature {scheme}": b64(signature) for scheme, signature in signed.items()},
        "capgo session": schemes.capgo_session(STATEMENT.bundle_sha256).key.hex()
        + schemes.capgo_session(STATEMENT.bundle_sha256).iv.hex(),
        "capgo": " ".join(schemes.capgo_text(signed[Scheme.CAPGO_V2], STATEMENT)),
        "codepush": schemes.codepush_text(signed[Scheme.CODEPUSH_V1], STATEMENT),
        "minisign": schemes.minisign_text(signed[Scheme.MINISIGN], STATEMENT, SIGNER.public_key()),
        "minisign key": schemes.public_key_text("minisign", SIGNER.public_key()),
        "sparkle": schemes.sparkle_text(b"s" * 64, STATEMENT),
        "sparkle key": schemes.public_key_text("sparkle-ed25519", SIGNER.public_key()),
        "expo manifest": expo.manifest(STATEMENT, "android").decode(),
        "expo id": expo.update_id(STATEMENT, "ios"),
    }


_OF_RSA = (Scheme.CAPAWESOME_V1, Scheme.CAPGO_V2, Scheme.CODEPUSH_V1, Scheme.EXPO_V1)


def test_every_format_is_as_it_was():
    wanted = json.loads((VECTORS / "formats.json").read_text())
    made = formats()
    assert made.keys() == wanted.keys()
    for name, text in made.items():
        assert text == wanted[name], f"{name}: others cannot read it any more"


def test_wrapped_keys_open():
    for name, vector in kept("wrapped").items():
        identity = KeyIdentity(
            vector["app"],
            vector["key"],
            vector["version"],
            Scheme(vector["scheme"]),
            Algorithm(vector["algorithm"]),
            bytes.fromhex(vector["publicKeySha256"]),
        )
        wrapped = WrappedKey(identity, base64.b64decode(vector["blob"]))
        opened = SoftwareKeystore(KEK).open(wrapped)
        assert hashlib.sha256(spki_of(opened)).hexdigest() == vector["publicKeySha256"], name


def spki_of(opened):
    return opened.public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_sealed_key_encryption_keys_open():
    passphrase = KekRecord.parse(kept("kek passphrase"))
    assert open_with_passphrase(passphrase, "correct horse battery") == KEK
    shares = KekRecord.parse(kept("kek shares"))
    assert join(shares, kept("shares")[1:]) == KEK
    assert KekRecord.parse(shares.text()) == shares


def test_an_imported_key_opens():
    vector = kept("import")
    target = ImportTarget(
        *("042a1261", "capawesome-v1", "capawesome-v1", "rsa-2048"),
        bytes.fromhex(vector["publicKeySha256"]),
    )
    keystore = SoftwareKeystore(KEK)
    plain = unseal(base64.b64decode(vector["sealed"]), target, keystore.import_key)
    key = serialization.load_der_private_key(plain, None)
    assert hashlib.sha256(spki(key)).hexdigest() == vector["publicKeySha256"]


def test_a_receipt_verifies():
    vector = kept("receipt")
    data = vector["receipt"].encode()
    proven = verify_receipt(
        data,
        log=NoteVerifier.parse(vector["logKey"]),
        statement_key=load_public_key(vector["statementKey"].encode()),
    )
    assert proven.statement.app == "app"
    assert {s.scheme for s in proven.signatures} == {"statement-v1", "capawesome-v1"}
    assert canonical(parse_object(data, "receipt")) == data
    assert open_checkpoint(
        json.loads(data)["log"]["checkpoint"], NoteVerifier.parse(vector["logKey"])
    )


def test_a_backups_key_opens_and_its_body_is_read():
    vector = kept("backup")
    header = backup.Header.parse(vector["header"].encode())
    assert header.line().decode() == vector["header"]
    private = x25519.X25519PrivateKey.from_private_bytes(bytes(range(64, 96)))
    share = header.open_share(private)
    kek, body_key = open_with_shares(header, [share])
    assert kek == KEK
    import io

    body = io.BytesIO(base64.b64decode(vector["body"]))
    assert b"".join(backup.read_body(body, body_key)) == b"what a backup holds"


def test_successors_are_followed():
    record = json.loads((VECTORS / "formats.json").read_text())["successor"].encode()
    (step,) = follow([record], SIGNER.public_key())
    assert step.new_public_key == spki(pkcs8("rsa-2048"))


def test_dsses_own_vector():
    """DSSE v1.0.2, protocol.md, test vectors."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_the_checksum_databases_vkey():
    """C2SP's and Go's example, sum.golang.org."""
    vkey = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
    assert NoteVerifier.parse(vkey).vkey() == vkey


@pytest.mark.parametrize(
    ("size", "root"),
    [
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
    ],
)
def test_certificate_transparencys_trees(size, root):
    """The reference implementation's leaves, whose roots RFC 6962 implementations compare."""
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
    leaves.append("606162636465666768696a6b6c6d6e6f")
    hashes = [leaf_hash(bytes.fromhex(leaf)) for leaf in leaves[:size]]
    assert root_of(hashes).hex() == root
