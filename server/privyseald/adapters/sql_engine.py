"""The database: how a connection behaves, and how its schema is brought up to date."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from privyseal.verify.merkle import EMPTY_ROOT
from privyseal.verify.note import Checkpoint
from sqlalchemy import Connection, Engine, create_engine, event, insert, select
from sqlalchemy.pool import QueuePool

from privyseald.adapters import schema

_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "busy_timeout=10000",
    "foreign_keys=ON",
    "wal_autocheckpoint=8000",
    "cache_size=-65536",
    "trusted_schema=OFF",
    "secure_delete=ON",
)


def make_engine(url: str, *, reads_only: bool = False) -> Engine:
    """Return an engine whose transactions are serialised and durable.

    Args:
        url: SQLAlchemy URL of an SQLite database.
        reads_only: Its transactions see one state and wait for nobody who writes.
    """
    engine = create_engine(url, poolclass=QueuePool, pool_size=6, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # The driver would begin transactions by itself, and late.
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        if reads_only:
            connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # What may write takes the lock at its beginning: taken later, it could fail in the middle.
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")

    return engine


def migrate(url: str, origin_note: Callable[[Checkpoint], str], origin: str) -> None:
    """Bring a database to the newest schema and give an empty one its first checkpoint.

    Args:
        url: SQLAlchemy URL.
        origin_note: Signs the checkpoint of the empty log.
        origin: The log's name.

    Raises:
        OSError: If a newer version of Privyseal has changed it already.
    """
    engine = make_engine(url)
    config = Config()
    config.set_main_option(
        "script_location", str(files("privyseald.adapters").joinpath("migrations"))
    )
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError:
            raise OSError(
                "the database is of a newer version of Privyseal; start that, or restore a backup"
            ) from None
        if connection.execute(select(schema.log_head)).first() is None:
            note = origin_note(Checkpoint(origin, 0, EMPTY_ROOT))
            connection.execute(
                insert(schema.log_head), {"id": 1, "size": 0, "root": EMPTY_ROOT, "note": note}
            )
            connection.execute(insert(schema.state), {"name": "revision", "number": 1})
    engine.dispose()
