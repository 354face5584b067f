"""Schemes and algorithms: which goes with which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from privyseald.model.errors import InvalidArgument


class Scheme(StrEnum):
    """How signing input and signature look for one device protocol."""

    STATEMENT_V1 = "statement-v1"
    CAPAWESOME_V1 = "capawesome-v1"
    CAPGO_V2 = "capgo-v2"
    CODEPUSH_V1 = "codepush-v1"
    MINISIGN = "minisign"
    SPARKLE_ED25519 = "sparkle-ed25519"
    STATEMENT_ML_DSA_V1 = "statement-ml-dsa-v1"
    EXPO_V1 = "expo-v1"
    # Signs the certificates of expo-v1 versions, and no release.
    EXPO_ROOT_V1 = "expo-root-v1"


class Algorithm(StrEnum):
    """The algorithm of a key pair."""

    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    P256 = "p256"
    ED25519 = "ed25519"
    ML_DSA_65 = "ml-dsa-65"

    @property
    def rsa_bits(self) -> int:
        """The modulus length in bits, 0 if it is not RSA."""
        return int(self.value[4:]) if self.value.startswith("rsa-") else 0


class KeyVersionState(StrEnum):
    """NIST SP 800-57 part 1 section 7, and scheduled destruction."""

    PRE_ACTIVATION = "pre-activation"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DEACTIVATED = "deactivated"
    COMPROMISED = "compromised"
    DESTROYED = "destroyed"
    DESTROY_SCHEDULED = "destroy-scheduled"


_RSA = (Algorithm.RSA_2048, Algorithm.RSA_3072, Algorithm.RSA_4096)
#: Scheme -> the algorithms it can use, the default first.
ALGORITHMS: dict[Scheme, tuple[Algorithm, ...]] = {
    Scheme.STATEMENT_V1: (Algorithm.ED25519, Algorithm.P256, *_RSA),
    # iOS asks the keychain for an RSA key of 2,048 bits, hence that default.
    Scheme.CAPAWESOME_V1: _RSA,
    # The plugin refuses a checksum that is not 256 bytes.
    Scheme.CAPGO_V2: (Algorithm.RSA_2048,),
    Scheme.CODEPUSH_V1: _RSA,
    Scheme.MINISIGN: (Algorithm.ED25519,),
    Scheme.SPARKLE_ED25519: (Algorithm.ED25519,),
    Scheme.STATEMENT_ML_DSA_V1: (Algorithm.ML_DSA_65,),
    Scheme.EXPO_V1: _RSA,
    Scheme.EXPO_ROOT_V1: _RSA,
}


ARCHIVE_SCHEMES = frozenset({Scheme.SPARKLE_ED25519})
"""What signs the archive itself, and so needs all of its bytes."""
APART = ARCHIVE_SCHEMES | {Scheme.EXPO_ROOT_V1}
"""What does not sign a release together with the others."""


@dataclass(frozen=True)
class KeyIdentity:
    """Names one key version and says what it is; bound into its wrapped private key."""

    app: str
    key: str
    version: int
    scheme: Scheme
    algorithm: Algorithm
    public_key_sha256: bytes = b""

    @property
    def name(self) -> str:
        """apps/{app}/keys/{key}/versions/{n}."""
        return f"apps/{self.app}/keys/{self.key}/versions/{self.version}"


IN_TOKEN = b"\x02"
"""The first byte of a wrapped key of which only the address is wrapped."""


@dataclass(frozen=True)
class WrappedKey:
    """A key version and its private key, readable by the keyholder alone."""

    identity: KeyIdentity
    blob: bytes

    @property
    def in_token(self) -> bool:
        """Whether the private key is in a token; the blob's format says so."""
        return self.blob[:1] == IN_TOKEN


@dataclass(frozen=True)
class KeyPlace:
    """Where a new private key is to be: in software, or in the daemon's token.

    Attributes:
        token: In the token.
        uri: The address (RFC 7512) of a key that is in the token already.
    """

    token: bool = False
    uri: str = ""


@dataclass(frozen=True)
class CertificateTerms:
    """What certificate a new key version is to have.

    Attributes:
        begins: Seconds since 1970, UTC.
        ends: As `begins`.
        issuer: The app's root and its public key (SubjectPublicKeyInfo DER); self-signed if
            absent.
    """

    begins: int
    ends: int
    issuer: tuple[WrappedKey, bytes] | None = None


@dataclass(frozen=True)
class Certified:
    """A certificate for a key version.

    Attributes:
        certificate: X.509, DER.
        begins: When it begins, seconds since 1970.
        ends: When it ends.
        anchor_sha256: SHA-256 of the public key (SubjectPublicKeyInfo DER) that it hangs on,
            and that binaries embed; empty if it is self-signed.
    """

    certificate: bytes
    begins: int
    ends: int
    anchor_sha256: bytes = b""


@dataclass(frozen=True)
class GeneratedKey:
    """A new key pair: wrapped private key and SubjectPublicKeyInfo DER.

    `protection` says, for people, where the private key is and what its token says of it;
    `certified` is there for schemes whose devices want a certificate.
    """

    wrapped: WrappedKey
    public_key: bytes
    protection: Mapping[str, str] = field(default_factory=dict)
    certified: Certified | None = None


def choose_algorithm(scheme: Scheme, wanted: Algorithm | None) -> Algorithm:
    """Return the algorithm for a new key.

    Raises:
        InvalidArgument: If the scheme cannot use the one wanted.
    """
    allowed = ALGORITHMS[scheme]
    if wanted is None:
        return allowed[0]
    if wanted not in allowed:
        choices = ", ".join(allowed)
        raise InvalidArgument("algorithm", f"{scheme} keys are one of {choices}, not {wanted}")
    return wanted
