"""
A small shop: the system under test of this suite.

It answers REST below /api, GraphQL at /graphql, and pages for people. What it sells and what was ordered is kept in
memory. `python shop.py` listens at the address that HOST names, on the port that PORT names.
"""

from __future__ import annotations

import html
import itertools
import json
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from graphql import build_schema, graphql_sync

BOOKS = {
    1: {"id": 1, "title": "Dune", "cents": 1299},
    2: {"id": 2, "title": "Emma", "cents": 899},
    3: {"id": 3, "title": "Ulysses", "cents": 1599},
}
SCHEMA = build_schema("""
    type Book { id: Int! title: String! cents: Int! }
    type Order { id: Int! books: [Book!]! cents: Int! }
    type Query { books(at_most: Int): [Book!]! book(id: Int!): Book order(id: Int!): Order }
""")


class Orders:
    """What was ordered, by number."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._orders: dict[int, dict[str, object]] = {}

    def place(self, book_ids: list[int]) -> dict[str, object]:
        books = [BOOKS[book_id] for book_id in book_ids]
        with self._lock:
            number = next(self._numbers)
            self._orders[number] = {"id": number, "books": books, "cents": sum(book["cents"] for book in books)}
            return self._orders[number]

    def get(self, number: int) -> dict[str, object] | None:
        return self._orders.get(number)


ORDERS = Orders()


class Root:
    """What GraphQL asks."""

    def books(self, _info: object, at_most: int | None = None) -> list[dict[str, object]]:
        return [book for book in BOOKS.values() if at_most is None or book["cents"] <= at_most]

    def book(self, _info: object, id: int) -> dict[str, object] | None:  # noqa: A002 - named by the schema
        return BOOKS.get(id)

    def order(self, _info: object, id: int) -> dict[str, object] | None:  # noqa: A002 - named by the schema
        return ORDERS.get(id)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        found = re.fullmatch(r"/(api/)?(books|orders)/(\d+)", self.path)
        if self.path == "/health":
            self._json(200, {"status": "up"})
        elif self.path == "/":
            links = "".join(f'<li><a href="/books/{each}">{BOOKS[each]["title"]}</a></li>' for each in BOOKS)
            self._page("The shop", f"<ul>{links}</ul>")
        elif self.path == "/api/books":
            self._json(200, list(BOOKS.values()))
        elif found and (thing := (BOOKS if found[2] == "books" else ORDERS).get(int(found[3]))):
            if found[1]:
                self._json(200, thing)
            else:
                self._page(str(thing.get("title", "Order")), f"<p>{thing['cents'] / 100:.2f} €</p><a href='/'>Back</a>")
        else:
            self._json(404, {"error": f"there is no {self.path}"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        if self.path == "/graphql":
            answer = graphql_sync(SCHEMA, asked["query"], Root(), variable_values=asked.get("variables"))
            self._json(200, answer.formatted)
        elif self.path != "/api/orders":
            self._json(404, {"error": f"there is no {self.path}"})
        elif unknown := [each for each in asked["books"] if each not in BOOKS]:
            self._json(422, {"error": f"there is no book {unknown[0]}"})
        else:
            self._json(201, ORDERS.place(asked["books"]))

    def _json(self, status: int, content: object) -> None:
        self._answer(status, "application/json", json.dumps(content))

    def _page(self, title: str, body: str) -> None:
        title = html.escape(title)
        self._answer(200, "text/html; charset=utf-8", f"<!doctype html><title>{title}</title><h1>{title}</h1>{body}")

    def _answer(self, status: int, content_type: str, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8000"))
    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    print(f"the shop is open at http://{host}:{server.server_port}", file=sys.stderr)
    server.serve_forever()


if __name__ == "__main__":
    main()
