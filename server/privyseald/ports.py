"""What the services ask of the world. The comments are obligations on implementations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from privyseal.verify.canonical import Json
from privyseal.verify.note import Checkpoint
from privyseal.verify.statement import NativeRange, Statement

from privyseald.model.approvals import Approval
from privyseald.model.field import CheckIns, NativeBuild
from privyseald.model.policy import Caller, Decider, Grant
from privyseald.model.records import (
    AppRecord,
    ChannelRecord,
    DeniedCertificate,
    DeploymentRecord,
    KeyRecord,
    KeyVersionRecord,
    LogHead,
    PolicyRecord,
    ReleaseRecord,
    SessionRecord,
    SignedRecord,
    SuccessorRecord,
    TokenRecord,
)
from privyseald.model.rotation import Rotation
from privyseald.model.schemes import (
    GeneratedKey,
    KeyIdentity,
    KeyPlace,
    WrappedKey,
)
from privyseald.model.workload import Issuer, Workload


class Keyholder(Protocol):
    """Has the private keys. Each signature was verified before it is returned."""

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

    async def sign_release(
        self, statement: Statement, statement_key: WrappedKey, scheme_keys: Sequence[WrappedKey]
    ) -> tuple[bytes, list[bytes]]:
        """Build and sign a statement, and sign its bundle with each scheme key.

        Returns the statement's payload, then the statement's signature followed by one per
        scheme key. Raises Unavailable, FailedPrecondition.
        """
        ...

    async def sign_successor(
        self, old: WrappedKey, new_version: int, new_public_key: bytes, at: int
    ) -> bytes:
        """Have an old version say which comes after it; see `privyseal.verify.successor`.

        Raises Unavailable, FailedPrecondition.
        """
        ...

    async def destroy(self, key: WrappedKey) -> None:
        """Destroy a private key where it is, if it is in a token, and forget it everywhere.

        One that is gone is destroyed. Raises Unavailable.
        """
        ...


class Alarm(Protocol):
    """Makes people notice."""

    def break_glass(self, what: str, approval: Approval) -> None:
        """Tell of an emergency: it was requested or opened."""
        ...


class Clock(Protocol):
    """Tells the time."""

    def __call__(self) -> int:
        """Return seconds since 1970, UTC."""
        ...


class PolicySet(Protocol):
    """Compiled policies."""

    def decider(self, caller: Caller) -> Decider:
        """Return the policies as they apply to a caller and its grants."""
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


class Apps(Protocol):
    """The apps."""

    def get(self, app: str) -> AppRecord | None:
        """Return one."""
        ...

    def add(self, record: AppRecord) -> None:
        """Add one that is not there."""
        ...

    def list(self, after: str, limit: int) -> list[AppRecord]:
        """Return those with an id above `after`, ordered."""
        ...


class Keys(Protocol):
    """Keys and their versions."""

    def get(self, app: str, key: str) -> KeyRecord | None:
        """Return one with its versions."""
        ...

    def list(self, app: str) -> list[KeyRecord]:
        """Return an app's keys with their versions, ordered by id."""
        ...

    def add(self, record: KeyRecord) -> None:
        """Add a key with its versions."""
        ...

    def by_digest(self, public_key_sha256: bytes) -> KeyVersionRecord | None:
        """Return the version that has a public key, of whichever app."""
        ...

    def add_version(self, record: KeyVersionRecord) -> None:
        """Add a version to a key that is there; raises the revision."""
        ...

    def put_version(self, record: KeyVersionRecord) -> None:
        """Give a version its life and its blob, which is empty once destroyed; raises it, too."""
        ...

    def set_primary(self, app: str, key: str, version: int) -> None:
        """Make a version the primary; raises the revision."""
        ...

    def set_cryptoperiod(self, app: str, key: str, days: int) -> None:
        """Set how long the key's new versions may sign; 0 for ever."""
        ...

    def due(self, now: int) -> Sequence[KeyVersionRecord]:
        """Return the versions whose destruction is due, of all apps."""
        ...

    def expiring(self) -> Sequence[KeyVersionRecord]:
        """Return the active versions whose cryptoperiod has an end, of all apps."""
        ...


class Tokens(Protocol):
    """Credentials that callers hold, and those that do not count any more."""

    def get(self, token_id: str) -> TokenRecord | None:
        """Return an API token."""
        ...

    def list(self) -> list[TokenRecord]:
        """Return all API tokens, newest first."""
        ...

    def put(self, record: TokenRecord) -> None:
        """Add an API token, or replace the one of its id; raises the revision."""
        ...

    def session(self, session_id: str) -> SessionRecord | None:
        """Return a workload's session."""
        ...

    def add_session(self, record: SessionRecord) -> None:
        """Add a session."""
        ...

    def use(self, issuer: str, token_sha256: bytes, expires_at: int) -> bool:
        """Note that an identity token was used; False if it had been."""
        ...

    def denied(self, serial: str) -> DeniedCertificate | None:
        """Return a certificate that is denied."""
        ...

    def denials(self) -> Sequence[DeniedCertificate]:
        """Return all certificates that are denied."""
        ...

    def deny(self, record: DeniedCertificate) -> None:
        """Deny a certificate; raises the revision."""
        ...


class Grants(Protocol):
    """Who has which role where. Every change raises the revision."""

    def list(self, *, principal: str = "", app: str = "", grant_id: str = "") -> list[Grant]:
        """Return the grants that match every argument given; an app's include those on all."""
        ...

    def add(self, grant: Grant) -> None:
        """Add a grant."""
        ...

    def remove(self, grant_id: str) -> None:
        """Remove a grant."""
        ...


class PolicyHistory(Protocol):
    """The team's policies."""

    def get(self, version: int = 0) -> PolicyRecord | None:
        """Return a version, the newest if none is named; None if there is none."""
        ...

    def add(self, record: PolicyRecord) -> None:
        """Put a new version in force; raises the revision."""
        ...


class Approvals(Protocol):
    """Requests for consent."""

    def get(self, approval_id: str) -> Approval | None:
        """Return one."""
        ...

    def list(self, app: str) -> list[Approval]:
        """Return an app's, newest first, at most 200."""
        ...

    def consented(self, app: str, action: str, now: int) -> Sequence[Approval]:
        """Return an app's for an action that somebody consented to and that have not ended.

        Requests alone are left out: whoever may ask could hide a consent behind them.
        """
        ...

    def put(self, record: Approval) -> None:
        """Add one, or replace the one of its id."""
        ...


class Releases(Protocol):
    """Signed and registered releases, channels and deployments."""

    def signed(self, app: str, *, version: str = "", counter: int = 0) -> SignedRecord | None:
        """Return what was signed, by version or by counter."""
        ...

    def signed_by(self, app: str, key: str, version: int, since: int) -> Sequence[SignedRecord]:
        """Return what a key version signed since a time, oldest first."""
        ...

    def sign_again(self, record: SignedRecord) -> None:
        """Replace the signers of what was signed, and its receipt with `set_receipt`."""
        ...

    def last_counter(self, app: str) -> int:
        """Return the highest counter signed, 0 if there is none."""
        ...

    def add_signed(self, record: SignedRecord) -> None:
        """Add it. Raises CounterTakenError if its counter was taken meanwhile."""
        ...

    def set_receipt(self, app: str, version: str, receipt: bytes) -> None:
        """Complete what was added in this transaction."""
        ...

    def get(self, app: str, counter: int) -> ReleaseRecord | None:
        """Return a registered release."""
        ...

    def add(self, record: ReleaseRecord) -> None:
        """Register a release."""
        ...

    def list(self, app: str, below: int, limit: int) -> list[ReleaseRecord]:
        """Return releases with a counter under `below`, newest first."""
        ...

    def set_ranges(self, app: str, counter: int, ranges: tuple[NativeRange, ...]) -> None:
        """Replace the ranges that narrow a release."""
        ...

    def withdraw(self, app: str, counter: int, at: int) -> None:
        """Mark a release as withdrawn, which is for ever."""
        ...


class NativeBuilds(Protocol):
    """Store binaries, and how often their devices ask."""

    def list(self, app: str) -> list[NativeBuild]:
        """Return an app's builds in the order of their registration."""
        ...

    def put(self, build: NativeBuild) -> None:
        """Add one, or replace the one of its id; raises the revision."""
        ...

    def check_ins(self, app: str, since_day: int) -> Sequence[CheckIns]:
        """Return an app's check-ins since a day."""
        ...


class Rotations(Protocol):
    """Rotations, and what old versions said of their successors."""

    def get(self, app: str, key: str, rotation: str) -> Rotation | None:
        """Return one."""
        ...

    def list(self, app: str, key: str = "") -> list[Rotation]:
        """Return those of an app, or of one key; those of a key oldest first."""
        ...

    def put(self, record: Rotation) -> None:
        """Add one, or replace the one of its id."""
        ...

    def successors(self, app: str, key: str) -> Sequence[SuccessorRecord]:
        """Return a key's successor records, oldest first."""
        ...

    def add_successor(self, record: SuccessorRecord) -> None:
        """Add one."""
        ...


class Channels(Protocol):
    """Channels and their deployments."""

    def list(self, app: str, channel: str = "") -> list[ChannelRecord]:
        """Return an app's channels ordered by id, or the one named."""
        ...

    def add(self, record: ChannelRecord) -> None:
        """Add a channel."""
        ...

    def remove(self, app: str, channel: str) -> None:
        """Remove a channel; its deployments stay."""
        ...

    def deploy(self, record: DeploymentRecord) -> None:
        """Record a deployment and point the channel at its release."""
        ...

    def deployments(self, app: str, channel: str, limit: int) -> Sequence[DeploymentRecord]:
        """Return a channel's deployments, newest first."""
        ...


class Log(Protocol):
    """The log as committed so far."""

    def head(self) -> LogHead:
        """Return the newest checkpoint."""
        ...

    def nodes(self, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """Return complete nodes."""
        ...

    def leaves(self, start: int, limit: int) -> list[tuple[int, bytes, int]]:
        """Return index, leaf and time of the leaves from `start` on."""
        ...


class View(Protocol):
    """One consistent state of the store."""

    @property
    def apps(self) -> Apps:
        """The part of that name."""
        ...

    @property
    def keys(self) -> Keys:
        """The part of that name."""
        ...

    @property
    def tokens(self) -> Tokens:
        """The part of that name."""
        ...

    @property
    def grants(self) -> Grants:
        """The part of that name."""
        ...

    @property
    def policies(self) -> PolicyHistory:
        """The part of that name."""
        ...

    @property
    def approvals(self) -> Approvals:
        """The part of that name."""
        ...

    @property
    def releases(self) -> Releases:
        """The part of that name."""
        ...

    @property
    def channels(self) -> Channels:
        """The part of that name."""
        ...

    @property
    def builds(self) -> NativeBuilds:
        """The part of that name."""
        ...

    @property
    def rotations(self) -> Rotations:
        """The part of that name."""
        ...

    @property
    def log(self) -> Log:
        """The part of that name."""
        ...

    @property
    def revision(self) -> int:
        """The revision of credentials, grants, policies and key states."""
        ...

    @property
    def raised(self) -> bool:
        """Whether the revision was raised in this transaction, which may yet be undone."""
        ...


class Transaction(View, Protocol):
    """A view that can be written to, and the log that every act must appear in."""

    def record(self, act: dict[str, Json]) -> int:
        """Append a leaf and return the index it gets."""
        ...


class Sealed(Protocol):
    """What is known once the leaves of a transaction are in the tree."""

    checkpoint: str

    def leaf(self, index: int) -> bytes:
        """Return a leaf of this transaction."""
        ...

    def proof(self, index: int) -> list[bytes]:
        """Return the inclusion proof of a leaf of this transaction."""
        ...


@dataclass(frozen=True)
class Request:
    """What makes a mutation idempotent.

    Attributes:
        principal: Who asks.
        id: The request id, a UUID.
        digest: SHA-256 over method and request: the same id with another is refused.
        encode: Turns the act's answer into the bytes that are stored and sent.
    """

    principal: str
    id: str
    digest: bytes
    encode: Callable[[Any], bytes]


@dataclass(frozen=True)
class Signing:
    """What a signing act will look up, so that a group of them is looked up at once.

    Such an act is idempotent by itself: run again, it finds what it signed.
    """

    app: str
    version: str
    counter: int


Act = Callable[[Transaction], Callable[[Sealed], Any]]
"""Checks and writes inside a transaction; what it returns makes the answer, once sealed."""


class Store(Protocol):
    """State and log, committed together."""

    async def commit(
        self, act: Act, request: Request | None = None, signing: Signing | None = None
    ) -> bytes:
        """Run an act in a transaction, with others, and return its encoded answer.

        When this returns, what the act wrote and the leaves it made are on disk and the
        checkpoint over them is signed. When the act raises, nothing of it is kept. An
        answered request is answered again without running the act, unless it is a signing
        act, whose answers are kept by version.
        Raises what the act raises; AlreadyExists for a request id that was used for
        something else; Unavailable if the store or the keyholder fails.
        """
        ...

    async def read(self, query: Callable[[View], Any]) -> Any:
        """Run a query on a consistent state and return its result."""
        ...

    async def count(self, counts: Sequence[tuple[str, CheckIns]]) -> None:
        """Add check-ins, each of an app, to those that are there; the log does not tell of them.

        Raises Unavailable.
        """
        ...
