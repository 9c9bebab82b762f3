"""Inserting many rows with few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

__all__ = ["insert"]

_ROWS_AT_ONCE: Final = 100
"""Of at most nine columns each; builds of SQLite that allow the fewest parameters take 999 of them."""


def insert(connection: sqlite3.Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    """
    Execute an `INSERT` for these rows, in their order.

    For each statement the interpreter's lock is let go, and a busy thread keeps it for a while before it gives it back:
    one for each row, as of `executemany`, takes many times as long as the work itself.

    Args:
        statement: with `{rows}` behind its `VALUES`.
    """
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[first : first + _ROWS_AT_ONCE]
        row = f"({', '.join('?' * len(some[0]))})"
        connection.execute(statement.format(rows=", ".join([row] * len(some))), list(chain.from_iterable(some)))
