"""The store's parts over one SQL connection; each implements a port of the same name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from privyseal.verify.statement import NativeRange
from sqlalchemy import Connection, Select, delete, func, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from privyseald.adapters import schema
from privyseald.model.errors import Unavailable
from privyseald.model.fields import ALL_APPS
from privyseald.model.policy import Grant, Role
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
from privyseald.model.schemes import Algorithm, KeyVersionState, Scheme

REVISION = "privyseal revision"
"""Where a transaction keeps the revision it has read, in its connection's info."""


class _Part:
    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def _rows(self, query: Select[Any]) -> list[dict[str, Any]]:
        return [dict(row._mapping) for row in self._db.execute(query)]  # noqa: SLF001 - SQLAlchemy's documented accessor

    def _touch(self) -> None:
        """Raise the revision: whoever was authorised before asks again."""
        self._db.info.pop(REVISION, None)
        where = schema.state.c.name == "revision"
        self._db.execute(update(schema.state).where(where).values(number=schema.state.c.number + 1))


class SqlApps(_Part):
    """The apps."""

    def get(self, app: str) -> AppRecord | None:
        rows = self._rows(select(schema.apps).where(schema.apps.c.id == app))
        return AppRecord(**rows[0]) if rows else None

    def add(self, record: AppRecord) -> None:
        self._db.execute(insert(schema.apps), asdict(record))

    def list(self, after: str, limit: int) -> list[AppRecord]:
        query = select(schema.apps).where(schema.apps.c.id > after)
        return [AppRecord(**r) for r in self._rows(query.order_by(schema.apps.c.id).limit(limit))]


class SqlKeys(_Part):
    """Keys and their versions."""

    def get(self, app: str, key: str) -> KeyRecord | None:
        return next((k for k in self.list(app) if k.id == key), None)

    def list(self, app: str) -> list[KeyRecord]:
        t, v = schema.keys, schema.key_versions
        versions = self._rows(select(v).where(v.c.app == app).order_by(v.c.version))
        records: dict[str, list[KeyVersionRecord]] = {}
        for row in versions:
            row["scheme"] = Scheme(row["scheme"])
            row["algorithm"] = Algorithm(row["algorithm"])
            row["state"] = KeyVersionState(row["state"])
            records.setdefault(row["key"], []).append(KeyVersionRecord(**row))
        return [
            KeyRecord(
                app=row["app"],
                id=row["id"],
                scheme=Scheme(row["scheme"]),
                primary=row["primary_version"],
                created_at=row["created_at"],
                versions=tuple(records.get(row["id"], ())),
            )
            for row in self._rows(select(t).where(t.c.app == app).order_by(t.c.id))
        ]

    def add(self, record: KeyRecord) -> None:
        self._db.execute(
            insert(schema.keys),
            {
                "app": record.app,
                "id": record.id,
                "scheme": record.scheme,
                "primary_version": record.primary,
                "created_at": record.created_at,
            },
        )
        self._db.execute(insert(schema.key_versions), [asdict(v) for v in record.versions])
        self._touch()

    def set_state(self, version: KeyVersionRecord, state: KeyVersionState) -> None:
        t = schema.key_versions
        where = (t.c.app == version.app) & (t.c.key == version.key)
        self._db.execute(update(t).where(where, t.c.version == version.version).values(state=state))
        self._touch()


class SqlAccess(_Part):
    """Tokens and grants."""

    def token(self, token_id: str) -> TokenRecord | None:
        rows = self._rows(select(schema.tokens).where(schema.tokens.c.id == token_id))
        return TokenRecord(**rows[0]) if rows else None

    def tokens(self) -> list[TokenRecord]:
        query = select(schema.tokens).order_by(schema.tokens.c.created_at.desc())
        return [TokenRecord(**row) for row in self._rows(query)]

    def put_token(self, record: TokenRecord) -> None:
        self._db.execute(delete(schema.tokens).where(schema.tokens.c.id == record.id))
        self._db.execute(insert(schema.tokens), asdict(record))
        self._touch()

    def grants(self, *, principal: str = "", app: str = "", grant_id: str = "") -> list[Grant]:
        t = schema.grants
        query = select(t).order_by(t.c.created_at, t.c.id)
        if principal:
            query = query.where(t.c.principal == principal)
        if app:
            query = query.where(t.c.app.in_([app, ALL_APPS]))
        if grant_id:
            query = query.where(t.c.id == grant_id)
        return [Grant(**{**row, "role": Role(row["role"])}) for row in self._rows(query)]

    def add_grant(self, grant: Grant) -> None:
        self._db.execute(insert(schema.grants), asdict(grant))
        self._touch()

    def remove_grant(self, grant_id: str) -> None:
        self._db.execute(delete(schema.grants).where(schema.grants.c.id == grant_id))
        self._touch()


def _ranges_to_text(ranges: Sequence[NativeRange]) -> str:
    return json.dumps([asdict(r) for r in ranges])


def _ranges_from_text(text: str) -> tuple[NativeRange, ...]:
    return tuple(NativeRange(**r) for r in json.loads(text))


class SqlReleases(_Part):
    """Signed and registered releases; what was signed is written when `flush` is called."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._pending: dict[tuple[str, str], SignedRecord] = {}

    def signed(self, app: str, *, version: str = "", counter: int = 0) -> SignedRecord | None:
        pending = self._pending.get((app, version))
        if pending is not None:
            return pending
        t = schema.signed
        which = t.c.version == version if version else t.c.counter == counter
        rows = self._rows(select(t).where(t.c.app == app, which))
        return SignedRecord(**rows[0]) if rows else None

    def last_counter(self, app: str) -> int:
        t = schema.signed
        return self._db.execute(select(func.max(t.c.counter)).where(t.c.app == app)).scalar() or 0

    def add_signed(self, record: SignedRecord) -> None:
        self._pending[record.app, record.version] = record

    def set_receipt(self, app: str, version: str, receipt: bytes) -> None:
        self._pending[app, version] = replace(self._pending[app, version], receipt=receipt)

    def flush(self) -> None:
        """Write what was signed. Raises Unavailable if a counter was taken meanwhile."""
        if not self._pending:
            return
        rows = [asdict(record) for record in self._pending.values()]
        self._pending.clear()
        try:
            self._db.execute(insert(schema.signed), rows)
        except IntegrityError as error:
            raise Unavailable(
                "another replica took a release counter; try again", reason="COUNTER_TAKEN"
            ) from error

    def get(self, app: str, counter: int) -> ReleaseRecord | None:
        found = self.list(app, counter + 1, 1)
        return found[0] if found and found[0].counter == counter else None

    def add(self, record: ReleaseRecord) -> None:
        row = asdict(record)
        row["signed_ranges"] = _ranges_to_text(record.signed_ranges)
        row["ranges"] = _ranges_to_text(record.ranges)
        self._db.execute(insert(schema.releases), row)

    def list(self, app: str, below: int, limit: int) -> list[ReleaseRecord]:
        t = schema.releases
        query = select(t).where(t.c.app == app, t.c.counter < below)
        records = []
        for row in self._rows(query.order_by(t.c.counter.desc()).limit(limit)):
            row["signed_ranges"] = _ranges_from_text(row["signed_ranges"])
            row["ranges"] = _ranges_from_text(row["ranges"])
            records.append(ReleaseRecord(**row))
        return records

    def set_ranges(self, app: str, counter: int, ranges: tuple[NativeRange, ...]) -> None:
        t = schema.releases
        self._db.execute(
            update(t)
            .where(t.c.app == app, t.c.counter == counter)
            .values(ranges=_ranges_to_text(ranges))
        )


class SqlChannels(_Part):
    """Channels and their deployments."""

    def list(self, app: str, channel: str = "") -> list[ChannelRecord]:
        t = schema.channels
        query = select(t).where(t.c.app == app).order_by(t.c.id)
        if channel:
            query = query.where(t.c.id == channel)
        return [ChannelRecord(**row) for row in self._rows(query)]

    def add(self, record: ChannelRecord) -> None:
        self._db.execute(insert(schema.channels), asdict(record))

    def remove(self, app: str, channel: str) -> None:
        t = schema.channels
        self._db.execute(delete(t).where(t.c.app == app, t.c.id == channel))

    def deploy(self, record: DeploymentRecord) -> None:
        t = schema.channels
        self._db.execute(insert(schema.deployments), asdict(record))
        self._db.execute(
            update(t)
            .where(t.c.app == record.app, t.c.id == record.channel)
            .values(counter=record.counter, log_index=record.log_index)
        )

    def deployments(self, app: str, channel: str, limit: int) -> Sequence[DeploymentRecord]:
        t = schema.deployments
        query = select(t).where(t.c.app == app, t.c.channel == channel)
        rows = self._rows(query.order_by(t.c.log_index.desc()).limit(limit))
        return [DeploymentRecord(**row) for row in rows]


class SqlLog(_Part):
    """The log."""

    def head(self) -> LogHead:
        row = self._db.execute(select(schema.log_head)).one()
        return LogHead(row.size, row.root, row.note)

    def nodes(self, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        t = schema.log_nodes
        found: dict[tuple[int, int], bytes] = {}
        unique = sorted(set(wanted))
        for start in range(0, len(unique), 200):
            some = unique[start : start + 200]
            for row in self._db.execute(select(t).where(tuple_(t.c.level, t.c.idx).in_(some))):
                found[row.level, row.idx] = row.hash
        return found

    def leaves(self, start: int, limit: int) -> list[tuple[int, bytes, int]]:
        t = schema.log_leaves
        query = select(t).where(t.c.idx >= start).order_by(t.c.idx).limit(limit)
        return [(row.idx, row.leaf, row.created_at) for row in self._db.execute(query)]
