"""The receipt: statement, signatures, the leaf of the log and its proof, in one file.

Rules of `verify_receipt`, in order:

1. The statement's signature verifies with the key given, and only then is it parsed.
2. The checkpoint is signed by the log given.
3. The leaf is in the tree of that checkpoint.
4. The leaf tells of this statement, this public key and these signatures, no others.
5. Each other signature verifies with the public key that the receipt carries for it, and
   the leaf holds that key's digest. One over the archive itself (`schemes.ARCHIVES`) is
   verified by who has that, with `schemes.verify_archive`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any

from privyseal.verify import schemes
from privyseal.verify.canonical import Json, canonical, parse_object
from privyseal.verify.errors import VerificationError
from privyseal.verify.keys import PublicKey, load_public_key, public_key_sha256
from privyseal.verify.merkle import leaf_hash, verify_inclusion
from privyseal.verify.note import Checkpoint, NoteVerifier, open_checkpoint
from privyseal.verify.statement import Statement, decoded, envelope, open_envelope

MEDIA_TYPE = "application/vnd.privyseal.receipt.v1+json"
MAX_RECEIPT = 1024 * 1024
SIGNATURE_ACT = "release.sign"


@dataclass(frozen=True)
class SchemeSignature:
    """One signature beside the statement's, with all that is needed to check it."""

    scheme: str
    algorithm: str
    key_version: str
    public_key: bytes
    signature: bytes

    def leaf_record(self) -> dict[str, Json]:
        """Return what the leaf says of it."""
        return {
            "scheme": self.scheme,
            "keyVersion": self.key_version,
            "publicKeySha256": hashlib.sha256(self.public_key).hexdigest(),
            "signatureSha256": hashlib.sha256(self.signature).hexdigest(),
        }


@dataclass(frozen=True)
class Receipt:
    """A verified receipt."""

    statement: Statement
    signatures: tuple[SchemeSignature, ...]
    leaf: dict[str, Any]
    index: int
    checkpoint: Checkpoint
    statement_sha256: bytes

    def signature(self, scheme: str) -> SchemeSignature:
        """Return the signature of a scheme. Raises VerificationError if there is none."""
        for candidate in self.signatures:
            if candidate.scheme == scheme:
                return candidate
        raise VerificationError(f"receipt has no signature for {scheme}")

    def newest(self, scheme: str) -> SchemeSignature:
        """Return the signature of a scheme by the latest version of its key.

        Others are for binaries that trust no newer one.

        Raises:
            VerificationError: If there is none.
        """
        self.signature(scheme)
        found = [s for s in self.signatures if s.scheme == scheme]
        return max(found, key=lambda s: int(s.key_version.rpartition("/")[2]))


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def build_receipt(
    *,
    payload: bytes,
    signatures: tuple[SchemeSignature, ...],
    leaf: bytes,
    index: int,
    proof: list[bytes],
    checkpoint: str,
) -> bytes:
    """Return a receipt, canonical JSON. The first signature is the statement's."""
    entries: list[Json] = [
        {
            "scheme": s.scheme,
            "algorithm": s.algorithm,
            "keyVersion": s.key_version,
            "publicKey": _b64(s.public_key),
            "signature": _b64(s.signature),
        }
        for s in signatures
    ]
    hashes: list[Json] = [_b64(h) for h in proof]
    return canonical(
        {
            "mediaType": MEDIA_TYPE,
            "statement": envelope(
                payload,
                *(
                    (s.key_version, s.signature)
                    for s in signatures
                    if s.scheme in schemes.STATEMENTS
                ),
            ),
            "signatures": entries,
            "log": {
                "leaf": _b64(leaf),
                "index": index,
                "proof": hashes,
                "checkpoint": checkpoint,
            },
        }
    )


def verify_receipt(
    data: bytes, *, log: NoteVerifier, statement_key: PublicKey | None = None
) -> Receipt:
    """Verify a receipt against pinned keys.

    Args:
        data: The receipt, at most 1 MiB.
        log: The log's verifier key.
        statement_key: The app's statement key. If absent, the key in the receipt is used,
            which the log vouches for (rules 4 and 5): enough for who trusts the log.

    Returns:
        The receipt, all of it verified.

    Raises:
        VerificationError: With what is wrong.
    """
    if len(data) > MAX_RECEIPT:
        raise VerificationError("receipt is larger than 1 MiB")
    value = parse_object(data, "receipt")
    if value.get("mediaType") != MEDIA_TYPE:
        raise VerificationError("file is not a Privyseal receipt of version 1")
    try:
        signatures = _signatures(value)
        leaf = base64.b64decode(value["log"]["leaf"], validate=True)
        index = value["log"]["index"]
        proof = [base64.b64decode(h, validate=True) for h in value["log"]["proof"]]
        note = value["log"]["checkpoint"]
        sealed = value["statement"]
        if not (isinstance(index, int) and isinstance(note, str) and isinstance(sealed, dict)):
            raise TypeError
    except (KeyError, TypeError, AttributeError, binascii.Error, ValueError) as error:
        raise VerificationError("receipt lacks a field or has one of a wrong form") from error
    if not signatures or signatures[0].scheme != "statement-v1":
        raise VerificationError("receipt does not begin with the statement's signature")
    payload = open_envelope(sealed, _statement_key(signatures, statement_key))
    statement = Statement.parse(payload)
    checkpoint = open_checkpoint(note, log)
    if statement.log_origin != checkpoint.origin:
        raise VerificationError("statement names another log than the checkpoint")
    verify_inclusion(
        index=index,
        size=checkpoint.size,
        leaf=leaf_hash(leaf),
        proof=proof,
        root=checkpoint.root,
    )
    act = parse_object(leaf, "log leaf")
    expected = signature_act(payload, statement, signatures)
    if {name: act.get(name) for name in expected} != expected:
        raise VerificationError("the log tells of another signature than the receipt")
    for signature in signatures:
        _verify_scheme(signature, statement, payload)
    digest = hashlib.sha256(payload).digest()
    return Receipt(statement, signatures, act, index, checkpoint, digest)


def _statement_key(signatures: tuple[SchemeSignature, ...], given: PublicKey | None) -> PublicKey:
    """Return the key to open the envelope with: the one given, if a version that has it signed."""
    if given is None:
        return load_public_key(signatures[0].public_key)
    # In a rotation of that key several versions sign.
    own = [s.public_key for s in signatures if s.scheme == "statement-v1"]
    if public_key_sha256(given) not in [hashlib.sha256(key).digest() for key in own]:
        raise VerificationError("receipt was made with another statement key than the one given")
    return given


def _signatures(value: dict[str, Any]) -> tuple[SchemeSignature, ...]:
    return tuple(
        SchemeSignature(
            scheme=str(s["scheme"]),
            algorithm=str(s["algorithm"]),
            key_version=str(s["keyVersion"]),
            public_key=base64.b64decode(s["publicKey"], validate=True),
            signature=base64.b64decode(s["signature"], validate=True),
        )
        for s in value["signatures"]
    )


def receipt_parts(data: bytes) -> tuple[bytes, tuple[SchemeSignature, ...]]:
    """Return the statement's payload and the signatures of a receipt, without verifying it.

    For who made the receipt; who received it calls `verify_receipt`.
    """
    value = parse_object(data, "receipt")
    return decoded(value["statement"]["payload"]), _signatures(value)


def signature_act(
    payload: bytes, statement: Statement, signatures: tuple[SchemeSignature, ...]
) -> dict[str, Json]:
    """Return the members of the log leaf that tell of these signatures."""
    return {
        "act": SIGNATURE_ACT,
        "app": statement.app,
        "version": statement.version,
        "counter": statement.counter,
        "bundleSha256": statement.bundle_sha256.hex(),
        "statementSha256": hashlib.sha256(payload).hexdigest(),
        "signatures": [s.leaf_record() for s in signatures],
    }


def _verify_scheme(signature: SchemeSignature, statement: Statement, payload: bytes) -> None:
    prefix = f"apps/{statement.app}/keys/"
    if not signature.key_version.startswith(prefix):
        raise VerificationError("receipt has a signature by a key of another app")
    key = load_public_key(signature.public_key)
    schemes.verify(signature.scheme, key, signature.signature, statement, payload)
