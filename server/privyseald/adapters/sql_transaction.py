"""One transaction of the store: what an act sees of it, and what many acts share in it.

The acts of a group are looked up together and written together, a statement for all of
them, since each statement costs more than the rows it moves. An act that writes directly
runs under a savepoint, so that one that raises takes nothing of the others with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from privyseal.verify.canonical import Json, canonical
from sqlalchemy import Connection, NestedTransaction, select

from privyseald.adapters import schema
from privyseald.adapters.repositories import (
    Db,
    SqlApps,
    SqlKeys,
    SqlLog,
    both_in,
    pairs_of,
)
from privyseald.adapters.repositories_access import (
    SqlApprovals,
    SqlGrants,
    SqlPolicies,
    SqlTokens,
)
from privyseald.adapters.repositories_releases import SqlChannels, SqlReleases
from privyseald.adapters.repositories_rotation import SqlNativeBuilds, SqlRotations
from privyseald.model import merkle
from privyseald.model.errors import AlreadyExists
from privyseald.ports import Request, Signing

MAX_LEAF = 65_534
_OF = schema.answers.c
_ANSWERS = select(_OF.principal, _OF.request_id, _OF.digest, _OF.answer).where(
    both_in(_OF.principal, _OF.request_id)
)


class SqlView:
    """A consistent state of the store, over one connection in a transaction."""

    def __init__(self, db: Db) -> None:
        self.apps = SqlApps(db)
        self.keys = SqlKeys(db)
        self.tokens = SqlTokens(db)
        self.grants = SqlGrants(db)
        self.policies = SqlPolicies(db)
        self.approvals = SqlApprovals(db)
        self.releases = SqlReleases(db)
        self.channels = SqlChannels(db)
        self.builds = SqlNativeBuilds(db)
        self.rotations = SqlRotations(db)
        self.log = SqlLog(db)
        self._db = db

    @property
    def revision(self) -> int:
        """The revision of credentials, grants, policies and key states."""
        return self._db.revision()

    @property
    def raised(self) -> bool:
        """Whether the revision was raised here, by an act that may yet be undone."""
        return self._db.raised

    def answer(self, request: Request) -> bytes | None:
        """Return the answer to a request that was answered before; see the port."""
        asked = (request.principal, request.id)
        known = _answers(self._db, {asked}).get(asked)
        return None if known is None else _of_the_same(request, *known)


class SqlTransaction(SqlView):
    """A transaction: a view, and the leaves its acts make."""

    def __init__(self, connection: Connection, now: int, size: int) -> None:
        super().__init__(Db(connection, self._before_write))
        self.leaves: list[bytes] = []
        self.first = size
        self._connection = connection
        self._now = now
        self._kept = 0
        self._savepoint: NestedTransaction | None = None
        self._answers: dict[tuple[str, str], tuple[bytes, bytes]] = {}

    def record(self, act: dict[str, Json]) -> int:
        """Append a leaf and return the index it gets."""
        leaf = canonical({**act, "time": self._now})
        if len(leaf) > MAX_LEAF:
            raise ValueError("leaf is too long")
        self.leaves.append(leaf)
        return self.first + len(self.leaves) - 1

    def look_up(self, requests: Iterable[Request], signings: Iterable[Signing]) -> None:
        """Read at once what the acts of the group will ask for one by one."""
        self._answers |= _answers(
            self._connection, {(request.principal, request.id) for request in requests}
        )
        self.releases.look_up(signings)

    def stored_answer(self, request: Request) -> bytes | None:
        """Return the answer to a request that was answered before the group.

        Raises:
            AlreadyExists: If its id was used for something else.
        """
        known = self._answers.get((request.principal, request.id))
        return None if known is None else _of_the_same(request, *known)

    def answered(self, request: Request) -> bool:
        """Say whether a request was answered before the group."""
        return (request.principal, request.id) in self._answers

    def begin_act(self) -> None:
        """Remember where an act began."""
        self._kept = len(self.leaves)
        self.releases.begin_act()

    def end_act(self) -> None:
        """Keep what the act did."""
        if self._savepoint is not None:
            self._savepoint.commit()
            self._savepoint = None

    def undo_act(self) -> None:
        """Undo what the act did."""
        if self._savepoint is not None:
            self._savepoint.rollback()
            self._savepoint = None
            self._db.forget_revision()
        del self.leaves[self._kept :]
        self.releases.undo_act()

    def _before_write(self) -> None:
        if self._savepoint is None:
            self._savepoint = self._connection.begin_nested()


class SealedGroup:
    """The proofs of the leaves of one transaction."""

    def __init__(self, transaction: SqlTransaction, growth: merkle.Growth, note: str) -> None:
        self.checkpoint = note
        self._transaction = transaction
        self._growth = growth
        self._covers: dict[tuple[int, int], bytes] = {}

    def leaf(self, index: int) -> bytes:
        """Return a leaf of this transaction."""
        return self._transaction.leaves[index - self._transaction.first]

    def proof(self, index: int) -> list[bytes]:
        """Return the inclusion proof of a leaf of this transaction."""
        return merkle.inclusion_proof(index, self._growth.size, self._growth.node, self._covers)


def _answers(
    connection: Connection | Db, ids: set[tuple[str, str]]
) -> dict[tuple[str, str], tuple[bytes, bytes]]:
    """Return digest and answer of requests that were answered, by principal and id."""
    if not ids:
        return {}
    rows = connection.execute(_ANSWERS, pairs_of(ids))
    return {(row.principal, row.request_id): (row.digest, row.answer) for row in rows}


def _of_the_same(request: Request, digest: bytes, answer: bytes) -> bytes:
    if digest != request.digest:
        raise AlreadyExists(
            "request_id was used for another request; make a new one",
            reason="REQUEST_ID_REUSED",
            field="request_id",
        )
    return answer


def stored(request: Request, answer: bytes, now: int) -> dict[str, Any]:
    """Return the row that keeps an answer."""
    return {
        "principal": request.principal,
        "request_id": request.id,
        "digest": request.digest,
        "answer": answer,
        "created_at": now,
    }
