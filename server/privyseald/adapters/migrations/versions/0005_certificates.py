"""Certificates of key versions, for devices that embed one or are sent one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns."""
    for name, kind, default in (
        ("certificate", sa.LargeBinary, sa.text("''")),
        ("certificate_ends", sa.BigInteger, "0"),
        ("anchor_sha256", sa.LargeBinary, sa.text("''")),
    ):
        op.add_column("key_versions", sa.Column(name, kind, nullable=False, server_default=default))
