"""What Privyseal says about a bundle: an in-toto Statement v1 in a DSSE envelope v1.0.2.

The subject is the bundle's zip; the predicate binds it to the app, the version, the
release counter, the manifest, the native range and the commit. `build` and `parse` are
inverse to each other, and `parse` refuses every text that `build` would not write.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from privyseal.verify.canonical import Json, canonical, parse_object
from privyseal.verify.errors import VerificationError
from privyseal.verify.expo import Expo
from privyseal.verify.keys import PublicKey, verify_signature

PAYLOAD_TYPE = "application/vnd.privyseal.statement.v1+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://privyseal.dev/release/v1"
MAX_SIGNATURES = 32
"""In an envelope: one by each version of the statement's keys that some binary needs."""


@dataclass(frozen=True)
class NativeRange:
    """Bounds on the store binaries of one platform; an empty text sets none.

    `min` and `max` are inclusive, `eq` is the one version that is left out.
    """

    platform: str
    min: str = ""
    max: str = ""
    eq: str = ""


@dataclass(frozen=True)
class Statement:
    """The content of a statement."""

    app: str
    version: str
    counter: int
    bundle_sha256: bytes
    bundle_length: int
    manifest_sha256: bytes
    native_ranges: tuple[NativeRange, ...]
    source_commit: str
    signed_at: int
    log_origin: str
    bundle_blake2b: bytes = b""
    codepush_sha256: bytes = b""
    expo: Expo | None = None

    @property
    def snapshot(self) -> str:
        """An id that names this content for ever: counter and digest."""
        return f"{self.counter}-{self.bundle_sha256.hex()[:16]}"

    def build(self) -> bytes:
        """Return the in-toto Statement, canonical JSON."""
        ranges: list[Json] = [
            {"platform": r.platform, "min": r.min, "max": r.max, "eq": r.eq}
            for r in self.native_ranges
        ]
        # Members that only some schemes sign are there if they were signed.
        more: dict[str, Json] = {}
        if self.bundle_blake2b:
            more["blake2b512"] = self.bundle_blake2b.hex()
        if self.codepush_sha256:
            more["codepushPackageSha256"] = self.codepush_sha256.hex()
        expo: dict[str, Json] = {} if self.expo is None else {"expo": self.expo.to_json()}
        return canonical(
            {
                "_type": STATEMENT_TYPE,
                "subject": [{"name": self.app, "digest": {"sha256": self.bundle_sha256.hex()}}],
                "predicateType": PREDICATE_TYPE,
                "predicate": {
                    "app": self.app,
                    "version": self.version,
                    "counter": self.counter,
                    "bundle": {"length": self.bundle_length, "format": "zip", **more},
                    "manifest": {"sha256": self.manifest_sha256.hex()},
                    "nativeRanges": ranges,
                    "sourceCommit": self.source_commit,
                    "signedAt": datetime.fromtimestamp(self.signed_at, UTC).strftime(
                        "%Y-%m-%dT%H:%M:%SZ"
                    ),
                    "log": self.log_origin,
                    **expo,
                },
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Statement:
        """Parse an in-toto Statement whose signature was verified before.

        Raises:
            VerificationError: If it is not a statement of this version, to the letter.
        """
        value = parse_object(payload, "statement")
        try:
            predicate: dict[str, Any] = value["predicate"]
            signed_at = datetime.strptime(predicate["signedAt"], "%Y-%m-%dT%H:%M:%S%z")
            statement = cls(
                app=predicate["app"],
                version=predicate["version"],
                counter=predicate["counter"],
                bundle_sha256=bytes.fromhex(value["subject"][0]["digest"]["sha256"]),
                bundle_length=predicate["bundle"]["length"],
                manifest_sha256=bytes.fromhex(predicate["manifest"]["sha256"]),
                native_ranges=tuple(NativeRange(**r) for r in predicate["nativeRanges"]),
                source_commit=predicate["sourceCommit"],
                signed_at=int(signed_at.timestamp()),
                log_origin=predicate["log"],
                bundle_blake2b=bytes.fromhex(predicate["bundle"].get("blake2b512", "")),
                codepush_sha256=bytes.fromhex(predicate["bundle"].get("codepushPackageSha256", "")),
                expo=Expo.from_json(predicate["expo"]) if "expo" in predicate else None,
            )
            rebuilt = statement.build()
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise VerificationError("statement lacks a field or has one of a wrong form") from error
        if rebuilt != payload:
            raise VerificationError("statement is not in its one valid form")
        return statement


def decoded(text: str) -> bytes:
    """Return what a member of an envelope holds, in either alphabet (DSSE v1.0.2, protocol).

    Raises:
        ValueError: If it is no base64.
    """
    altchars = b"-_" if "-" in text or "_" in text else None
    return base64.b64decode(text, altchars, validate=True)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding, the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def content_sha256(
    *,
    bundle_sha256: bytes,
    bundle_length: int,
    manifest_sha256: bytes,
    bundle_blake2b: bytes = b"",
    codepush_sha256: bytes = b"",
    expo: Expo | None = None,
) -> bytes:
    """Return the digest by which a CI job names what its session may sign, 32 bytes.

    SHA-256 of canonical JSON over everything about the bundle that any scheme signs, so that
    no other content hides behind the right bundle's digest.

    Args:
        bundle_sha256: Of the bundle, 32 bytes.
        bundle_length: In bytes.
        manifest_sha256: Of its manifest, 32 bytes.
        bundle_blake2b: Of the bundle, 64 bytes; empty if it is not to be signed.
        codepush_sha256: CodePush's package hash, 32 bytes; empty if it is not to be signed.
        expo: What is signed for Expo, if anything is.
    """
    content: dict[str, Json] = {
        "bundleSha256": bundle_sha256.hex(),
        "bundleLength": bundle_length,
        "manifestSha256": manifest_sha256.hex(),
        "bundleBlake2b": bundle_blake2b.hex(),
        "codepushSha256": codepush_sha256.hex(),
    }
    if expo is not None:
        content["expoSha256"] = expo.content_sha256.hex()
    return hashlib.sha256(canonical(content)).digest()


def envelope(payload: bytes, *signed: tuple[str, bytes]) -> dict[str, Json]:
    """Return the DSSE envelope as a JSON object, with key ids and their signatures."""
    signatures: list[Json] = [
        {"keyid": key_id, "sig": base64.b64encode(signature).decode()}
        for key_id, signature in signed
    ]
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": signatures,
    }


def open_envelope(value: dict[str, Any], key: PublicKey) -> bytes:
    """Return the payload of a DSSE envelope that a key signed.

    Others may have signed it as well: DSSE v1.0.2, protocol.md, with a threshold of one.

    Raises:
        VerificationError: If its type is another, or no signature verifies.
    """
    try:
        if value["payloadType"] != PAYLOAD_TYPE:
            raise VerificationError("envelope does not hold a Privyseal statement")
        payload = decoded(value["payload"])
        signatures = [decoded(s["sig"]) for s in value["signatures"]]
    except (KeyError, TypeError, binascii.Error, ValueError) as error:
        if isinstance(error, VerificationError):
            raise
        raise VerificationError("envelope is malformed") from error
    if not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise VerificationError(f"envelope does not have 1 to {MAX_SIGNATURES} signatures")
    signed = pae(PAYLOAD_TYPE, payload)
    for signature in signatures:
        with contextlib.suppress(VerificationError):
            verify_signature(key, signature, signed)
            return payload
    raise VerificationError("the statement's signature does not verify")
