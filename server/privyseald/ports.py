"""What the services ask of the world. The comments are obligations on implementations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from privyseal.verify.note import Checkpoint
from privyseal.verify.statement import Statement
from privyseald.model.schemes import GeneratedKey, KeyIdentity, WrappedKey

T = TypeVar("T")


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

    async def sign_checkpoint(self, checkpoint: Checkpoint, key: WrappedKey) -> bytes:
        """Sign a checkpoint: the raw Ed25519 signature over its text. Raises Unavailable."""
        ...


class Clock(Protocol):
    """Tells the time."""

    def __call__(self) -> int:
        """Return seconds since 1970, UTC."""
        ...


class Ledger(Protocol[T]):
    """Commits acts: all or nothing, in the log, durable before it returns."""

    async def commit(self, act: Callable[[T], object]) -> object:
        """Run an act inside a transaction together with others and return its answer.

        When this returns, what the act wrote and the leaves it made are on disk and the
        checkpoint over them is signed. When the act raises, nothing of it is kept.
        Raises what the act raises, and Unavailable if the store or the keyholder fails.
        """
        ...
