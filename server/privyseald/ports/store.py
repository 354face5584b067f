"""The store: views, transactions, and what makes an act idempotent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from privyseal.verify.canonical import Json

from privyseald.model.field import CheckIns
from privyseald.ports.repositories import (
    Approvals,
    Apps,
    Channels,
    Grants,
    Keys,
    Log,
    NativeBuilds,
    PolicyHistory,
    Releases,
    Rotations,
    Tokens,
)


class View(Protocol):
    """One consistent state of the store."""

    def answer(self, request: Request) -> bytes | None:
        """Return the answer to a request that was answered before.

        Raises:
            AlreadyExists: If its id was used for something else.
        """
        ...

    @property
    def apps(self) -> Apps:
        """The apps."""
        ...

    @property
    def keys(self) -> Keys:
        """The apps' keys, their versions and where their private keys are."""
        ...

    @property
    def tokens(self) -> Tokens:
        """API tokens, sessions of CI jobs, identity tokens that were used, denied certificates."""
        ...

    @property
    def grants(self) -> Grants:
        """Who has which role where."""
        ...

    @property
    def policies(self) -> PolicyHistory:
        """The team's policies, each version of them."""
        ...

    @property
    def approvals(self) -> Approvals:
        """Requests for consent, and what was consented."""
        ...

    @property
    def releases(self) -> Releases:
        """What was signed, and what was registered of it."""
        ...

    @property
    def channels(self) -> Channels:
        """Channels, and what was deployed to them."""
        ...

    @property
    def builds(self) -> NativeBuilds:
        """Native builds, and how often their devices ask."""
        ...

    @property
    def rotations(self) -> Rotations:
        """Rotations, and the successor records of promotions."""
        ...

    @property
    def log(self) -> Log:
        """The log's leaves, nodes and head."""
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
