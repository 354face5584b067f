"""Inserts of many rows whose values are what the driver takes as it is.

SQLAlchemy looks at each value of each row. For tables of integers, texts and bytes that costs
more than the insert; so it compiles the statement once, and the driver gets the rows.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Table, insert


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that have the same columns, of integers, texts and bytes alone.

    Args:
        connection: In a transaction.
        table: Where to.
        rows: By the names of the columns.
    """
    if not rows:
        return
    sql, order = _compiled(connection.dialect, table, tuple(rows[0]))
    given: Any = list(map(itemgetter(*order), rows)) if order else [dict(row) for row in rows]
    connection.exec_driver_sql(sql, given)


@functools.cache
def _compiled(dialect: Dialect, table: Table, columns: tuple[str, ...]) -> tuple[str, list[str]]:
    """Return the statement, and the order of its parameters if they have no names."""
    compiled = insert(table).compile(dialect=dialect, column_keys=list(columns))
    return str(compiled), list(compiled.positiontup or ())
