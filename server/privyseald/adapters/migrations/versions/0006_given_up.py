"""Keys that were given up: releases are signed without them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column; no key was given up before."""
    column = sa.Column("given_up", sa.Integer, nullable=False, server_default="0")
    op.add_column("keys", column)
