"""Certificates of key versions, for devices that embed one or are sent one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns; NULL where a version has no certificate."""
    for column in (
        sa.Column("certificate", sa.LargeBinary),
        sa.Column("certificate_begins", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("certificate_ends", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("anchor_sha256", sa.LargeBinary),
    ):
        op.add_column("key_versions", column)
    # Runtime versions of Expo's are longer than versions of stores.
    for table in ("native_builds", "check_ins"):
        with op.batch_alter_table(table) as changed:
            changed.alter_column("version_name", type_=sa.String(64), existing_nullable=False)
