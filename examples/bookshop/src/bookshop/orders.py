"""Orders in SQLite."""

from __future__ import annotations

import sqlite3

from bookshop.pricing import Line, total


class OrderBook:
    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path)
        self._db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, cents INTEGER, state TEXT)")

    def place(self, customer: str, lines: list[Line], *, country: str = "DE") -> int:
        if not lines:
            raise ValueError("an order needs at least one line")
        row = (customer, total(lines, country=country))
        cursor = self._db.execute("INSERT INTO orders (customer, cents, state) VALUES (?, ?, 'open')", row)
        return int(cursor.lastrowid or 0)

    def pay(self, order: int) -> None:
        changed = self._db.execute("UPDATE orders SET state = 'paid' WHERE id = ? AND state = 'open'", (order,))
        if changed.rowcount != 1:
            raise LookupError(f"order {order} cannot be paid")

    def state(self, order: int) -> str:
        return str(self._db.execute("SELECT state FROM orders WHERE id = ?", (order,)).fetchone()[0])

    def turnover(self) -> int:
        row = self._db.execute("SELECT coalesce(sum(cents), 0) FROM orders WHERE state = 'paid'").fetchone()
        return int(row[0])

    def close(self) -> None:
        self._db.close()
