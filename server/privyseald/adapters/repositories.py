"""The store's parts over one SQL connection; each implements a port of the same name."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Select,
    UpdateBase,
    bindparam,
    insert,
    select,
    update,
)

from privyseald.adapters import schema
from privyseald.model.records import (
    AppRecord,
    KeyRecord,
    KeyVersionRecord,
    LogHead,
)
from privyseald.model.schemes import Algorithm, KeyVersionState, Scheme

_REVISION = select(schema.state.c.number).where(schema.state.c.name == "revision")


class Db:
    """A connection in a transaction.

    Args:
        connection: The connection.
        before_write: Called before each write of an act; nothing is called if absent.
    """

    def __init__(
        self, connection: Connection, before_write: Callable[[], None] | None = None
    ) -> None:
        self._connection = connection
        self._before_write = before_write
        self._revision: int | None = None
        self.raised = False

    def execute(
        self, query: Select[Any], values: dict[str, Any] | None = None
    ) -> CursorResult[Any]:
        """Run a query, with values for its parameters."""
        return self._connection.execute(query, values)

    def write(self, statement: UpdateBase, values: Any = None) -> None:
        """Run a statement that changes something."""
        if self._before_write is not None:
            self._before_write()
        self._connection.execute(statement, values)

    def revision(self) -> int:
        """Return the revision; read once, and again when it was raised."""
        if self._revision is None:
            self._revision = int(self._connection.execute(_REVISION).scalar_one())
        return self._revision

    def raise_revision(self) -> None:
        """Raise the revision: whoever was authorised before asks again."""
        where = schema.state.c.name == "revision"
        self.write(update(schema.state).where(where).values(number=schema.state.c.number + 1))
        self._revision = None
        self.raised = True

    def forget_revision(self) -> None:
        """Read the revision again when it is next asked for."""
        self._revision = None


def both_in(first: ColumnElement[Any], second: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return a condition that holds for all of the pairs that `pairs_of` gives it, and few others.

    The caller leaves out the others. SQLite finds no index for a list of row values, and
    reads the whole table; for two lists it uses the index over both columns. The statement is
    made once: to make one costs more than to run it.
    """
    return first.in_(bindparam("first", expanding=True)) & second.in_(
        bindparam("second", expanding=True)
    )


def pairs_of(pairs: Collection[tuple[Any, Any]]) -> dict[str, list[Any]]:
    """Return the values for a statement with `both_in`."""
    return {"first": list({a for a, _ in pairs}), "second": list({b for _, b in pairs})}


_HEAD = select(schema.log_head)
_NODES = select(schema.log_nodes).where(both_in(schema.log_nodes.c.level, schema.log_nodes.c.idx))


class Part:
    """A part of the store over one connection."""

    def __init__(self, db: Db) -> None:
        self._db = db

    def rows(
        self, query: Select[Any], values: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return the rows of a query, with values for its parameters."""
        return [dict(row._mapping) for row in self._db.execute(query, values)]  # noqa: SLF001 - SQLAlchemy's documented accessor


class SqlApps(Part):
    """The apps."""

    def get(self, app: str) -> AppRecord | None:
        rows = self.rows(select(schema.apps).where(schema.apps.c.id == app))
        return AppRecord(**rows[0]) if rows else None

    def add(self, record: AppRecord) -> None:
        self._db.write(insert(schema.apps), asdict(record))

    def list(self, after: str, limit: int) -> list[AppRecord]:
        query = select(schema.apps).where(schema.apps.c.id > after)
        return [AppRecord(**r) for r in self.rows(query.order_by(schema.apps.c.id).limit(limit))]


class SqlKeys(Part):
    """Keys and their versions."""

    def get(self, app: str, key: str) -> KeyRecord | None:
        return next((k for k in self.list(app) if k.id == key), None)

    def list(self, app: str) -> list[KeyRecord]:
        t, v = schema.keys, schema.key_versions
        versions = self.rows(select(v).where(v.c.app == app).order_by(v.c.version))
        records: dict[str, list[KeyVersionRecord]] = {}
        for row in versions:
            records.setdefault(row["key"], []).append(_key_version(row))
        return [
            KeyRecord(
                app=row["app"],
                id=row["id"],
                scheme=Scheme(row["scheme"]),
                primary=row["primary_version"],
                created_at=row["created_at"],
                versions=tuple(records.get(row["id"], ())),
                cryptoperiod_days=row["cryptoperiod_days"],
                given_up=bool(row["given_up"]),
            )
            for row in self.rows(select(t).where(t.c.app == app).order_by(t.c.id))
        ]

    def by_digest(self, public_key_sha256: bytes) -> KeyVersionRecord | None:
        v = schema.key_versions
        rows = self.rows(select(v).where(v.c.public_key_sha256 == public_key_sha256))
        return _key_version(rows[0]) if rows else None

    def add(self, record: KeyRecord) -> None:
        self._db.write(
            insert(schema.keys),
            {
                "app": record.app,
                "id": record.id,
                "scheme": record.scheme,
                "primary_version": record.primary,
                "created_at": record.created_at,
                "cryptoperiod_days": record.cryptoperiod_days,
            },
        )
        self._db.write(insert(schema.key_versions), [_version_row(v) for v in record.versions])
        self._db.raise_revision()

    def add_version(self, record: KeyVersionRecord) -> None:
        self._db.write(insert(schema.key_versions), _version_row(record))
        self._db.raise_revision()

    def put_version(self, record: KeyVersionRecord) -> None:
        t = schema.key_versions
        same = (t.c.app == record.app, t.c.key == record.key, t.c.version == record.version)
        life = {**vars(record.life), "before": record.before or "", "blob": record.blob}
        self._db.write(update(t).where(*same).values(life))
        self._db.raise_revision()

    def set_primary(self, app: str, key: str, version: int) -> None:
        t = schema.keys
        where = (t.c.app == app, t.c.id == key)
        self._db.write(update(t).where(*where).values(primary_version=version, given_up=0))
        self._db.raise_revision()

    def give_up(self, app: str, key: str) -> None:
        t = schema.keys
        self._db.write(update(t).where(t.c.app == app, t.c.id == key).values(given_up=1))
        self._db.raise_revision()

    def set_cryptoperiod(self, app: str, key: str, days: int) -> None:
        t = schema.keys
        where = (t.c.app == app, t.c.id == key)
        self._db.write(update(t).where(*where).values(cryptoperiod_days=days))

    def due(self, now: int) -> Sequence[KeyVersionRecord]:
        t = schema.key_versions
        scheduled = (t.c.state == KeyVersionState.DESTROY_SCHEDULED) & (t.c.destroy_at <= now)
        return [_key_version(row) for row in self.rows(select(t).where(scheduled))]

    def expiring(self) -> Sequence[KeyVersionRecord]:
        t = schema.key_versions
        query = select(t).where(t.c.state == KeyVersionState.ACTIVE, t.c.expires_at > 0)
        return [_key_version(row) for row in self.rows(query)]

    def chained(self) -> Sequence[KeyVersionRecord]:
        t = schema.key_versions
        chained = t.c.anchor_sha256.is_not(None)
        living = t.c.state.in_([KeyVersionState.ACTIVE, KeyVersionState.SUSPENDED])
        query = select(t).where(living, chained)
        return [_key_version(row) for row in self.rows(query)]


def _key_version(row: dict[str, Any]) -> KeyVersionRecord:
    row["scheme"] = Scheme(row["scheme"])
    row["algorithm"] = Algorithm(row["algorithm"])
    row["state"] = KeyVersionState(row["state"])
    row["protection"] = json.loads(row["protection"])
    row["before"] = KeyVersionState(row["before"]) if row["before"] else None
    for name in ("certificate", "anchor_sha256"):
        row[name] = row[name] or b""
    return KeyVersionRecord(**row)


def _version_row(version: KeyVersionRecord) -> dict[str, Any]:
    row = asdict(version)
    return {
        **row,
        "protection": json.dumps(version.protection),
        "before": version.before or "",
        "certificate": version.certificate or None,
        "anchor_sha256": version.anchor_sha256 or None,
    }


class SqlLog(Part):
    """The log."""

    def head(self) -> LogHead:
        row = self._db.execute(_HEAD).one()
        return LogHead(row.size, row.root, row.note)

    def nodes(self, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        found: dict[tuple[int, int], bytes] = {}
        unique = sorted(set(wanted))
        for start in range(0, len(unique), 200):
            some = unique[start : start + 200]
            for row in self._db.execute(_NODES, pairs_of(some)):
                found[row.level, row.idx] = row.hash
        return found

    def leaves(self, start: int, limit: int) -> list[tuple[int, bytes, int]]:
        t = schema.log_leaves
        query = select(t).where(t.c.idx >= start).order_by(t.c.idx).limit(limit)
        return [(row.idx, row.leaf, row.created_at) for row in self._db.execute(query)]
