"""Native builds, check-ins, rotations and successor records over one SQL connection."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.dialects import sqlite

from privyseald.adapters import schema
from privyseald.adapters.repositories import Part
from privyseald.model.field import CheckIns, NativeBuild
from privyseald.model.records import SuccessorRecord
from privyseald.model.rotation import Rotation, RotationKind, RotationState, Step

_DIGEST = 32


class SqlNativeBuilds(Part):
    """Native builds and the check-ins of their devices."""

    def list(self, app: str) -> list[NativeBuild]:
        t = schema.native_builds
        query = select(t).where(t.c.app == app).order_by(t.c.registered_at, t.c.id)
        return [_build(row) for row in self.rows(query)]

    def put(self, build: NativeBuild) -> None:
        t = schema.native_builds
        self._db.write(delete(t).where(t.c.app == build.app, t.c.id == build.id))
        self._db.write(insert(t), {**asdict(build), "trusts": b"".join(build.trusts)})
        self._db.raise_revision()

    def check_ins(self, app: str, since_day: int) -> Sequence[CheckIns]:
        t = schema.check_ins
        query = select(t).where(t.c.app == app, t.c.day >= since_day).order_by(t.c.day)
        rows = self.rows(query)
        return [CheckIns(**{n: v for n, v in row.items() if n != "app"}) for row in rows]


def _build(row: dict[str, Any]) -> NativeBuild:
    joined = row["trusts"]
    cuts = range(0, len(joined), _DIGEST)
    return NativeBuild(**{**row, "trusts": tuple(joined[at : at + _DIGEST] for at in cuts)})


def add_check_ins(connection: Connection, counts: Iterable[tuple[str, CheckIns]]) -> None:
    """Add counts to those that are there."""
    t = schema.check_ins
    rows = [{"app": app, **asdict(count)} for app, count in counts]
    if not rows:
        return
    statement = sqlite.insert(t)
    added = {"count": t.c.count + statement.excluded.count}
    keys = [column.name for column in t.primary_key]
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=added), rows)


class SqlRotations(Part):
    """Rotations and successor records."""

    def get(self, app: str, key: str, rotation: str) -> Rotation | None:
        return next((r for r in self.list(app, key) if r.id == rotation), None)

    def list(self, app: str, key: str = "") -> list[Rotation]:
        t = schema.rotations
        query = select(t).where(t.c.app == app)
        if key:
            query = query.where(t.c.key == key)
        found = [_rotation(row) for row in self.rows(query)]
        return sorted(found, key=lambda r: (r.key, int(r.id)))

    def put(self, record: Rotation) -> None:
        t = schema.rotations
        same = (t.c.app == record.app, t.c.key == record.key, t.c.id == record.id)
        self._db.write(delete(t).where(*same))
        row = {
            **vars(record),
            "history": json.dumps([asdict(step) for step in record.history]),
            "created_at": record.history[0].at,
        }
        self._db.write(insert(t), row)

    def successors(self, app: str, key: str) -> Sequence[SuccessorRecord]:
        t = schema.successors
        query = select(t).where(t.c.app == app, t.c.key == key).order_by(t.c.number)
        return [SuccessorRecord(**row) for row in self.rows(query)]

    def add_successor(self, record: SuccessorRecord) -> None:
        self._db.write(insert(schema.successors), asdict(record))


def _rotation(row: dict[str, Any]) -> Rotation:
    history = tuple(
        Step(**{**step, "state": RotationState(step["state"])})
        for step in json.loads(row["history"])
    )
    return Rotation(
        app=row["app"],
        key=row["key"],
        id=row["id"],
        kind=RotationKind(row["kind"]),
        old=row["old"],
        new=row["new"],
        state=RotationState(row["state"]),
        reason=row["reason"],
        history=history,
    )
