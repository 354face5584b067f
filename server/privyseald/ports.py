"""What the services ask of the world. The comments are obligations on implementations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from privyseal.verify.canonical import Json
from privyseal.verify.statement import NativeRange, Statement

from privyseald.model.policy import Grant
from privyseald.model.records import (
    AppRecord,
    ChannelRecord,
    DeploymentRecord,
    KeyRecord,
    KeyVersionRecord,
    LogHead,
    ReleaseRecord,
    SignedRecord,
    TokenRecord,
)
from privyseald.model.schemes import GeneratedKey, KeyIdentity, KeyVersionState, WrappedKey


class Keyholder(Protocol):
    """Has the private keys. Each signature was verified before it is returned."""

    async def generate(self, identity: KeyIdentity) -> GeneratedKey:
        """Make a key pair. Raises Unavailable, FailedPrecondition."""
        ...

    async def sign_release(
        self, statement: Statement, statement_key: WrappedKey, scheme_keys: Sequence[WrappedKey]
    ) -> tuple[bytes, list[bytes]]:
        """Build and sign a statement, and sign its bundle with each scheme key.

        Returns the statement's payload, then the statement's signature followed by one per
        scheme key. Raises Unavailable, FailedPrecondition.
        """
        ...


class Clock(Protocol):
    """Tells the time."""

    def __call__(self) -> int:
        """Return seconds since 1970, UTC."""
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

    def set_state(self, version: KeyVersionRecord, state: KeyVersionState) -> None:
        """Set a version's state and raise the revision."""
        ...


class Access(Protocol):
    """Tokens and grants. Every change raises the revision."""

    def token(self, token_id: str) -> TokenRecord | None:
        """Return one."""
        ...

    def tokens(self) -> list[TokenRecord]:
        """Return all, newest first."""
        ...

    def put_token(self, record: TokenRecord) -> None:
        """Add a token, or replace the one of its id."""
        ...

    def grants(self, *, principal: str = "", app: str = "", grant_id: str = "") -> list[Grant]:
        """Return the grants that match every argument given; an app's include those on all."""
        ...

    def add_grant(self, grant: Grant) -> None:
        """Add a grant."""
        ...

    def remove_grant(self, grant_id: str) -> None:
        """Remove a grant."""
        ...


class Releases(Protocol):
    """Signed and registered releases, channels and deployments."""

    def signed(self, app: str, *, version: str = "", counter: int = 0) -> SignedRecord | None:
        """Return what was signed, by version or by counter."""
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
    def access(self) -> Access:
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
    def log(self) -> Log:
        """The part of that name."""
        ...

    @property
    def revision(self) -> int:
        """The revision of tokens, grants and key states."""
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
