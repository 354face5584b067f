"""What was signed and registered, and the channels that it is deployed to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace

from privyseal.verify.statement import NativeRange
from sqlalchemy import Connection, delete, insert, select, update

from privyseald.adapters import schema
from privyseald.adapters.bulk import insert_rows
from privyseald.adapters.repositories import Db, Part, both_in, pairs_of
from privyseald.model.errors import CounterTakenError
from privyseald.model.records import (
    ChannelRecord,
    DeploymentRecord,
    ReleaseRecord,
    SignedRecord,
)
from privyseald.ports import Signing

_SIGNED = schema.signed.c
_OF_VERSIONS = select(schema.signed).where(both_in(_SIGNED.app, _SIGNED.version))
_COUNTERS = select(_SIGNED.app, _SIGNED.counter).where(both_in(_SIGNED.app, _SIGNED.counter))


def _ranges_to_text(ranges: Sequence[NativeRange]) -> str:
    return json.dumps([asdict(r) for r in ranges])


def _ranges_from_text(text: str) -> tuple[NativeRange, ...]:
    return tuple(NativeRange(**r) for r in json.loads(text))


class SqlReleases(Part):
    """Signed and registered releases; what was signed is written when `flush` is called."""

    def __init__(self, db: Db) -> None:
        super().__init__(db)
        self._pending: dict[tuple[str, str], SignedRecord] = {}
        self._begun: list[tuple[str, str]] = []
        self._looked_up: dict[tuple[str, str], SignedRecord | None] = {}
        self._taken: set[tuple[str, int]] = set()
        self._again: dict[tuple[str, str], SignedRecord] = {}
        self._begun_again: list[tuple[str, str]] = []

    def look_up(self, signings: Iterable[Signing]) -> None:
        """Read at once what `signed` and `add_signed` will need for some signings."""
        wanted = list(signings)
        if not wanted:
            return
        versions = {(s.app, s.version) for s in wanted}
        self._looked_up = dict.fromkeys(versions)
        for row in self.rows(_OF_VERSIONS, pairs_of(versions)):
            self._looked_up[row["app"], row["version"]] = SignedRecord(**row)
        counters = {(s.app, s.counter) for s in wanted}
        found = self._db.execute(_COUNTERS, pairs_of(counters))
        self._taken = {(row.app, row.counter) for row in found}

    def begin_act(self) -> None:
        """Forget what `undo_act` could undo."""
        self._begun.clear()
        self._begun_again.clear()

    def undo_act(self) -> None:
        """Undo what was added since `begin_act`."""
        for at in self._begun:
            self._taken.discard((at[0], self._pending.pop(at).counter))
        self._begun.clear()
        for at in self._begun_again:
            self._again.pop(at, None)
        self._begun_again.clear()

    def signed(self, app: str, *, version: str = "", counter: int = 0) -> SignedRecord | None:
        for again in self._again.values():
            # Its receipt is made once the group is sealed: who would add to it tries again.
            if (
                again.app == app
                and version in {"", again.version}
                and counter
                in {
                    0,
                    again.counter,
                }
            ):
                return replace(again, receipt=b"")
        pending = self._pending.get((app, version))
        if pending is not None:
            return pending
        if (app, version) in self._looked_up:
            return self._looked_up[app, version]
        t = schema.signed
        which = t.c.version == version if version else t.c.counter == counter
        rows = self.rows(select(t).where(t.c.app == app, which))
        return SignedRecord(**rows[0]) if rows else None

    def signed_by(self, app: str, key: str, version: int, since: int) -> Sequence[SignedRecord]:
        t = schema.signed
        query = select(t).where(
            t.c.app == app,
            t.c.created_at >= since,
            t.c.signers.contains(f" {key}/{version} ", autoescape=True),
        )
        return [SignedRecord(**row) for row in self.rows(query.order_by(t.c.counter))]

    def sign_again(self, record: SignedRecord) -> None:
        """Replace receipt and signers of what was signed, once the group is sealed."""
        self._again[record.app, record.version] = record
        self._begun_again.append((record.app, record.version))

    def last_signed(self, app: str) -> tuple[int, int]:
        t = schema.signed
        newest = select(t.c.counter, t.c.created_at).where(t.c.app == app)
        row = self._db.execute(newest.order_by(t.c.counter.desc()).limit(1)).first()
        return (0, 0) if row is None else (row.counter, row.created_at)

    def add_signed(self, record: SignedRecord) -> None:
        if (record.app, record.counter) in self._taken:
            raise CounterTakenError
        self._taken.add((record.app, record.counter))
        self._pending[record.app, record.version] = record
        self._begun.append((record.app, record.version))

    def set_receipt(self, app: str, version: str, receipt: bytes) -> None:
        if (app, version) in self._again:
            self._again[app, version] = replace(self._again[app, version], receipt=receipt)
            return
        self._pending[app, version] = replace(self._pending[app, version], receipt=receipt)

    def flush(self, connection: Connection) -> None:
        """Write what was signed; an act's savepoint has no part in it."""
        insert_rows(connection, schema.signed, [vars(r) for r in self._pending.values()])
        self._pending.clear()
        t = schema.signed
        for record in self._again.values():
            connection.execute(
                update(t)
                .where(t.c.app == record.app, t.c.version == record.version)
                .values(receipt=record.receipt, signers=record.signers)
            )
        self._again.clear()

    def get(self, app: str, counter: int) -> ReleaseRecord | None:
        found = self.list(app, counter + 1, 1)
        return found[0] if found and found[0].counter == counter else None

    def add(self, record: ReleaseRecord) -> None:
        row = asdict(record)
        row["signed_ranges"] = _ranges_to_text(record.signed_ranges)
        row["ranges"] = _ranges_to_text(record.ranges)
        self._db.write(insert(schema.releases), row)

    def list(self, app: str, below: int, limit: int) -> list[ReleaseRecord]:
        t = schema.releases
        query = select(t).where(t.c.app == app, t.c.counter < below)
        records = []
        for row in self.rows(query.order_by(t.c.counter.desc()).limit(limit)):
            row["signed_ranges"] = _ranges_from_text(row["signed_ranges"])
            row["ranges"] = _ranges_from_text(row["ranges"])
            records.append(ReleaseRecord(**row))
        return records

    def set_ranges(self, app: str, counter: int, ranges: tuple[NativeRange, ...]) -> None:
        t = schema.releases
        self._db.write(
            update(t)
            .where(t.c.app == app, t.c.counter == counter)
            .values(ranges=_ranges_to_text(ranges))
        )

    def withdraw(self, app: str, counter: int, at: int) -> None:
        t = schema.releases
        where = (t.c.app == app, t.c.counter == counter)
        self._db.write(update(t).where(*where).values(withdrawn_at=at))


class SqlChannels(Part):
    """Channels and their deployments."""

    def list(self, app: str, channel: str = "") -> list[ChannelRecord]:
        t = schema.channels
        query = select(t).where(t.c.app == app).order_by(t.c.id)
        if channel:
            query = query.where(t.c.id == channel)
        return [ChannelRecord(**row) for row in self.rows(query)]

    def add(self, record: ChannelRecord) -> None:
        self._db.write(insert(schema.channels), asdict(record))

    def remove(self, app: str, channel: str) -> None:
        t = schema.channels
        self._db.write(delete(t).where(t.c.app == app, t.c.id == channel))

    def deploy(self, record: DeploymentRecord) -> None:
        t = schema.channels
        self._db.write(insert(schema.deployments), asdict(record))
        self._db.write(
            update(t)
            .where(t.c.app == record.app, t.c.id == record.channel)
            .values(counter=record.counter, log_index=record.log_index)
        )

    def deployments(self, app: str, channel: str, limit: int) -> Sequence[DeploymentRecord]:
        t = schema.deployments
        query = select(t).where(t.c.app == app, t.c.channel == channel)
        rows = self.rows(query.order_by(t.c.log_index.desc()).limit(limit))
        return [DeploymentRecord(**row) for row in rows]
