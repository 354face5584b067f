"""Certificates for keys whose devices embed one, or are sent one: built from typed fields.

What `expo-updates` wants (its `codesigning` package, and RFC 5280): of what signs manifests,
KeyUsage digitalSignature and ExtendedKeyUsage codeSigning; of a root, BasicConstraints CA and
KeyUsage keyCertSign; all of them critical. Signed with RSASSA-PKCS1-v1_5 and SHA-256.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from asn1crypto import core, keys, x509

from privyseald.keyholder.keystore import KeyUnusableError, Signer
from privyseald.model.schemes import KeyIdentity, Scheme

DAY = 24 * 3600
MAX_SELF_SIGNED = 30 * 366 * DAY
MAX_ISSUED = 400 * DAY
"""The most that a certificate lasts, in seconds: self-signed, and issued by a root."""
_SERIAL = 16
_UTC_TIME_ENDS = 2050
_ALGORITHM = {"algorithm": "sha256_rsa", "parameters": core.Null()}


@dataclass(frozen=True)
class Party:
    """A key version, with its public key (SubjectPublicKeyInfo DER)."""

    identity: KeyIdentity
    public_key: bytes

    @property
    def name(self) -> x509.Name:
        """Its distinguished name, by which a chain is found."""
        return x509.Name.build({"common_name": self.identity.name.removeprefix("apps/")})


@dataclass(frozen=True)
class Validity:
    """From when to when a certificate counts, seconds since 1970, UTC."""

    begins: int
    ends: int

    def check(self, now: float, most: int) -> None:
        """Check that it begins about now, and lasts no longer than it may.

        An issuer that certified the future would do so for whoever once asked it to.

        Raises:
            KeyUnusableError: If it does not.
        """
        if not now - 2 * DAY <= self.begins <= now + DAY:
            raise KeyUnusableError("a certificate would begin at another time than now")
        if not 0 < self.ends - self.begins <= most:
            raise KeyUnusableError("a certificate would last too long, or not at all")


def issue(subject: Party, issuer: Party, signer: Signer, validity: Validity, now: float) -> bytes:
    """Return a certificate, DER, for `expo-v1` and `expo-root-v1` versions.

    Args:
        subject: Whose it is.
        issuer: The app's root, or the subject itself.
        signer: The issuer's private key.
        validity: When it counts.
        now: The time, seconds since 1970, UTC.

    Raises:
        KeyUnusableError: If the two do not go together, or it would count otherwise than now.
    """
    _check(subject, issuer)
    validity.check(now, MAX_SELF_SIGNED if subject.identity == issuer.identity else MAX_ISSUED)
    is_root = subject.identity.scheme is Scheme.EXPO_ROOT_V1
    tbs = x509.TbsCertificate(
        {
            "version": "v3",
            # Positive, and of 128 bits by chance (RFC 5280 section 4.1.2.2).
            "serial_number": int.from_bytes(b"\x01" + secrets.token_bytes(_SERIAL)),
            "signature": _ALGORITHM,
            "issuer": issuer.name,
            "validity": {"not_before": _time(validity.begins), "not_after": _time(validity.ends)},
            "subject": subject.name,
            "subject_public_key_info": keys.PublicKeyInfo.load(subject.public_key),
            "extensions": [
                *(_of_root() if is_root else _of_signer()),
                _extension("key_identifier", core.OctetString(_key_id(subject)), critical=False),
                _extension(
                    "authority_key_identifier",
                    x509.AuthorityKeyIdentifier({"key_identifier": _key_id(issuer)}),
                    critical=False,
                ),
            ],
        }
    )
    certificate = x509.Certificate(
        {
            "tbs_certificate": tbs,
            "signature_algorithm": _ALGORITHM,
            "signature_value": signer.sign(tbs.dump()),
        }
    )
    return bytes(certificate.dump())


def _check(subject: Party, issuer: Party) -> None:
    mine, theirs = subject.identity, issuer.identity
    itself = mine == theirs
    if mine.scheme not in {Scheme.EXPO_V1, Scheme.EXPO_ROOT_V1}:
        raise KeyUnusableError(f"{mine.scheme} keys have no certificates")
    if not itself and (
        mine.scheme is not Scheme.EXPO_V1
        or theirs.scheme is not Scheme.EXPO_ROOT_V1
        or mine.app != theirs.app
    ):
        raise KeyUnusableError("only an app's root issues certificates, for its expo-v1 versions")
    for party in (subject, issuer):
        if hashlib.sha256(party.public_key).digest() != party.identity.public_key_sha256:
            raise KeyUnusableError("a public key is not the version's")


def _of_root() -> list[x509.Extension]:
    return [
        _extension(
            "basic_constraints", x509.BasicConstraints({"ca": True, "path_len_constraint": 0})
        ),
        _extension("key_usage", x509.KeyUsage({"key_cert_sign"})),
    ]


def _of_signer() -> list[x509.Extension]:
    return [
        _extension("key_usage", x509.KeyUsage({"digital_signature"})),
        _extension("extended_key_usage", x509.ExtKeyUsageSyntax(["code_signing"])),
    ]


def _extension(name: str, value: core.Asn1Value, *, critical: bool = True) -> x509.Extension:
    return x509.Extension({"extn_id": name, "critical": critical, "extn_value": value})


def _key_id(party: Party) -> bytes:
    """Return the key identifier of RFC 5280 section 4.2.1.2, method 1."""
    return bytes(keys.PublicKeyInfo.load(party.public_key).sha1)


def _time(seconds: int) -> x509.Time:
    at = datetime.fromtimestamp(seconds, UTC)
    kind = "utc_time" if at.year < _UTC_TIME_ENDS else "general_time"
    return x509.Time({kind: at})
