"""Keys as objects of a token: what makes them, and what they say of themselves."""

from __future__ import annotations

from typing import Any

from asn1crypto.core import OctetString
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pkcs11 import Attribute, KeyType, ObjectClass
from pkcs11.exceptions import AttributeTypeInvalid, PKCS11Error
from pkcs11.util.ec import encode_named_curve_parameters
from pkcs11.util.rsa import decode_rsa_private_key, decode_rsa_public_key
from privyseal.verify.keys import PublicKey

from privyseald.keyholder.hsm_session import token_errors
from privyseald.keyholder.keystore import KeyUnusableError, PrivateKey
from privyseald.keyholder.token_uri import TokenUri
from privyseald.model.schemes import Algorithm

ED25519_OID = "1.3.101.112"
PRIVATE_TEMPLATE = {
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.PRIVATE: True,
    Attribute.SIGN: True,
    Attribute.DECRYPT: False,
    Attribute.UNWRAP: False,
    Attribute.DERIVE: False,
}
"""A key that signs, and does nothing else."""
_ASSERTED = ("SENSITIVE", "EXTRACTABLE", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "LOCAL")


def label(private: Any) -> str:
    """Return an object's label; empty if it has none, or the module knows of none."""
    with token_errors():
        try:
            return str(private[Attribute.LABEL])
        except AttributeTypeInvalid:
            return ""


def token_objects(private: PrivateKey) -> tuple[dict[Attribute, Any], dict[Attribute, Any]]:
    """Return what makes a private key and its public key objects of a token."""
    der, raw = serialization.Encoding.DER, serialization.Encoding.Raw
    plain = serialization.NoEncryption()
    if isinstance(private, rsa.RSAPrivateKey):
        form = serialization.PrivateFormat.TraditionalOpenSSL
        pkcs1 = serialization.PublicFormat.PKCS1
        return (
            decode_rsa_private_key(private.private_bytes(der, form, plain)),
            decode_rsa_public_key(private.public_key().public_bytes(der, pkcs1)),
        )
    if isinstance(private, ec.EllipticCurvePrivateKey):
        kind, curve = KeyType.EC, encode_named_curve_parameters("secp256r1")
        value = private.private_numbers().private_value.to_bytes(32)
        point = private.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
    elif isinstance(private, ed25519.Ed25519PrivateKey):
        kind, curve = KeyType.EC_EDWARDS, encode_named_curve_parameters(ED25519_OID)
        value = private.private_bytes(raw, serialization.PrivateFormat.Raw, plain)
        point = private.public_key().public_bytes(raw, serialization.PublicFormat.Raw)
    else:
        raise KeyUnusableError("keys of ml-dsa-65 are in software only")
    common = {Attribute.KEY_TYPE: kind, Attribute.EC_PARAMS: curve}
    return (
        {Attribute.CLASS: ObjectClass.PRIVATE_KEY, **common, Attribute.VALUE: value},
        {
            Attribute.CLASS: ObjectClass.PUBLIC_KEY,
            **common,
            Attribute.EC_POINT: OctetString(point).dump(),
        },
    )


def public_key(source: Any, kind: KeyType, algorithm: Algorithm) -> PublicKey:
    """Return the public key that an object shows. Raises KeyUnusableError."""
    try:
        if kind is KeyType.RSA and algorithm.rsa_bits:
            modulus = int.from_bytes(source[Attribute.MODULUS])
            exponent = int.from_bytes(source[Attribute.PUBLIC_EXPONENT])
            if modulus.bit_length() == algorithm.rsa_bits:
                return rsa.RSAPublicNumbers(exponent, modulus).public_key()
        elif kind in {KeyType.EC, KeyType.EC_EDWARDS}:
            # A point comes wrapped in an OCTET STRING.
            point = bytes(OctetString.load(bytes(source[Attribute.EC_POINT]), strict=True).native)
            if kind is KeyType.EC and algorithm is Algorithm.P256:
                return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
            if kind is KeyType.EC_EDWARDS and algorithm is Algorithm.ED25519:
                return ed25519.Ed25519PublicKey.from_public_bytes(point)
    except (AttributeTypeInvalid, ValueError):
        raise KeyUnusableError("the token does not show the key's public part") from None
    raise KeyUnusableError(f"the key in the token is not {algorithm}")


def assert_attributes(private: Any, uri: TokenUri, *, generated: bool) -> dict[str, str]:
    """Return what the token says of a private key, and refuse one that could leave it."""
    told: dict[str, str] = {"backend": "pkcs11", "uri": str(uri)}
    for name in _ASSERTED:
        try:
            told[name.lower()] = str(bool(private[getattr(Attribute, name)])).lower()
        except PKCS11Error:
            told[name.lower()] = "unknown"
    if told["sensitive"] != "true" or told["extractable"] != "false":
        raise KeyUnusableError("the token would give the private key away; it must be sensitive")
    if generated and "false" in (
        told[n] for n in ("always_sensitive", "never_extractable", "local")
    ):
        raise KeyUnusableError("the token did not make the key as asked")
    told["origin"] = "generated in the token" if told["local"] == "true" else "imported"
    return told
