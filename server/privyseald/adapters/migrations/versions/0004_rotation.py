"""Lives of key versions, native builds and their check-ins, rotations, successor records."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add columns and tables."""
    for name in ("destroy_at", "activated_at", "expires_at", "compromised_at"):
        _add("key_versions", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    _add("key_versions", sa.Column("before", sa.String(32), nullable=False, server_default=""))
    _add("keys", sa.Column("cryptoperiod_days", sa.Integer, nullable=False, server_default="0"))
    _add("signed_releases", sa.Column("signers", sa.Text, nullable=False, server_default=""))
    _add("releases", sa.Column("withdrawn_at", sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "native_builds",
        sa.Column("app", sa.String(63), nullable=False),
        sa.Column("id", sa.String(100), nullable=False),
        sa.Column("platform", sa.String(16), nullable=False),
        sa.Column("version_name", sa.String(32), nullable=False),
        sa.Column("version_code", sa.String(32), nullable=False),
        sa.Column("plugin", sa.String(32), nullable=False),
        sa.Column("trusts", sa.LargeBinary, nullable=False),
        sa.Column("registered_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("app", "id"),
    )
    op.create_table(
        "check_ins",
        sa.Column("app", sa.String(63), nullable=False),
        sa.Column("build", sa.String(100), nullable=False),
        sa.Column("platform", sa.String(16), nullable=False),
        sa.Column("version_name", sa.String(32), nullable=False),
        sa.Column("version_code", sa.String(32), nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            *("app", "day", "build", "platform", "version_name", "version_code")
        ),
    )
    op.create_table(
        "rotations",
        sa.Column("app", sa.String(63), nullable=False),
        sa.Column("key", sa.String(63), nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("old", sa.Integer, nullable=False),
        sa.Column("new", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("history", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("app", "key", "id"),
    )
    op.create_table(
        "successors",
        sa.Column("app", sa.String(63), nullable=False),
        sa.Column("key", sa.String(63), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("app", "key", "number"),
    )


def _add(table: str, column: sa.Column[object]) -> None:
    op.add_column(table, column)
