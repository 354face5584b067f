"""The store over SQLAlchemy Core: state and log in one database, with group commit.

Acts that arrive while a transaction is being committed wait and share the next one: one
fsync, one checkpoint, many acts. Each act runs under a savepoint, so that one that raises
takes nothing of the others with it. SQLite runs in WAL mode with `synchronous=FULL`: what
was answered survives a power cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import structlog
from alembic import command
from alembic.config import Config
from privyseal.verify.canonical import Json, canonical
from privyseal.verify.merkle import EMPTY_ROOT, leaf_hash
from privyseal.verify.note import Checkpoint
from sqlalchemy import Connection, Engine, create_engine, delete, event, insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from privyseald.adapters import schema
from privyseald.adapters.repositories import (
    REVISION,
    SqlAccess,
    SqlApps,
    SqlChannels,
    SqlKeys,
    SqlLog,
    SqlReleases,
)
from privyseald.model import merkle
from privyseald.model.errors import AlreadyExists, DomainError, Unavailable
from privyseald.ports import Act, Clock, Request, View

MAX_GROUP = 128
MAX_LEAF = 65_534
SignCheckpoint = Callable[[Checkpoint], Awaitable[str]]


class SqlView:
    """A consistent state of the store, over one connection in a transaction."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.apps = SqlApps(connection)
        self.keys = SqlKeys(connection)
        self.access = SqlAccess(connection)
        self.releases = SqlReleases(connection)
        self.channels = SqlChannels(connection)
        self.log = SqlLog(connection)

    @property
    def revision(self) -> int:
        """The revision of tokens, grants and key states."""
        where = schema.state.c.name == "revision"
        return int(self.connection.execute(select(schema.state.c.number).where(where)).scalar_one())


class SqlTransaction(SqlView):
    """A transaction: a view, and the leaves its acts make."""

    def __init__(self, connection: Connection, now: int, size: int, max_group: int) -> None:
        super().__init__(connection)
        connection.info.pop(REVISION, None)
        self.leaves: list[bytes] = []
        self.first = size
        self._now = now
        self._room = max_group * 32

    @property
    def revision(self) -> int:
        """The revision; read once, and again when an act has raised it."""
        known = self.connection.info.get(REVISION)
        if known is None:
            known = self.connection.info[REVISION] = super().revision
        return int(known)

    def record(self, act: dict[str, Json]) -> int:
        """Append a leaf and return the index it gets."""
        leaf = canonical({**act, "time": self._now})
        if len(leaf) > MAX_LEAF:
            raise ValueError("leaf is too long")
        self.leaves.append(leaf)
        return self.first + len(self.leaves) - 1


class SealedGroup:
    """The proofs of the leaves of one transaction."""

    def __init__(self, transaction: SqlTransaction, growth: merkle.Growth, note: str) -> None:
        self.checkpoint = note
        self._transaction = transaction
        self._growth = growth

    def leaf(self, index: int) -> bytes:
        """Return a leaf of this transaction."""
        return self._transaction.leaves[index - self._transaction.first]

    def proof(self, index: int) -> list[bytes]:
        """Return the inclusion proof of a leaf of this transaction."""
        return merkle.inclusion_proof(index, self._growth.size, self._growth.node)


@dataclass
class _Waiting:
    act: Act
    request: Request | None
    future: asyncio.Future[bytes]


class SqlStore:
    """The store.

    Args:
        url: SQLAlchemy URL of the database.
        clock: Tells the time.
        sign_checkpoint: Signs a checkpoint and returns the note.
        origin: The log's name.
    """

    def __init__(
        self, url: str, *, clock: Clock, sign_checkpoint: SignCheckpoint, origin: str
    ) -> None:
        self._engine = make_engine(url)
        self._clock = clock
        self._sign = sign_checkpoint
        self._origin = origin
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._readers = ThreadPoolExecutor(4, "store-reader")
        self._waiting: list[_Waiting] = []
        self._running: asyncio.Task[None] | None = None
        self._closed = False
        self._frontier: tuple[int, dict[merkle.Node, bytes]] | None = None
        self._log = structlog.get_logger("store")

    async def commit(self, act: Act, request: Request | None = None) -> bytes:
        """Run an act in the next transaction; see the port."""
        if self._closed:
            raise Unavailable("the daemon is stopping", reason="STOPPING")
        waiting = _Waiting(act, request, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._running is None:
            self._running = asyncio.create_task(self._drain())
        return await waiting.future

    async def read(self, query: Callable[[View], Any]) -> Any:
        """Run a query on a consistent state; see the port."""

        def run() -> Any:
            with self._engine.connect() as connection, connection.begin():
                return query(SqlView(connection))

        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, run)
        except SQLAlchemyError as error:
            self._log.error("store cannot be read", error=type(error).__name__)
            raise Unavailable("the store cannot be read now", reason="STORE_DOWN") from None

    async def close(self) -> None:
        """Finish what was accepted, then let go of the database."""
        self._closed = True
        if self._running is not None:
            await self._running
        self._writer.shutdown()
        self._readers.shutdown()
        self._engine.dispose()

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                group, self._waiting = _take(self._waiting)
                outcomes = await loop.run_in_executor(self._writer, self._commit, group, loop)
                for waiting, outcome in zip(group, outcomes, strict=True):
                    if waiting.future.done():
                        continue
                    if isinstance(outcome, bytes):
                        waiting.future.set_result(outcome)
                    else:
                        waiting.future.set_exception(outcome)
        finally:
            self._running = None
            if self._waiting and not self._closed:
                self._running = asyncio.create_task(self._drain())

    def _commit(
        self, group: list[_Waiting], loop: asyncio.AbstractEventLoop
    ) -> list[bytes | Exception]:
        """Commit a group; on failure of the whole, every act gets the error."""
        try:
            with self._engine.connect() as connection, connection.begin():
                return self._run(connection, group, loop)
        except SQLAlchemyError as error:
            self._frontier = None
            self._log.error("commit failed", error=type(error).__name__)
            failure: Exception = Unavailable("the store cannot be written now", reason="STORE_DOWN")
        except Exception as error:  # noqa: BLE001 - the callers must hear of it, whatever it is
            self._frontier = None
            self._log.error("commit failed", error=type(error).__name__)
            failure = Unavailable("the log cannot be signed now", reason="LOG_DOWN")
        return [failure for _ in group]

    def _run(
        self, connection: Connection, group: list[_Waiting], loop: asyncio.AbstractEventLoop
    ) -> list[bytes | Exception]:
        now = self._clock()
        head = SqlLog(connection).head()
        transaction = SqlTransaction(connection, now, head.size, MAX_GROUP)
        outcomes: list[Any] = []
        for waiting in group:
            kept = len(transaction.leaves)
            savepoint = connection.begin_nested()
            try:
                outcomes.append(self._one(transaction, waiting))
                savepoint.commit()
            except Exception as error:  # noqa: BLE001 - an act's error is its caller's alone
                savepoint.rollback()
                connection.info.pop(REVISION, None)
                del transaction.leaves[kept:]
                outcomes.append(_as_domain_error(error, self._log))
        growth = self._grow(connection, head.size, transaction.leaves, now)
        note = head.note
        if transaction.leaves:
            note = self._seal(connection, growth, loop)
        sealed = SealedGroup(transaction, growth, note)
        answers: list[dict[str, Any]] = []
        for position, waiting in enumerate(group):
            if callable(outcomes[position]):
                value = outcomes[position](sealed)
                outcomes[position] = _answer(waiting.request, value, now, answers)
        transaction.releases.flush()
        if answers:
            connection.execute(insert(schema.answers), answers)
        self._frontier = (growth.size, growth.frontier())
        return outcomes

    def _seal(
        self, connection: Connection, growth: merkle.Growth, loop: asyncio.AbstractEventLoop
    ) -> str:
        """Sign the checkpoint over the grown tree and make it the log's head."""
        checkpoint = Checkpoint(self._origin, growth.size, merkle.root(growth.size, growth.node))
        signing = asyncio.run_coroutine_threadsafe(_await(self._sign(checkpoint)), loop)
        note = signing.result(timeout=30)
        connection.execute(delete(schema.log_head))
        connection.execute(
            insert(schema.log_head),
            {"id": 1, "size": checkpoint.size, "root": checkpoint.root, "note": note},
        )
        return note

    def _one(self, transaction: SqlTransaction, waiting: _Waiting) -> Any:
        """Return the stored answer, or what makes it once the group is sealed."""
        request = waiting.request
        if request is not None:
            t = schema.answers
            where = (t.c.principal == request.principal) & (t.c.request_id == request.id)
            row = transaction.connection.execute(
                select(t.c.digest, t.c.answer).where(where)
            ).one_or_none()
            if row is not None:
                if row.digest != request.digest:
                    raise AlreadyExists(
                        "request_id was used for another request; make a new one",
                        reason="REQUEST_ID_REUSED",
                        field="request_id",
                    )
                return bytes(row.answer)
        return waiting.act(transaction)

    def _grow(
        self, connection: Connection, size: int, leaves: list[bytes], now: int
    ) -> merkle.Growth:
        known = self._frontier
        if known is None or known[0] != size:
            known = (size, SqlLog(connection).nodes(merkle.frontier(size)))
        growth = merkle.Growth(size, known[1])
        if not leaves:
            return growth
        rows = [
            {"idx": growth.append(leaf_hash(leaf)), "leaf": leaf, "created_at": now}
            for leaf in leaves
        ]
        connection.execute(insert(schema.log_leaves), rows)
        connection.execute(
            insert(schema.log_nodes),
            [{"level": n[0], "idx": n[1], "hash": h} for n, h in growth.added.items()],
        )
        return growth


def _answer(request: Request | None, value: Any, now: int, answers: list[dict[str, Any]]) -> bytes:
    """Return the encoded answer to an act, and note the row that keeps it."""
    if request is None:
        return value if isinstance(value, bytes) else b""
    answer = request.encode(value)
    answers.append(
        {
            "principal": request.principal,
            "request_id": request.id,
            "digest": request.digest,
            "answer": answer,
            "created_at": now,
        }
    )
    return answer


def _take(waiting: list[_Waiting]) -> tuple[list[_Waiting], list[_Waiting]]:
    """Split off the next group; a repeated request waits for the answer to the first."""
    group: list[_Waiting] = []
    rest: list[_Waiting] = []
    seen: set[tuple[str, str]] = set()
    for item in waiting:
        key = (item.request.principal, item.request.id) if item.request else None
        if len(group) >= MAX_GROUP or key in seen:
            rest.append(item)
            continue
        if key is not None:
            seen.add(key)
        group.append(item)
    return group, rest


def _as_domain_error(error: Exception, log: Any) -> Exception:
    if isinstance(error, DomainError):
        return error
    log.error("act failed", error=type(error).__name__)
    return Unavailable("the act could not be recorded; try again", reason="STORE_DOWN")


async def _await(awaitable: Awaitable[str]) -> str:
    return await awaitable


def make_engine(url: str) -> Engine:
    """Return an engine whose transactions are serialised and durable."""
    engine = create_engine(url, poolclass=QueuePool, pool_size=6, hide_parameters=True)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def configure(connection: Any, _record: Any) -> None:
            connection.isolation_level = None
            for pragma in (
                "journal_mode=WAL",
                "synchronous=FULL",
                "busy_timeout=10000",
                "foreign_keys=ON",
                "trusted_schema=OFF",
            ):
                connection.execute(f"PRAGMA {pragma}")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if _in_writer() else "BEGIN")

    return engine


def _in_writer() -> bool:
    import threading

    return not threading.current_thread().name.startswith("store-reader")


def migrate(url: str, origin_note: Callable[[Checkpoint], str], origin: str) -> None:
    """Bring a database to the newest schema and give an empty one its first checkpoint.

    Args:
        url: SQLAlchemy URL.
        origin_note: Signs the checkpoint of the empty log.
        origin: The log's name.
    """
    engine = make_engine(url)
    config = Config()
    config.set_main_option(
        "script_location", str(files("privyseald.adapters").joinpath("migrations"))
    )
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        if connection.execute(select(schema.log_head)).first() is None:
            note = origin_note(Checkpoint(origin, 0, EMPTY_ROOT))
            connection.execute(
                insert(schema.log_head), {"id": 1, "size": 0, "root": EMPTY_ROOT, "note": note}
            )
            connection.execute(insert(schema.state), {"name": "revision", "number": 1})
    engine.dispose()
