"""Frames on the socketpair, and the proto's enums in the model's words."""

from __future__ import annotations

import functools
import struct

from privyseal.v1 import types_pb2
from privyseal.verify.messages import expo_from_message, expo_to_message
from privyseal.verify.statement import NativeRange, Statement

from privyseald.keyholder.v1 import keyholder_pb2 as pb
from privyseald.model.schemes import (
    Algorithm,
    CertificateTerms,
    Certified,
    GeneratedKey,
    KeyIdentity,
    Scheme,
    WrappedKey,
)

HEADER = struct.Struct(">I")
MAX_FRAME = 1024 * 1024

SCHEMES = {
    Scheme.STATEMENT_V1: types_pb2.SCHEME_STATEMENT_V1,
    Scheme.CAPAWESOME_V1: types_pb2.SCHEME_CAPAWESOME_V1,
    Scheme.CAPGO_V2: types_pb2.SCHEME_CAPGO_V2,
    Scheme.CODEPUSH_V1: types_pb2.SCHEME_CODEPUSH_V1,
    Scheme.MINISIGN: types_pb2.SCHEME_MINISIGN,
    Scheme.SPARKLE_ED25519: types_pb2.SCHEME_SPARKLE_ED25519,
    Scheme.EXPO_V1: types_pb2.SCHEME_EXPO_V1,
    Scheme.EXPO_ROOT_V1: types_pb2.SCHEME_EXPO_ROOT_V1,
    Scheme.STATEMENT_ML_DSA_V1: types_pb2.SCHEME_STATEMENT_ML_DSA_V1,
}
ALGORITHMS = {
    Algorithm.RSA_2048: types_pb2.ALGORITHM_RSA_2048,
    Algorithm.RSA_3072: types_pb2.ALGORITHM_RSA_3072,
    Algorithm.RSA_4096: types_pb2.ALGORITHM_RSA_4096,
    Algorithm.P256: types_pb2.ALGORITHM_P256,
    Algorithm.ED25519: types_pb2.ALGORITHM_ED25519,
    Algorithm.ML_DSA_65: types_pb2.ALGORITHM_ML_DSA_65,
}
PLATFORMS = {"android": types_pb2.PLATFORM_ANDROID, "ios": types_pb2.PLATFORM_IOS}
_SCHEME_OF = {v: k for k, v in SCHEMES.items()}
_ALGORITHM_OF = {v: k for k, v in ALGORITHMS.items()}
_PLATFORM_OF = {v: k for k, v in PLATFORMS.items()}


def frame(message: bytes) -> bytes:
    """Return a message with its length before it. Raises ValueError if it is too long."""
    if len(message) > MAX_FRAME:
        raise ValueError("message does not fit a frame")
    return HEADER.pack(len(message)) + message


def unframe(buffer: bytearray) -> list[bytes]:
    """Take the whole messages off a buffer. Raises ValueError on a length out of bounds."""
    messages, at = [], 0
    while len(buffer) - at >= HEADER.size:
        (length,) = HEADER.unpack_from(buffer, at)
        if length > MAX_FRAME:
            raise ValueError("frame is too long")
        end = at + HEADER.size + length
        if end > len(buffer):
            break
        messages.append(bytes(buffer[at + HEADER.size : end]))
        at = end
    del buffer[:at]
    return messages


def identity_to_wire(identity: KeyIdentity) -> pb.KeyIdentity:
    """Return the identity as a message."""
    return pb.KeyIdentity(
        app=identity.app,
        key=identity.key,
        version=identity.version,
        scheme=SCHEMES[identity.scheme],
        algorithm=ALGORITHMS[identity.algorithm],
        public_key_sha256=identity.public_key_sha256,
    )


def identity_from_wire(message: pb.KeyIdentity) -> KeyIdentity:
    """Return the identity in a message. Raises KeyError for an unknown enum value."""
    return KeyIdentity(
        app=message.app,
        key=message.key,
        version=message.version,
        scheme=_SCHEME_OF[message.scheme],
        algorithm=_ALGORITHM_OF[message.algorithm],
        public_key_sha256=message.public_key_sha256,
    )


@functools.lru_cache(maxsize=1024)
def key_to_wire(key: WrappedKey) -> pb.WrappedKey:
    """Return the wrapped key as a message, which nobody changes."""
    return pb.WrappedKey(identity=identity_to_wire(key.identity), blob=key.blob)


def key_from_wire(message: pb.WrappedKey) -> WrappedKey:
    """Return the wrapped key in a message."""
    return WrappedKey(identity_from_wire(message.identity), message.blob)


def terms_to_wire(terms: CertificateTerms | None) -> pb.CertificateTerms | None:
    """Return what certificate a key is to have as a message."""
    if terms is None:
        return None
    message = pb.CertificateTerms(begins=terms.begins, ends=terms.ends)
    if terms.issuer is not None:
        key, message.issuer_public_key = terms.issuer
        message.issuer.CopyFrom(key_to_wire(key))
    return message


def made_from_wire(message: pb.GeneratedKey, terms: CertificateTerms | None) -> GeneratedKey:
    """Return a key that was made, with the certificate that it was to have."""
    certified = None
    if terms is not None:
        issuer = terms.issuer[0].identity.public_key_sha256 if terms.issuer is not None else b""
        certified = Certified(message.certificate, terms.begins, terms.ends, issuer)
    return GeneratedKey(
        key_from_wire(message.key), message.public_key, dict(message.protection), certified
    )


def content_to_wire(statement: Statement) -> pb.ReleaseContent:
    """Return the typed content of a release as a message."""
    return pb.ReleaseContent(
        app=statement.app,
        version=statement.version,
        counter=statement.counter,
        bundle_sha256=statement.bundle_sha256,
        bundle_length=statement.bundle_length,
        manifest_sha256=statement.manifest_sha256,
        native_ranges=[
            types_pb2.NativeRange(platform=PLATFORMS[r.platform], min=r.min, max=r.max, eq=r.eq)
            for r in statement.native_ranges
        ],
        source_commit=statement.source_commit,
        signed_at=statement.signed_at,
        log_origin=statement.log_origin,
        bundle_blake2b=statement.bundle_blake2b,
        codepush_sha256=statement.codepush_sha256,
        expo=None if statement.expo is None else expo_to_message(statement.expo),
    )


def content_from_wire(message: pb.ReleaseContent) -> Statement:
    """Return the typed content of a release."""
    return Statement(
        app=message.app,
        version=message.version,
        counter=message.counter,
        bundle_sha256=message.bundle_sha256,
        bundle_length=message.bundle_length,
        manifest_sha256=message.manifest_sha256,
        native_ranges=tuple(
            NativeRange(_PLATFORM_OF[r.platform], r.min, r.max, r.eq) for r in message.native_ranges
        ),
        source_commit=message.source_commit,
        signed_at=message.signed_at,
        log_origin=message.log_origin,
        bundle_blake2b=message.bundle_blake2b,
        codepush_sha256=message.codepush_sha256,
        expo=expo_from_message(message.expo) if message.HasField("expo") else None,
    )
