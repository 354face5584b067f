"""Where each private key is, and what its token says of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column."""
    op.add_column(
        "key_versions", sa.Column("protection", sa.Text, nullable=False, server_default="{}")
    )
