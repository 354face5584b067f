"""What the store keeps, as values. Times are seconds since 1970, UTC."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from privyseal.verify.statement import NativeRange

from privyseald.model.lifecycle import Life, born
from privyseald.model.schemes import (
    Algorithm,
    GeneratedKey,
    KeyIdentity,
    KeyVersionState,
    Scheme,
    WrappedKey,
)


@dataclass(frozen=True)
class AppRecord:
    """One mobile app."""

    id: str
    display_name: str
    created_at: int


@dataclass(frozen=True)
class KeyVersionRecord:
    """One key pair: public key as SubjectPublicKeyInfo DER, private key wrapped."""

    app: str
    key: str
    version: int
    scheme: Scheme
    algorithm: Algorithm
    state: KeyVersionState
    public_key: bytes
    public_key_sha256: bytes
    blob: bytes
    created_at: int
    protection: Mapping[str, str] = field(default_factory=dict)
    before: KeyVersionState | None = None
    destroy_at: int = 0
    activated_at: int = 0
    expires_at: int = 0
    compromised_at: int = 0
    certificate: bytes = b""
    certificate_begins: int = 0
    certificate_ends: int = 0
    anchor_sha256: bytes = b""

    @classmethod
    def of(cls, made: GeneratedKey, state: KeyVersionState, now: int) -> KeyVersionRecord:
        """Return the record of a new key pair, PRE_ACTIVATION or ACTIVE."""
        identity = made.wrapped.identity
        record = cls(
            app=identity.app,
            key=identity.key,
            version=identity.version,
            scheme=identity.scheme,
            algorithm=identity.algorithm,
            state=state,
            public_key=made.public_key,
            public_key_sha256=identity.public_key_sha256,
            blob=made.wrapped.blob,
            created_at=now,
            protection=made.protection,
        )
        if (certified := made.certified) is not None:
            record = replace(
                record,
                certificate=certified.certificate,
                certificate_begins=certified.begins,
                certificate_ends=certified.ends,
                anchor_sha256=certified.anchor_sha256,
            )
        return record.living(born(state, now))

    @cached_property
    def life(self) -> Life:
        """Its state, and the times that go with it."""
        return Life(
            self.state,
            self.before,
            self.destroy_at,
            self.activated_at,
            self.expires_at,
            self.compromised_at,
        )

    def living(self, life: Life) -> KeyVersionRecord:
        """Return it with another life; destroyed, it has no private key."""
        blob = b"" if life.state is KeyVersionState.DESTROYED else self.blob
        return replace(self, blob=blob, **vars(life))

    @cached_property
    def name(self) -> str:
        """apps/{app}/keys/{key}/versions/{n}."""
        return f"apps/{self.app}/keys/{self.key}/versions/{self.version}"

    def trusted_with(self, trusts: Container[bytes]) -> bool:
        """Say whether a binary with certain public keys (their digests) takes its signatures.

        It has the version's own, or the one that its certificate hangs on.
        """
        return self.public_key_sha256 in trusts or (
            bool(self.anchor_sha256) and self.anchor_sha256 in trusts
        )

    @cached_property
    def wrapped(self) -> WrappedKey:
        """What the keyholder needs."""
        identity = KeyIdentity(
            self.app,
            self.key,
            self.version,
            self.scheme,
            self.algorithm,
            self.public_key_sha256,
        )
        return WrappedKey(identity, self.blob)


@dataclass(frozen=True)
class KeyRecord:
    """One purpose of one app.

    `given_up` says that releases are signed without it, until another version is promoted.
    """

    app: str
    id: str
    scheme: Scheme
    primary: int
    created_at: int
    versions: tuple[KeyVersionRecord, ...]
    cryptoperiod_days: int = 0
    given_up: bool = False

    @property
    def name(self) -> str:
        """apps/{app}/keys/{key}."""
        return f"apps/{self.app}/keys/{self.id}"

    def version(self, number: int) -> KeyVersionRecord | None:
        """Return a version by its number."""
        return next((v for v in self.versions if v.version == number), None)


@dataclass(frozen=True)
class TokenRecord:
    """An API token; of its secret only the SHA-256 is kept."""

    id: str
    display_name: str
    secret_sha256: bytes
    created_at: int
    expires_at: int
    revoked: bool = False


@dataclass(frozen=True)
class SessionRecord:
    """What a workload got for its identity token: one app, the bundles it named, minutes.

    `attributes` is what the token said, `digests` are SHA-256 of bundles; the secret is kept
    as its SHA-256.
    """

    id: str
    principal: str
    secret_sha256: bytes
    attributes: Mapping[str, str]
    app: str
    digests: tuple[bytes, ...]
    created_at: int
    expires_at: int


@dataclass(frozen=True)
class PolicyRecord:
    """A team's policies as they were applied; the highest version is in force."""

    version: int
    text: str
    principal: str
    created_at: int


@dataclass(frozen=True)
class DeniedCertificate:
    """A client certificate that does not count any more, by its serial number (hexadecimal)."""

    serial: str
    reason: str
    principal: str
    created_at: int


@dataclass(frozen=True)
class SignedRecord:
    """A release that was signed.

    `content_sha256` tells whether another is the same; `signers` names the key versions that
    signed it, ` {key}/{version} ` each.
    """

    app: str
    version: str
    counter: int
    content_sha256: bytes
    receipt: bytes
    created_at: int
    signers: str = ""

    def versions_of(self, key: str) -> frozenset[int]:
        """Return the numbers of a key's versions that signed it."""
        found = (text.rpartition("/") for text in self.signers.split())
        return frozenset(int(number) for name, _, number in found if name == key)


def signers_text(names: Iterable[str]) -> str:
    """Return the key versions of names such as apps/a/keys/k/versions/2, as they are kept."""
    short = (name.split("/")[3::2] for name in names)
    return " " + " ".join(f"{key}/{number}" for key, number in short) + " "


@dataclass(frozen=True)
class SuccessorRecord:
    """What an old version said of the next; `number` counts from 1."""

    app: str
    key: str
    number: int
    record: bytes
    created_at: int


@dataclass(frozen=True)
class ReleaseRecord:
    """A registered release."""

    app: str
    counter: int
    version: str
    artifact_url: str
    artifact_type: str
    bundle_sha256: bytes
    bundle_length: int
    signed_ranges: tuple[NativeRange, ...]
    ranges: tuple[NativeRange, ...]
    commit_sha: str
    commit_ref: str
    commit_message: str
    created_at: int
    withdrawn_at: int = 0

    @property
    def name(self) -> str:
        """apps/{app}/releases/{n}."""
        return f"apps/{self.app}/releases/{self.counter}"


@dataclass(frozen=True)
class ChannelRecord:
    """A channel; `counter` is the release it points at, 0 before the first deployment."""

    app: str
    id: str
    counter: int
    log_index: int
    created_at: int

    @property
    def name(self) -> str:
        """apps/{app}/channels/{channel}."""
        return f"apps/{self.app}/channels/{self.id}"


@dataclass(frozen=True)
class DeploymentRecord:
    """The act of pointing a channel at a release."""

    app: str
    channel: str
    counter: int
    version: str
    principal: str
    created_at: int
    log_index: int


@dataclass(frozen=True)
class LogHead:
    """The newest checkpoint, signed."""

    size: int
    root: bytes
    note: str
