"""The software keystore: private keys under AES-256-GCM, each with its own data key.

A wrapped key is::

    format (1) || KEK id (8) || nonce (12) || wrapped data key (48) || nonce (12) || ciphertext

The format is 0x01 for a private key in software, and 0x02 for a key in a token, of which the
plain text is its address (RFC 7512): bound to its identity in the same way.

The data key (32 bytes) is encrypted under the key-encryption key, the private key (PKCS #8
DER) under the data key, both with the key's identity as additional data, so that a blob
that was put on another row does not open. Each nonce is random; a data key encrypts once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import replace
from typing import Protocol

from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import (
    ec,
    ed25519,
    mldsa,
    padding,
    rsa,
    utils,
    x25519,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from privyseal.verify.canonical import canonical
from privyseal.verify.importing import TITLE
from privyseal.verify.keys import PublicKey, spki_der

from privyseald.model.schemes import IN_TOKEN, Algorithm, GeneratedKey, KeyIdentity, WrappedKey

SOFTWARE, TOKEN = b"\x01", IN_TOKEN
KEK_SIZE = 32
_KEK_ID = 8
_NONCE = 12
_WRAPPED_DEK = 48
_SHA256 = hashes.SHA256()
_PREHASHED = utils.Prehashed(_SHA256)
BARE_LENGTHS = frozenset({16, 32})
"""Lengths of what RSA signs without DigestInfo: a session key, a SHA-256 digest. Never 51,
since a payload of that length can be a DigestInfo, and its signature one of another scheme."""
PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | mldsa.MLDSA65PrivateKey
)


class KeyUnusableError(Exception):
    """A wrapped key does not open, or is not what its identity says."""


class Signer(Protocol):
    """A private key, wherever it is. Each signature was verified before it is returned."""

    def sign(self, message: bytes) -> bytes:
        """Sign a message: RSA, PKCS #1 v1.5, and P-256, DER, with SHA-256; others as it is."""
        ...

    def sign_rsa_digest(self, digest: bytes) -> bytes:
        """Sign a SHA-256 digest of 32 bytes, RSASSA-PKCS1-v1_5."""
        ...

    def sign_rsa_bare(self, payload: bytes) -> bytes:
        """Sign 16 or 32 bytes, PKCS #1 v1.5 type 1 without DigestInfo."""
        ...


def verify_message(public: PublicKey, signature: bytes, message: bytes) -> None:
    """Verify a signature as `Signer.sign` makes it. Raises InvalidSignature."""
    if isinstance(public, rsa.RSAPublicKey):
        verify_rsa_digest(public, signature, hashlib.sha256(message).digest())
    elif isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, message, ec.ECDSA(_SHA256))
    else:
        public.verify(signature, message)


def verify_rsa_digest(public: rsa.RSAPublicKey, signature: bytes, digest: bytes) -> None:
    """Verify a signature over a SHA-256 digest. Raises InvalidSignature."""
    public.verify(signature, digest, padding.PKCS1v15(), _PREHASHED)


def verify_rsa_bare(public: rsa.RSAPublicKey, signature: bytes, payload: bytes) -> None:
    """Verify a signature without DigestInfo. Raises InvalidSignature."""
    if public.recover_data_from_signature(signature, padding.PKCS1v15(), None) != payload:
        raise InvalidSignature


class LoadedKey:
    """A private key in memory. Never printed, never serialised."""

    def __init__(self, private: PrivateKey) -> None:
        self._private = private
        self._public = private.public_key()

    def __repr__(self) -> str:
        return "<LoadedKey>"

    def __reduce__(self) -> str:
        raise TypeError("a loaded key is not serialised")

    def sign(self, message: bytes) -> bytes:
        """Sign a message and verify the signature.

        RSA means RSASSA-PKCS1-v1_5 with SHA-256, P-256 means ECDSA with SHA-256, DER.
        """
        private = self._private
        if isinstance(private, ed25519.Ed25519PrivateKey | mldsa.MLDSA65PrivateKey):
            signature = private.sign(message)
        elif isinstance(private, ec.EllipticCurvePrivateKey):
            signature = private.sign(message, ec.ECDSA(_SHA256))
        else:
            return self.sign_rsa_digest(hashlib.sha256(message).digest())
        verify_message(self._public, signature, message)
        return signature

    def sign_rsa_digest(self, digest: bytes) -> bytes:
        """Sign a SHA-256 digest of 32 bytes, RSASSA-PKCS1-v1_5, and verify the signature."""
        private, public = self._private, self._public
        if not (isinstance(private, rsa.RSAPrivateKey) and isinstance(public, rsa.RSAPublicKey)):
            raise KeyUnusableError("scheme needs an RSA key")
        signature = private.sign(digest, padding.PKCS1v15(), _PREHASHED)
        verify_rsa_digest(public, signature, digest)
        return signature

    def sign_rsa_bare(self, payload: bytes) -> bytes:
        """Sign without DigestInfo; see `Signer`."""
        private, public = self._private, self._public
        if not (isinstance(private, rsa.RSAPrivateKey) and isinstance(public, rsa.RSAPublicKey)):
            raise KeyUnusableError("scheme needs an RSA key")
        if len(payload) not in BARE_LENGTHS:
            raise KeyUnusableError("only 16 or 32 bytes are signed without DigestInfo")
        signature = private.sign(payload, padding.PKCS1v15(), utils.NoDigestInfo())
        verify_rsa_bare(public, signature, payload)
        return signature

    @property
    def public(self) -> PublicKey:
        """The public key."""
        return self._public


class SoftwareKeystore:
    """Generates, wraps and opens keys with one key-encryption key.

    Args:
        kek: The key-encryption key, 32 bytes.
        capacity: How many opened keys are kept.
    """

    def __init__(self, kek: bytes, capacity: int = 1024) -> None:
        if len(kek) != KEK_SIZE:
            raise ValueError("key-encryption key is not 32 bytes")
        self._kek = AESGCM(kek)
        # The same in every keyholder of a daemon and its replicas, and kept nowhere.
        seed = HKDF(hashes.SHA256(), 32, None, TITLE.encode()).derive(kek)
        self.import_key = x25519.X25519PrivateKey.from_private_bytes(seed)
        self._kek_id = hashlib.sha256(b"privyseal kek id\n" + kek).digest()[:_KEK_ID]
        self._opened: OrderedDict[tuple[KeyIdentity, bytes], LoadedKey] = OrderedDict()
        self._capacity = capacity

    def generate(self, identity: KeyIdentity) -> GeneratedKey:
        """Make a key pair for an identity that has no public key yet."""
        private = _new_private_key(identity.algorithm)
        public = spki_der(private.public_key())
        named = replace(identity, public_key_sha256=hashlib.sha256(public).digest())
        plain = private.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return GeneratedKey(WrappedKey(named, self.seal(named, SOFTWARE, plain)), public)

    def add(self, identity: KeyIdentity, pkcs8: bytes) -> GeneratedKey:
        """Take a private key, PKCS #8 DER, for an identity that names its public key.

        Raises:
            KeyUnusableError: If it is not the key that the identity names.
        """
        private = load_private_key(identity, pkcs8)
        wrapped = WrappedKey(identity, self.seal(identity, SOFTWARE, pkcs8))
        self.open(wrapped)
        public = spki_der(private.public_key())
        return GeneratedKey(wrapped, public, {"backend": "software", "origin": "imported"})

    def forget(self, key: WrappedKey) -> None:
        """Let go of an opened key."""
        self._opened.pop((key.identity, key.blob), None)

    def open(self, key: WrappedKey) -> LoadedKey:
        """Return the private key, from memory if it was opened before.

        Raises:
            KeyUnusableError: If it does not open under this identity, is of another kind,
                or fails a trial signature.
        """
        at = (key.identity, key.blob)
        loaded = self._opened.get(at)
        if loaded is not None:
            self._opened.move_to_end(at)
            return loaded
        loaded = self._load(key)
        self._opened[at] = loaded
        if len(self._opened) > self._capacity:
            self._opened.popitem(last=False)
        return loaded

    def _aad(self, identity: KeyIdentity, kek_id: bytes, kind: bytes) -> bytes:
        return canonical(
            {
                "format": kind[0],
                "kek": kek_id.hex(),
                "app": identity.app,
                "key": identity.key,
                "version": identity.version,
                "scheme": identity.scheme,
                "algorithm": identity.algorithm,
                "publicKeySha256": identity.public_key_sha256.hex(),
            }
        )

    def seal(self, identity: KeyIdentity, kind: bytes, plain: bytes) -> bytes:
        """Return a text under the key-encryption key, bound to an identity and a format."""
        aad = self._aad(identity, self._kek_id, kind)
        data_key = AESGCM.generate_key(256)
        outer, inner = secrets.token_bytes(_NONCE), secrets.token_bytes(_NONCE)
        wrapped = self._kek.encrypt(outer, data_key, aad)
        sealed = AESGCM(data_key).encrypt(inner, plain, aad)
        return kind + self._kek_id + outer + wrapped + inner + sealed

    def unseal(self, key: WrappedKey, kind: bytes) -> bytes:
        """Return what was sealed. Raises KeyUnusableError if it was changed or moved."""
        blob, identity = key.blob, key.identity
        start = len(kind) + _KEK_ID
        if blob[:1] != kind or blob[1:start] != self._kek_id:
            raise KeyUnusableError("key was wrapped under another key-encryption key")
        aad = self._aad(identity, self._kek_id, kind)
        outer, rest = blob[start : start + _NONCE], blob[start + _NONCE :]
        inner = rest[_WRAPPED_DEK : _WRAPPED_DEK + _NONCE]
        try:
            data_key = self._kek.decrypt(outer, rest[:_WRAPPED_DEK], aad)
            return AESGCM(data_key).decrypt(inner, rest[_WRAPPED_DEK + _NONCE :], aad)
        except (InvalidTag, ValueError) as error:
            raise KeyUnusableError(
                "wrapped key does not open: it was changed or belongs to another key version"
            ) from error

    def _load(self, key: WrappedKey) -> LoadedKey:
        loaded = LoadedKey(load_private_key(key.identity, self.unseal(key, SOFTWARE)))
        loaded.sign(b"privyseal keyholder self-test")
        return loaded


def load_private_key(identity: KeyIdentity, pkcs8: bytes) -> PrivateKey:
    """Return the private key that an identity names.

    Raises:
        KeyUnusableError: If it is malformed, of another algorithm, or has another public key.
    """
    try:
        private = serialization.load_der_private_key(pkcs8, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyUnusableError("it is no private key") from error
    if not isinstance(
        private,
        rsa.RSAPrivateKey
        | ec.EllipticCurvePrivateKey
        | ed25519.Ed25519PrivateKey
        | mldsa.MLDSA65PrivateKey,
    ):
        raise KeyUnusableError("key is of no known kind")
    if _algorithm(private) is not identity.algorithm:
        raise KeyUnusableError(f"private key is not {identity.algorithm}")
    if hashlib.sha256(spki_der(private.public_key())).digest() != identity.public_key_sha256:
        raise KeyUnusableError("private key does not belong to the public key on record")
    return private


def _algorithm(private: PrivateKey) -> Algorithm | None:
    if isinstance(private, rsa.RSAPrivateKey):
        return next((a for a in Algorithm if a.rsa_bits == private.key_size), None)
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return Algorithm.P256 if isinstance(private.curve, ec.SECP256R1) else None
    if isinstance(private, mldsa.MLDSA65PrivateKey):
        return Algorithm.ML_DSA_65
    return Algorithm.ED25519


def _new_private_key(algorithm: Algorithm) -> PrivateKey:
    if algorithm.rsa_bits:
        return rsa.generate_private_key(65537, algorithm.rsa_bits)
    if algorithm is Algorithm.P256:
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm is Algorithm.ML_DSA_65:
        return mldsa.MLDSA65PrivateKey.generate()
    return ed25519.Ed25519PrivateKey.generate()
