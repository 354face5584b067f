"""The database: how a connection behaves, and how its schema is brought up to date."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from alembic import command
from alembic.config import Config
from privyseal.verify.merkle import EMPTY_ROOT
from privyseal.verify.note import Checkpoint
from sqlalchemy import Connection, Engine, create_engine, event, insert, select
from sqlalchemy.pool import QueuePool

from privyseald.adapters import schema

READER = "store-reader"
"""How the names of threads begin that only read."""


def make_engine(url: str) -> Engine:
    """Return an engine whose transactions are serialised and durable."""
    engine = create_engine(url, poolclass=QueuePool, pool_size=6, hide_parameters=True)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def configure(connection: Any, _record: Any) -> None:
            connection.isolation_level = None
            for pragma in (
                "journal_mode=WAL",
                "synchronous=FULL",
                "busy_timeout=10000",
                "foreign_keys=ON",
                "wal_autocheckpoint=8000",
                "cache_size=-65536",
                "trusted_schema=OFF",
                "secure_delete=ON",
            ):
                connection.execute(f"PRAGMA {pragma}")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            reading = threading.current_thread().name.startswith(READER)
            connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def migrate(url: str, origin_note: Callable[[Checkpoint], str], origin: str) -> None:
    """Bring a database to the newest schema and give an empty one its first checkpoint.

    Args:
        url: SQLAlchemy URL.
        origin_note: Signs the checkpoint of the empty log.
        origin: The log's name.
    """
    engine = make_engine(url)
    config = Config()
    config.set_main_option(
        "script_location", str(files("privyseald.adapters").joinpath("migrations"))
    )
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        if connection.execute(select(schema.log_head)).first() is None:
            note = origin_note(Checkpoint(origin, 0, EMPTY_ROOT))
            connection.execute(
                insert(schema.log_head), {"id": 1, "size": 0, "root": EMPTY_ROOT, "note": note}
            )
            connection.execute(insert(schema.state), {"name": "revision", "number": 1})
    engine.dispose()
