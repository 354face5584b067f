"""The store's parts that say who may do what; each implements a port of the same name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import bindparam, delete, insert, select

from privyseald.adapters import schema
from privyseald.adapters.repositories import Part
from privyseald.model.approvals import Approval
from privyseald.model.fields import ALL_APPS
from privyseald.model.policy import Action, Grant, Role
from privyseald.model.records import (
    DeniedCertificate,
    PolicyRecord,
    SessionRecord,
    TokenRecord,
)

_DIGEST = 32
_MOST_APPROVALS = 200

# Asked for each new caller: built once.
_TOKEN = select(schema.tokens).where(schema.tokens.c.id == bindparam("id"))
_SESSION = select(schema.sessions).where(schema.sessions.c.id == bindparam("id"))
_DENIED = select(schema.denied_certificates).where(
    schema.denied_certificates.c.serial == bindparam("serial")
)
_GRANTS_OF = (
    select(schema.grants)
    .where(schema.grants.c.principal == bindparam("principal"))
    .order_by(schema.grants.c.created_at, schema.grants.c.id)
)


class SqlTokens(Part):
    """Credentials."""

    def get(self, token_id: str) -> TokenRecord | None:
        rows = self.rows(_TOKEN, {"id": token_id})
        return TokenRecord(**rows[0]) if rows else None

    def list(self) -> list[TokenRecord]:
        query = select(schema.tokens).order_by(schema.tokens.c.created_at.desc())
        return [TokenRecord(**row) for row in self.rows(query)]

    def put(self, record: TokenRecord) -> None:
        self._db.write(delete(schema.tokens).where(schema.tokens.c.id == record.id))
        self._db.write(insert(schema.tokens), asdict(record))
        self._db.raise_revision()

    def session(self, session_id: str) -> SessionRecord | None:
        rows = self.rows(_SESSION, {"id": session_id})
        if not rows:
            return None
        row = rows[0]
        packed = row["digests"]
        row["digests"] = tuple(packed[i : i + _DIGEST] for i in range(0, len(packed), _DIGEST))
        row["attributes"] = json.loads(row["attributes"])
        return SessionRecord(**row)

    def add_session(self, record: SessionRecord) -> None:
        row = dict(vars(record))
        row["digests"] = b"".join(record.digests)
        row["attributes"] = json.dumps(dict(record.attributes))
        self._db.write(insert(schema.sessions), row)

    def use(self, issuer: str, token_sha256: bytes, expires_at: int) -> bool:
        t = schema.used_tokens
        where = (t.c.issuer == issuer) & (t.c.token_sha256 == token_sha256)
        if self._db.execute(select(t.c.issuer).where(where)).first() is not None:
            return False
        row = {"issuer": issuer, "token_sha256": token_sha256, "expires_at": expires_at}
        self._db.write(insert(t), row)
        return True

    def denied(self, serial: str) -> DeniedCertificate | None:
        rows = self.rows(_DENIED, {"serial": serial})
        return DeniedCertificate(**rows[0]) if rows else None

    def denials(self) -> Sequence[DeniedCertificate]:
        t = schema.denied_certificates
        return [DeniedCertificate(**row) for row in self.rows(select(t).order_by(t.c.created_at))]

    def deny(self, record: DeniedCertificate) -> None:
        self._db.write(insert(schema.denied_certificates), asdict(record))
        self._db.raise_revision()


class SqlGrants(Part):
    """Grants."""

    def list(self, *, principal: str = "", app: str = "", grant_id: str = "") -> list[Grant]:
        if principal and not (app or grant_id):
            return [_grant(row) for row in self.rows(_GRANTS_OF, {"principal": principal})]
        t = schema.grants
        query = select(t).order_by(t.c.created_at, t.c.id)
        if principal:
            query = query.where(t.c.principal == principal)
        if app:
            query = query.where(t.c.app.in_([app, ALL_APPS]))
        if grant_id:
            query = query.where(t.c.id == grant_id)
        return [_grant(row) for row in self.rows(query)]

    def add(self, grant: Grant) -> None:
        self._db.write(insert(schema.grants), grant_row(grant))
        self._db.raise_revision()

    def remove(self, grant_id: str) -> None:
        self._db.write(delete(schema.grants).where(schema.grants.c.id == grant_id))
        self._db.raise_revision()


def grant_row(grant: Grant) -> dict[str, Any]:
    """Return a grant as a row."""
    return {**vars(grant), "conditions": json.dumps(grant.conditions)}


def _grant(row: dict[str, Any]) -> Grant:
    conditions = tuple((name, value) for name, value in json.loads(row["conditions"]))
    return Grant(**{**row, "role": Role(row["role"]), "conditions": conditions})


class SqlPolicies(Part):
    """The team's policies."""

    def get(self, version: int = 0) -> PolicyRecord | None:
        t = schema.policies
        query = select(t).order_by(t.c.version.desc()).limit(1)
        rows = self.rows(query.where(t.c.version == version) if version else query)
        return PolicyRecord(**rows[0]) if rows else None

    def add(self, record: PolicyRecord) -> None:
        self._db.write(insert(schema.policies), asdict(record))
        self._db.raise_revision()


class SqlApprovals(Part):
    """Requests for consent."""

    def get(self, approval_id: str) -> Approval | None:
        rows = self.rows(select(schema.approvals).where(schema.approvals.c.id == approval_id))
        return _approval(rows[0]) if rows else None

    def list(self, app: str) -> list[Approval]:
        t = schema.approvals
        newest = select(t).where(t.c.app == app).order_by(t.c.created_at.desc(), t.c.id)
        return [_approval(row) for row in self.rows(newest.limit(_MOST_APPROVALS))]

    def consented(self, app: str, action: str, now: int) -> Sequence[Approval]:
        t = schema.approvals
        query = (
            select(t)
            .where(t.c.app == app, t.c.action == action, t.c.expires_at > now)
            .where(t.c.approvers != "[]", t.c.rejected_by == "", t.c.used < t.c.uses)
            .order_by(t.c.created_at, t.c.id)
        )
        return [_approval(row) for row in self.rows(query)]

    def put(self, record: Approval) -> None:
        self._db.write(delete(schema.approvals).where(schema.approvals.c.id == record.id))
        row = vars(record).copy()
        consents = list(zip(record.approvers, row.pop("serials"), strict=True))
        self._db.write(insert(schema.approvals), {**row, "approvers": json.dumps(consents)})


def _approval(row: dict[str, Any]) -> Approval:
    consents = json.loads(row["approvers"])
    row["approvers"] = tuple(principal for principal, _ in consents)
    row["serials"] = tuple(serial for _, serial in consents)
    return Approval(**{**row, "action": Action(row["action"])})
