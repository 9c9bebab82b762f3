"""
A small shop: the system under test of this suite.

It answers REST below /api, GraphQL at /graphql, and pages for people, who sign in before they buy. What it sells and
what was ordered is kept in memory. `python shop.py` listens at the address that HOST names, on the port that PORT
names.
"""

from __future__ import annotations

import html
import itertools
import json
import os
import re
import sys
import threading
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote

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
SIGN_IN = '<form method="post"><label>Name <input name="name"></label><button>Go</button></form>'
BUY = '<form method="post" action="/orders"><button name="book" value="{id}">Buy</button></form>'


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
            reader = self._reader()
            who = f"<p>Hello, {html.escape(reader)}</p>" if reader else '<p><a href="/sign-in">Sign in</a></p>'
            self._page("The shop", f"{who}<ul>{links}</ul>")
        elif self.path == "/sign-in":
            self._page(
                "Sign in", '<form method="post"><label>Name <input name="name"></label><button>Go</button></form>'
            )
        elif self.path == "/api/books":
            self._json(200, list(BOOKS.values()))
        elif found and (thing := (BOOKS if found[2] == "books" else ORDERS).get(int(found[3]))):
            if found[1]:
                self._json(200, thing)
            else:
                buy = BUY.format(**thing) if found[2] == "books" else ""
                price = f"<p>{thing['cents'] / 100:.2f} €</p>"
                self._page(str(thing.get("title", "Order")), price + buy + '<a href="/">Back</a>')
        else:
            self._json(404, {"error": f"there is no {self.path}"})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if self.path in {"/sign-in", "/orders"}:
            self._submitted({name: values[0] for name, values in parse_qs(content).items()})
        else:
            self._asked(json.loads(content))

    def _submitted(self, form: dict[str, str]) -> None:
        """What people sent by a form."""
        if self.path == "/sign-in":
            self._see_other("/", cookie=f"reader={quote(form.get('name', ''))}; HttpOnly; SameSite=Lax")
        elif self._reader():
            self._see_other(f"/orders/{ORDERS.place([int(form['book'])])['id']}")
        else:
            self._see_other("/sign-in")

    def _asked(self, asked: dict[str, object]) -> None:
        """What programs sent."""
        if self.path == "/graphql":
            answer = graphql_sync(SCHEMA, asked["query"], Root(), variable_values=asked.get("variables"))
            self._json(200, answer.formatted)
        elif self.path != "/api/orders":
            self._json(404, {"error": f"there is no {self.path}"})
        elif unknown := [each for each in asked["books"] if each not in BOOKS]:
            self._json(422, {"error": f"there is no book {unknown[0]}"})
        else:
            self._json(201, ORDERS.place(asked["books"]))

    def _reader(self) -> str:
        """Who signed in; empty when nobody did."""
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("reader")
        return unquote(cookie.value) if cookie else ""

    def _see_other(self, path: str, cookie: str = "") -> None:
        self.send_response(303)
        self.send_header("Location", path)
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.send_header("Content-Length", "0")
        self.end_headers()

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
