"""Keys in a token through PKCS #11: generated there or adopted, never read out.

One process, one thread, one session: python-pkcs11 initialises modules without locks, and a
login belongs to the process. Whatever goes wrong with the token ends the process, since only
`C_Finalize` and `C_Initialize` mend a session for good: the supervisor starts another. The
exception is the PIN. Tokens lock after a few wrong ones, so that a refused PIN is noted in a
file, which every process looks for before it tries, until a person removes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pkcs11
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa, utils
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.util.ec import encode_named_curve_parameters
from privyseal.verify.keys import PublicKey, spki_der

from privyseald.keyholder.hsm_objects import (
    ED25519_OID,
    PRIVATE_TEMPLATE,
    assert_attributes,
    label,
    public_key,
    token_objects,
)
from privyseald.keyholder.hsm_session import Turns, in_turn, log_in, token_errors
from privyseald.keyholder.keystore import (
    BARE_LENGTHS,
    TOKEN,
    KeyUnusableError,
    SoftwareKeystore,
    load_private_key,
    verify_message,
    verify_rsa_bare,
    verify_rsa_digest,
)
from privyseald.keyholder.keystores import HsmDownError, HsmSettings
from privyseald.keyholder.token_uri import TokenUri
from privyseald.model.schemes import Algorithm, GeneratedKey, KeyIdentity, WrappedKey

# RFC 8017 section 9.2, note 1: what stands before a SHA-256 digest. A token signs a bare
# digest as well, and returns a signature that nothing verifies.
_SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
_ID_BYTES = 16
_FRESH = 2.0
"""Seconds for which a session surely shows what is in its token."""
_OWN_LABEL = re.compile(r"apps/.+/versions/[0-9]+", re.DOTALL)
"""How keys are labelled that were made or put there from here, or by who wanted to look like it."""


class HsmKey:
    """A private key in the token, and its public key."""

    def __init__(self, private: Any, public: PublicKey, algorithm: Algorithm) -> None:
        self._private = private
        self._public = public
        self._algorithm = algorithm

    def sign(self, message: bytes) -> bytes:
        """Sign a message; see `Signer`."""
        if self._algorithm.rsa_bits:
            return self.sign_rsa_digest(hashlib.sha256(message).digest())
        if self._algorithm is Algorithm.P256:
            # The digest's length is checked nowhere else: a token cuts a longer one off.
            raw = self._sign(hashlib.sha256(message).digest(), Mechanism.ECDSA)
            if len(raw) != 64:
                raise HsmDownError("the token made a malformed signature")
            r, s = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
            signature = utils.encode_dss_signature(r, s)
        else:
            signature = self._sign(message, Mechanism.EDDSA)
        try:
            verify_message(self._public, signature, message)
        except InvalidSignature:
            raise HsmDownError("the token made a signature that does not verify") from None
        return signature

    def sign_rsa_digest(self, digest: bytes) -> bytes:
        """Sign a digest; see `Signer`."""
        if not isinstance(self._public, rsa.RSAPublicKey) or len(digest) != 32:
            raise KeyUnusableError("scheme needs an RSA key, and a digest of 32 bytes")
        signature = self._sign(_SHA256_INFO + digest, Mechanism.RSA_PKCS)
        try:
            verify_rsa_digest(self._public, signature, digest)
        except InvalidSignature:
            raise HsmDownError("the token made a signature that does not verify") from None
        return signature

    def sign_rsa_bare(self, payload: bytes) -> bytes:
        """Sign without DigestInfo; see `Signer`."""
        if not isinstance(self._public, rsa.RSAPublicKey) or len(payload) not in BARE_LENGTHS:
            raise KeyUnusableError("scheme needs an RSA key, and 16 or 32 bytes")
        signature = self._sign(payload, Mechanism.RSA_PKCS)
        try:
            verify_rsa_bare(self._public, signature, payload)
        except InvalidSignature:
            raise HsmDownError("the token made a signature that does not verify") from None
        return signature

    def _sign(self, data: bytes, mechanism: Mechanism) -> bytes:
        with token_errors():
            return bytes(self._private.sign(data, mechanism=mechanism))


class HsmKeystore:
    """Keys in one token.

    Args:
        settings: Which token.
        sealer: Binds a key's address to its identity.
    """

    def __init__(self, settings: HsmSettings, sealer: SoftwareKeystore) -> None:
        self._settings = settings
        self._sealer = sealer
        self.turns = Turns(settings)
        self._session: Any = None
        self._connected_at = 0.0
        self._had_keys = False
        self._opened: dict[tuple[KeyIdentity, bytes], HsmKey] = {}

    @in_turn
    def connect(self) -> None:
        """Open the session and log in, at most once with a PIN that is wrong.

        Raises:
            HsmDownError: If that is not possible now; PinRefusedError if a person must look.
        """
        with token_errors():
            self._session = log_in(self._settings)
            self._connected_at = time.monotonic()
            self._had_keys = self._has_keys()

    def _has_keys(self) -> bool:
        """Say whether the session shows any private key at all."""
        shown = self._require().get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
        return next(iter(shown), None) is not None

    @in_turn
    def _begin_anew(self) -> None:
        """Open another session: one need not show what others did since it began."""
        with token_errors():
            pkcs11.lib(self._settings.module).reinitialize()
        self._opened.clear()
        self.connect()

    def probe(self) -> None:
        """Look whether the token is still there. Raises HsmDownError."""
        shown = self._has_keys_shown()
        if self._had_keys and not shown:
            raise HsmDownError("the token shows no keys any more")
        self._had_keys = shown

    def expect_keys(self) -> None:
        """Look whether the token shows keys, which it has by now. Raises HsmDownError."""
        self._had_keys = True
        self.probe()

    def _has_keys_shown(self) -> bool:
        with token_errors():
            return self._has_keys()

    @property
    def connected(self) -> bool:
        """Whether there is a session."""
        return self._session is not None

    @in_turn
    def generate(self, identity: KeyIdentity) -> GeneratedKey:
        """Make a key pair in the token that can sign and nothing else."""
        self._require_able(identity.algorithm)
        key_id = secrets.token_bytes(_ID_BYTES)
        options: dict[str, Any] = {
            "id": key_id,
            "label": identity.name,
            "store": True,
            "private_template": PRIVATE_TEMPLATE,
        }
        with self._whole(key_id), token_errors():
            session = self._require()
            if identity.algorithm.rsa_bits:
                session.generate_keypair(KeyType.RSA, identity.algorithm.rsa_bits, **options)
            else:
                p256 = identity.algorithm is Algorithm.P256
                kind = KeyType.EC if p256 else KeyType.EC_EDWARDS
                curve = encode_named_curve_parameters("secp256r1" if p256 else ED25519_OID)
                session.create_domain_parameters(
                    kind, {Attribute.EC_PARAMS: curve}, local=True
                ).generate_keypair(
                    mechanism=(
                        Mechanism.EC_KEY_PAIR_GEN if p256 else Mechanism.EC_EDWARDS_KEY_PAIR_GEN
                    ),
                    **options,
                )
            uri = replace(self._address(), label=identity.name, id=key_id)
            return self._take(identity, uri, self._made(uri, identity.algorithm), generated=True)

    @in_turn
    def adopt(self, identity: KeyIdentity, uri: str) -> GeneratedKey:
        """Take a key that is in the token already."""
        try:
            wanted = TokenUri.parse(uri)
        except ValueError as error:
            raise KeyUnusableError(f"the key's URI {error}") from None
        self._begin_anew()
        here = self._address()
        with token_errors():
            token = self._require().token
            made = (token.model.strip(), token.manufacturer_id.strip())
        if (
            wanted.token not in {"", here.token}
            or wanted.serial not in {"", here.serial}
            or wanted.model not in {"", made[0]}
            or wanted.manufacturer not in {"", made[1]}
        ):
            raise KeyUnusableError("the key's URI names another token")
        address = replace(here, label=wanted.label, id=wanted.id)
        found = self._find(address, identity.algorithm)
        if _OWN_LABEL.fullmatch(label(found[0])):
            # Its label does not say for which scheme: one that signs raw bytes with it would sign
            # anything for the other.
            raise KeyUnusableError(
                "the key in the token was made here, for a key version that knows it; restore a "
                "backup, or label it anew with the token's own tools"
            )
        return self._take(identity, address, found, generated=False)

    @in_turn
    def add(self, identity: KeyIdentity, pkcs8: bytes) -> GeneratedKey:
        """Put a private key, PKCS #8 DER, into the token, from where it never comes back."""
        self._require_able(identity.algorithm)
        private = load_private_key(identity, pkcs8)
        key_id = secrets.token_bytes(_ID_BYTES)
        common = {Attribute.TOKEN: True, Attribute.ID: key_id, Attribute.LABEL: identity.name}
        private_part, public_part = token_objects(private)
        with self._whole(key_id), token_errors():
            session = self._require()
            session.create_object({**private_part, **common, **PRIVATE_TEMPLATE})
            session.create_object({**public_part, **common, Attribute.VERIFY: True})
            uri = replace(self._address(), label=identity.name, id=key_id)
            return self._take(identity, uri, self._made(uri, identity.algorithm), generated=False)

    @contextlib.contextmanager
    def _whole(self, key_id: bytes) -> Iterator[None]:
        """Leave nothing in the token of a key that could not be made whole."""
        try:
            yield
        except Exception:
            # Nobody has its address: it would lie there for ever.
            with contextlib.suppress(HsmDownError), token_errors():
                for found in self._require().get_objects({Attribute.ID: key_id}):
                    found.destroy()
            raise

    def open(self, key: WrappedKey) -> HsmKey:
        """Return a key. Raises KeyUnusableError, HsmDownError."""
        at = (key.identity, key.blob)
        if at not in self._opened:
            self._opened[at] = self._load(key)
        return self._opened[at]

    def forget(self, key: WrappedKey) -> None:
        """Forget a key that was opened; see `TokenKeystore`."""
        self._opened.pop((key.identity, key.blob), None)

    @in_turn
    def _load(self, key: WrappedKey) -> HsmKey:
        uri = TokenUri.parse(self._sealer.unseal(key, TOKEN).decode())
        private, public = self._find(uri, key.identity.algorithm)
        if hashlib.sha256(spki_der(public)).digest() != key.identity.public_key_sha256:
            raise KeyUnusableError("private key does not belong to the public key on record")
        # It may have been put back with others than it had when it was made or taken.
        assert_attributes(private, uri, generated=False)
        loaded = HsmKey(private, public, key.identity.algorithm)
        loaded.sign(b"privyseal keyholder self-test")
        return loaded

    @in_turn
    def destroy(self, key: WrappedKey) -> None:
        """Destroy a key's objects in the token; see `TokenKeystore`."""
        uri = TokenUri.parse(self._sealer.unseal(key, TOKEN).decode())
        self.forget(key)
        self._begin_anew()
        if not self._privates(uri):
            # A token that went in this moment shows none, either, and has no other session.
            self._begin_anew()
            if not self._privates(uri):
                return
        private, public = self._find(uri, key.identity.algorithm)
        if hashlib.sha256(spki_der(public)).digest() != key.identity.public_key_sha256:
            raise KeyUnusableError("another key is at its address in the token; look at it there")
        with token_errors():
            session = self._require()
            object_id = bytes(private[Attribute.ID])
            private.destroy()
            for found in session.get_objects(
                {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: object_id}
            ):
                found.destroy()

    def _take(
        self, identity: KeyIdentity, uri: TokenUri, found: tuple[Any, PublicKey], *, generated: bool
    ) -> GeneratedKey:
        private, public = found
        protection = assert_attributes(private, uri, generated=generated)
        spki = spki_der(public)
        named = replace(identity, public_key_sha256=hashlib.sha256(spki).digest())
        HsmKey(private, public, identity.algorithm).sign(b"privyseal keyholder self-test")
        wrapped = WrappedKey(named, self._sealer.seal(named, TOKEN, str(uri).encode()))
        self._had_keys = True
        return GeneratedKey(wrapped, spki, protection)

    def _address(self) -> TokenUri:
        with token_errors():
            token = self._require().token
            serial = token.serial.rstrip(b"\0 ").decode("ascii", "replace")
            return TokenUri(token=token.label.strip(), serial=serial)

    def _require_able(self, algorithm: Algorithm) -> None:
        """Raise KeyUnusableError if the token cannot sign with such a key."""
        if algorithm is Algorithm.ML_DSA_65:
            raise KeyUnusableError("keys of ml-dsa-65 are in software only")
        wanted = {Algorithm.P256: Mechanism.ECDSA, Algorithm.ED25519: Mechanism.EDDSA}
        mechanism = wanted.get(algorithm, Mechanism.RSA_PKCS)
        with token_errors():
            able = self._require().token.slot.get_mechanisms()
        if mechanism not in able:
            raise KeyUnusableError(f"the token has no keys of {algorithm}")

    def _require(self) -> Any:
        if self._session is None:
            raise HsmDownError("there is no session")
        return self._session

    def _privates(self, uri: TokenUri) -> list[Any]:
        """Return the private keys that the session shows at an address."""
        named: dict[Attribute, Any] = {}
        if uri.label:
            named[Attribute.LABEL] = uri.label
        if uri.id:
            named[Attribute.ID] = uri.id
        with token_errors():
            wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, **named}
            return list(self._require().get_objects(wanted))

    def _made(self, uri: TokenUri, algorithm: Algorithm) -> tuple[Any, PublicKey]:
        """Return a key that the token has, since it said so a moment ago."""
        if not self._privates(uri):
            self._begin_anew()
            if not self._privates(uri):
                raise HsmDownError("the token does not show the key that it just made")
        return self._find(uri, algorithm)

    def _find(self, uri: TokenUri, algorithm: Algorithm) -> tuple[Any, PublicKey]:
        """Return the one private key at an address, and its public key."""
        found = self._privates(uri)
        if not found and time.monotonic() - self._connected_at > _FRESH:
            # A session that is older than what was done to its token shows no keys, for ever.
            raise HsmDownError("the token does not show the key in this session")
        if not found and not self._has_keys_shown():
            # One that was just made says the truth, unless the token went in that moment: then
            # there is no other.
            self._begin_anew()
            found = self._privates(uri)
        with token_errors():
            session = self._require()
            if len(found) != 1:
                how = "no" if not found else "more than one"
                raise KeyUnusableError(f"there is {how} private key of that address in the token")
            private = found[0]
            publics = list(
                session.get_objects(
                    {
                        Attribute.CLASS: ObjectClass.PUBLIC_KEY,
                        Attribute.ID: bytes(private[Attribute.ID]),
                    }
                )
            )
            source = publics[0] if len(publics) == 1 else private
            return private, public_key(source, private.key_type, algorithm)
