"""The store over SQLAlchemy Core: state and log in one database, with group commit.

Acts that arrive while a transaction is being committed wait and share the next one: one
fsync, one checkpoint, many acts. SQLite runs in WAL mode with `synchronous=FULL`: what was
answered survives a power cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import structlog
from privyseal.verify.merkle import leaf_hash
from privyseal.verify.note import Checkpoint
from sqlalchemy import Connection, delete, update
from sqlalchemy.exc import SQLAlchemyError

from privyseald.adapters import schema
from privyseald.adapters.bulk import insert_rows
from privyseald.adapters.clock import Steps
from privyseald.adapters.continuity import Continuity
from privyseald.adapters.repositories import Db, SqlLog
from privyseald.adapters.repositories_rotation import add_check_ins
from privyseald.adapters.sql_engine import make_engine
from privyseald.adapters.sql_transaction import SealedGroup, SqlTransaction, SqlView, stored
from privyseald.model import merkle
from privyseald.model.errors import DomainError, FailedPrecondition, Unavailable, explain
from privyseald.model.field import CheckIns
from privyseald.model.lifecycle import DAY
from privyseald.model.records import LogHead
from privyseald.ports import Act, Clock, LastCheckpoint, Request, Sealed, Signing, View

MAX_GROUP = 128
ANSWERS_KEPT = 7 * 86400
"""Seconds for which a repeated request gets the first one's answer."""
CHECK_INS_KEPT = 400
"""Days for which counts of check-ins are kept."""
_SWEEP = 3600
_UNWRITABLE = "the store cannot be written now; try again"
_NEW_HEAD = update(schema.log_head)
SignCheckpoint = Callable[[Checkpoint], str]
_Frontier = tuple[int, dict[merkle.Node, bytes]]
_Ran = tuple[list[bytes | Exception], _Frontier, tuple[Checkpoint, str] | None, int]


@dataclass
class _Waiting:
    act: Act
    request: Request | None
    signing: Signing | None
    future: asyncio.Future[bytes]


class SqlStore:
    """The store.

    Args:
        url: SQLAlchemy URL of the database.
        clock: Tells the time.
        sign_checkpoint: Signs a checkpoint and returns the note; called in the store's thread.
        origin: The log's name.
        kept: Keeps the last checkpoint outside the database.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        sign_checkpoint: SignCheckpoint,
        origin: str,
        kept: LastCheckpoint,
        steps: Steps | None = None,
    ) -> None:
        self._steps = steps or Steps()
        self._engine = make_engine(url)
        self._reading = make_engine(url, reads_only=True)
        self._clock = clock
        self._sign = sign_checkpoint
        self._origin = origin
        self._continuity = Continuity(kept)
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._readers = ThreadPoolExecutor(4, "store-reader")
        self._waiting: list[_Waiting] = []
        self._running: asyncio.Task[None] | None = None
        self._closed = False
        self._frontier: _Frontier | None = None
        self._swept = 0
        self._unwritable = ""
        self._log = structlog.get_logger("store")

    async def commit(
        self, act: Act, request: Request | None = None, signing: Signing | None = None
    ) -> bytes:
        """Run an act in the next transaction; see the port."""
        if self._closed:
            raise Unavailable("the daemon is stopping", reason="STOPPING")
        waiting = _Waiting(act, request, signing, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._running is None:
            self._running = asyncio.create_task(self._drain())
        return await waiting.future

    async def read(self, query: Callable[[View], Any]) -> Any:
        """Run a query on a consistent state; see the port."""

        def run() -> Any:
            with self._reading.connect() as connection, connection.begin():
                return query(SqlView(Db(connection)))

        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, run)
        except SQLAlchemyError as error:
            self._log.error("store cannot be read", error=explain(error))
            raise Unavailable("the store cannot be read now", reason="STORE_DOWN") from None

    async def count(self, counts: Sequence[tuple[str, CheckIns]]) -> None:
        """Add check-ins; see the port."""

        def run() -> None:
            with self._engine.connect() as connection, connection.begin():
                add_check_ins(connection, counts)

        try:
            await asyncio.get_running_loop().run_in_executor(self._writer, run)
        except SQLAlchemyError:
            raise Unavailable("the store cannot be written now", reason="STORE_DOWN") from None

    async def close(self) -> None:
        """Finish what was accepted, then let go of the database."""
        self._closed = True
        if self._running is not None:
            await self._running
        self._writer.shutdown()
        self._readers.shutdown()
        self._reading.dispose()
        self._engine.dispose()

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                group, self._waiting = _take(self._waiting)
                outcomes = await loop.run_in_executor(self._writer, self._commit, group)
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

    def _commit(self, group: list[_Waiting]) -> list[bytes | Exception]:
        """Commit a group; on failure of the whole, every act gets the error."""
        try:
            with self._engine.connect() as connection, connection.begin():
                outcomes, frontier, signed, written = self._run(connection, group)
            if signed is not None:
                self._continuity.committed(*signed)
                self._steps.wrote(written)
            self._frontier = frontier
            self._continuity.keep()
        except DomainError as error:
            failure: Exception = error
            self._log.error("commit refused", reason=error.reason, message=error.message)
            self._unwritable = error.message if isinstance(error, Unavailable) else ""
        except (SQLAlchemyError, OSError) as error:
            failure = Unavailable(_UNWRITABLE, reason="STORE_DOWN")
            self._log.error("commit failed", error=explain(error))
            self._unwritable = _UNWRITABLE
        except Exception as error:  # noqa: BLE001 - the callers must hear of it, whatever it is
            failure = error
            self._log.error("commit failed", error=explain(error))
        else:
            self._unwritable = ""
            return outcomes
        self._frontier = None
        return [failure for _ in group]

    @property
    def broken(self) -> str:
        """Why nothing is signed with this database now; empty if all is well."""
        return self._continuity.broken or self._steps.behind(self._clock()) or self._unwritable

    async def probe(self) -> None:
        """Try, without any act, whether what could not be written can be again."""
        if self._unwritable:
            await asyncio.get_running_loop().run_in_executor(self._writer, self._try_to_write)

    def _try_to_write(self) -> None:
        try:
            with self._engine.connect() as connection, connection.begin():
                head = SqlLog(Db(connection)).head()
                connection.execute(
                    _NEW_HEAD, {"size": head.size, "root": head.root, "note": head.note}
                )
                # While no other daemon can commit: what is kept must not go back.
                self._continuity.keep(head.note)
        except Unavailable as error:
            self._unwritable = error.message
        except (SQLAlchemyError, OSError):
            self._unwritable = _UNWRITABLE
        else:
            self._unwritable = ""

    async def check(self) -> None:
        """Compare the log with the last checkpoint; `broken` tells the result.

        Raises:
            Unavailable: If the store cannot be read.
        """

        def run() -> None:
            with self._engine.connect() as connection, connection.begin():
                log = SqlLog(Db(connection))
                head = log.head()
                self._continuity.check(log, head)
                self._continuity.frontier(log, head)
                self._steps.wrote(_last_written(log, head))
            self._try_to_write()
            if self._unwritable:
                self._log.error("nothing is signed", message=self._unwritable)

        try:
            await asyncio.get_running_loop().run_in_executor(self._writer, run)
        except FailedPrecondition as error:
            self._log.error("nothing is signed", message=error.message)
        except (SQLAlchemyError, OSError):
            raise Unavailable("the store cannot be read now", reason="STORE_DOWN") from None

    def _run(self, connection: Connection, group: list[_Waiting]) -> _Ran:
        log = SqlLog(Db(connection))
        head = log.head()
        self._continuity.check(log, head)
        now = self._time(log, head)
        self._sweep(connection, now)
        transaction = SqlTransaction(connection, now, head.size)
        transaction.look_up(
            [w.request for w in group if w.request is not None],
            [w.signing for w in group if w.signing is not None],
        )
        made = [self._one(transaction, waiting) for waiting in group]
        growth = self._grow(connection, log, head, transaction.leaves, now)
        signed = self._seal(connection, growth) if transaction.leaves else None
        sealed = SealedGroup(transaction, growth, signed[1] if signed else head.note)
        outcomes: list[bytes | Exception] = []
        answers: list[dict[str, Any]] = []
        for waiting, finish in zip(group, made, strict=True):
            if isinstance(finish, bytes | Exception):
                outcomes.append(finish)
                continue
            value = finish(sealed)
            if waiting.request is None:
                outcomes.append(value if isinstance(value, bytes) else b"")
                continue
            answer = waiting.request.encode(value)
            # A signing act that is run again finds what it signed: no second copy is kept.
            kept = b"" if waiting.signing is not None else answer
            if not transaction.answered(waiting.request):
                answers.append(stored(waiting.request, kept, now))
            outcomes.append(answer)
        transaction.releases.flush(connection)
        insert_rows(connection, schema.answers, answers)
        return outcomes, (growth.size, growth.frontier()), signed, now

    def _time(self, log: SqlLog, head: LogHead) -> int:
        """Return the time to write under. Raises FailedPrecondition if the clock is behind."""
        if self._frontier is None:
            self._steps.wrote(_last_written(log, head))
        now = self._clock()
        if wrong := self._steps.behind(now):
            raise FailedPrecondition(wrong, reason="CLOCK_BEHIND")
        return self._steps.at_least(now)

    def _one(
        self, transaction: SqlTransaction, waiting: _Waiting
    ) -> bytes | Exception | Callable[[Sealed], Any]:
        """Return the stored answer, an error, or what answers once the group is sealed."""
        transaction.begin_act()
        try:
            if waiting.request is not None:
                answer = transaction.stored_answer(waiting.request)
                if answer is not None and waiting.signing is None:
                    return answer
            finish = waiting.act(transaction)
            transaction.end_act()
        except SQLAlchemyError as error:
            transaction.undo_act()
            self._log.error("act failed", error=explain(error))
            return Unavailable("the act could not be recorded; try again", reason="STORE_DOWN")
        except Exception as error:  # noqa: BLE001 - an act's error is its caller's alone
            transaction.undo_act()
            return error
        return finish

    def _grow(
        self, connection: Connection, log: SqlLog, head: LogHead, leaves: list[bytes], now: int
    ) -> merkle.Growth:
        known = self._frontier
        if known is None or known[0] != head.size:
            known = (head.size, self._continuity.frontier(log, head))
        growth = merkle.Growth(head.size, known[1])
        if not leaves:
            return growth
        rows = [
            {"idx": growth.append(leaf_hash(leaf)), "leaf": leaf, "created_at": now}
            for leaf in leaves
        ]
        insert_rows(connection, schema.log_leaves, rows)
        nodes = [{"level": n[0], "idx": n[1], "hash": h} for n, h in growth.added.items()]
        insert_rows(connection, schema.log_nodes, nodes)
        return growth

    def _seal(self, connection: Connection, growth: merkle.Growth) -> tuple[Checkpoint, str]:
        """Sign the checkpoint over the grown tree and make it the log's head."""
        checkpoint = Checkpoint(self._origin, growth.size, merkle.root(growth.size, growth.node))
        note = self._sign(checkpoint)
        connection.execute(_NEW_HEAD, {"size": growth.size, "root": checkpoint.root, "note": note})
        return checkpoint, note

    def _sweep(self, connection: Connection, now: int) -> None:
        """Forget answers that no retry will ask for any more, and what has expired."""
        if 0 <= now - self._swept < _SWEEP:
            return
        self._swept = now
        t = schema.answers
        connection.execute(delete(t).where(t.c.created_at < now - ANSWERS_KEPT))
        ended = self._steps.forgets_before(now)
        for table in (schema.used_tokens, schema.sessions):
            connection.execute(delete(table).where(table.c.expires_at < ended))
        oldest = now // DAY - CHECK_INS_KEPT
        connection.execute(delete(schema.check_ins).where(schema.check_ins.c.day < oldest))


def _last_written(log: SqlLog, head: LogHead) -> int:
    """Return when the log's last entry was made, seconds since 1970; 0 if there is none."""
    return log.leaves(head.size - 1, 1)[0][2] if head.size else 0


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
