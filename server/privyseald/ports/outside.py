"""What the services ask of the world beside the store: keys, policies, tokens, time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from privyseal.verify.note import Checkpoint
from privyseal.verify.statement import Statement

from privyseald.model.approvals import Approval
from privyseald.model.policy import Caller, Decider
from privyseald.model.schemes import (
    CertificateTerms,
    GeneratedKey,
    KeyIdentity,
    KeyPlace,
    WrappedKey,
)
from privyseald.model.workload import Issuer, Workload


class KeyMaker(Protocol):
    """Makes key pairs, and takes those that exist."""

    async def generate(self, identity: KeyIdentity, place: KeyPlace = KeyPlace()) -> GeneratedKey:  # noqa: B008 - frozen
        """Make or take a key pair. Raises Unavailable, FailedPrecondition."""
        ...

    async def import_key(
        self, identity: KeyIdentity, sealed: bytes, *, token: bool
    ) -> GeneratedKey:
        """Take the private key of the public key that an identity names.

        Args:
            identity: What it becomes.
            sealed: The private key; see `privyseal.verify.importing`.
            token: Whether it goes into the token.

        Raises:
            FailedPrecondition: If it does not open, or is another key.
            Unavailable: If the keyholder cannot answer now.
        """
        ...

    async def destroy_unless_kept(self, made: WrappedKey) -> None:
        """Destroy a key pair that was made in the token, and of which the store knows nothing.

        It would stay there for ever, and nobody would know whose it is. What a commit that
        failed has written all the same is kept, and so is what cannot be looked up.
        """
        ...


class Keyholder(Protocol):
    """Has the private keys. Each signature was verified before it is returned."""

    async def generate(
        self,
        identity: KeyIdentity,
        place: KeyPlace = KeyPlace(),  # noqa: B008 - frozen
        certificate: CertificateTerms | None = None,
    ) -> GeneratedKey:
        """Make or take a key pair; see `KeyMaker`.

        With terms, it gets a certificate in the same step: a root never certifies a key that
        was not made there and then, nor for another time than now by the keyholder's clock.
        """
        ...

    async def import_key(
        self,
        identity: KeyIdentity,
        sealed: bytes,
        *,
        token: bool,
        certificate: CertificateTerms | None = None,
    ) -> GeneratedKey:
        """Take a private key; see `KeyMaker`. A certificate of it is self-signed."""
        ...

    async def sign_release(
        self, statement: Statement, statement_key: WrappedKey, scheme_keys: Sequence[WrappedKey]
    ) -> tuple[bytes, list[bytes]]:
        """Build and sign a statement, and sign its bundle with each scheme key.

        Returns the statement's payload, then the statement's signature followed by one per
        scheme key. Raises Unavailable, FailedPrecondition.
        """
        ...

    async def sign_archive(
        self, statement: Statement, keys: Sequence[WrappedKey], pieces: AsyncIterator[bytes]
    ) -> list[bytes]:
        """Sign the archive of a release as it is, with keys of schemes that sign that.

        Args:
            statement: What was signed of it.
            keys: Of its app.
            pieces: The archive.

        Raises:
            InvalidArgument: If it is another archive than the statement's.
            FailedPrecondition: If a key cannot be used.
            Unavailable: If the keyholder cannot answer now.
        """
        ...

    async def sign_successor(
        self, old: WrappedKey, new: WrappedKey, new_public_key: bytes, at: int
    ) -> bytes:
        """Have an old version say which comes after it; see `privyseal.verify.successor`.

        The new public key is checked against the new version, whose wrapping binds its digest:
        a changed row of the database gets no record.

        Raises Unavailable, FailedPrecondition.
        """
        ...

    async def destroy(self, key: WrappedKey) -> None:
        """Destroy a private key where it is, if it is in a token, and forget it everywhere.

        One that is gone is destroyed. Raises Unavailable.
        """
        ...


class Spool(Protocol):
    """Takes archives whole, so that nobody waits for who sends one slowly."""

    def hold(
        self, pieces: AsyncIterator[bytes], most: int
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Take an archive, give it back, and keep nothing of it afterwards.

        Args:
            pieces: What comes of it.
            most: Its length at most, in bytes.

        Raises:
            InvalidArgument: If it is longer.
            ResourceExhausted: If there are too many.
            Unavailable: If there is no room for it.
        """
        ...


class Alarm(Protocol):
    """Makes people notice."""

    def break_glass(self, what: str, approval: Approval) -> None:
        """Tell of an emergency: it was requested or opened."""
        ...

    def certificate_ends(self, key: str, ends: int, error: str) -> None:
        """Tell of a key whose certificate ends soon, and that could not be rotated.

        Args:
            key: Its name.
            ends: Seconds since 1970, UTC.
            error: What kept it from that, in a word; empty if deployed releases lack the new
                signature.
        """
        ...

    def duty_failed(self, duty: str, error: Exception, of: str = "") -> None:
        """Tell of something that was due, and could not be done; it is tried again.

        Args:
            duty: What was to be done, in words.
            error: What kept it from that.
            of: The name of what it was due for, if that is one thing.
        """
        ...


class Clock(Protocol):
    """Tells the time."""

    def __call__(self) -> int:
        """Return seconds since 1970, UTC."""
        ...


class PolicySet(Protocol):
    """Compiled policies."""

    def decider(self, caller: Caller, *, keep: bool = True) -> Decider:
        """Return the policies as they apply to a caller and its grants.

        Args:
            caller: Who asks.
            keep: Whether the caller is real, and will be back.
        """
        ...


class Policies(Protocol):
    """Compiles a team's policies together with the built-in ones."""

    def compile(self, text: str) -> PolicySet:
        """Return policies that can be asked. Raises InvalidArgument, naming the policy."""
        ...


class TokenVerifier(Protocol):
    """Verifies CI systems' identity tokens."""

    @property
    def issuers(self) -> tuple[Issuer, ...]:
        """The issuers that are trusted."""
        ...

    async def verify(self, token: str, now: int) -> tuple[Issuer, Workload]:
        """Return what a token says, once everything about it but its single use was checked.

        Raises:
            TokenRefused: With a reason of its own for each thing that can be wrong.
            Unavailable: If the issuer's keys cannot be had.
        """
        ...


class LastCheckpoint(Protocol):
    """The newest checkpoint, kept where restoring the database does not reach it."""

    def read(self) -> Checkpoint | None:
        """Return it; None if there is none. Raises OSError."""
        ...

    def doubt(self) -> str:
        """Return why nothing may be signed while none is kept; empty if nothing is against it."""
        ...

    def write(self, note: str) -> None:
        """Keep another, a signed note. Raises OSError."""
        ...


class Archive(Protocol):
    """A backup that was made."""

    sha256: bytes
    size: int

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield it."""
        ...

    def discard(self) -> None:
        """Remove what is left of it here."""
        ...


class Archiver(Protocol):
    """Makes backups of state, log and wrapped keys, of one moment."""

    async def make(self) -> Archive:
        """Make one. Raises FailedPrecondition if nobody could open it; Unavailable."""
        ...


class Peers(Protocol):
    """Says whom a client certificate stands for."""

    def identify(self, certificate: bytes, chain: bytes) -> tuple[str, str]:
        """Return the principal and the serial number (hexadecimal).

        TLS checked that some trusted CA issued the certificate; this checks that it is one
        that may issue for the name in it.

        Args:
            certificate: PEM.
            chain: What the peer sent, PEM.

        Raises:
            Unauthenticated: If it stands for nobody.
        """
        ...
