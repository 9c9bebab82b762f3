"""
A small shop: a real HTTP server with REST and GraphQL, and with all that a client has to put up with.

Everything runs in threads of this process, on loopback; `requests` has what was asked for.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from graphql import build_schema, graphql_sync
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

SDL = """
type Query { book(id: ID!): Book, books: [Book!]! }
type Mutation { rename(id: ID!, title: String!): Book }
type Subscription { prices(count: Int!): Price! }
type Book { id: ID!, title: String!, pages: Int }
type Price { cents: Int! }
"""

TOKEN = "t0ken-of-the-shop"


@dataclass
class Shop:
    """
    Attributes:
        requests: method, path, headers and body of each, in order.
        introspects: whether GraphQL says what it offers.
    """

    url: str = ""
    websocket_url: str = ""
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    books: dict[str, dict[str, object]] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)
    introspects: bool = True
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def asked(self) -> list[str]:
        """Of each request, method and path."""
        return [f"{method} {path}" for method, path, _, _ in self.requests]


@contextlib.contextmanager
def open_shop(context: ssl.SSLContext | None = None) -> Iterator[Shop]:
    """A shop that is open; with a context, by TLS."""
    shop = Shop(books={"1": {"id": "1", "title": "Dune", "pages": 412}})
    handler = type("Handler", (_Handler,), {"shop": shop})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    shop.url = f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield shop
    finally:
        shop.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def open_price_feed(shop: Shop) -> Iterator[None]:
    """Its subscriptions, over a WebSocket that speaks graphql-transport-ws."""
    with serve(_feed, "127.0.0.1", 0, subprotocols=["graphql-transport-ws"]) as server:
        shop.websocket_url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _feed(connection) -> None:
    with contextlib.suppress(ConnectionClosed):
        for text in connection:
            message = json.loads(text)
            if message["type"] == "connection_init":
                if message.get("payload", {}).get("token") == "wrong":
                    connection.close(4403, "Forbidden")
                    return
                if message.get("payload", {}).get("token") == "garbled":
                    connection.send("this is not JSON")
                connection.send(json.dumps({"type": "ping"}))
                connection.send(json.dumps({"type": "connection_ack"}))
            elif message["type"] == "subscribe":
                count = message["payload"].get("variables", {}).get("count", 1)
                if count < 0:
                    errors = [{"message": "no negative count"}]
                    connection.send(json.dumps({"type": "error", "id": message["id"], "payload": errors}))
                    continue
                for cents in range(count):
                    data = {"data": {"prices": {"cents": cents}}}
                    connection.send(json.dumps({"type": "next", "id": message["id"], "payload": data}))
                if count < 10:
                    connection.send(json.dumps({"type": "complete", "id": message["id"]}))
                else:
                    connection.close(1001, "going away")


class _Handler(BaseHTTPRequestHandler):
    shop: Shop
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            super().handle_one_request()

    def log_message(self, *args: object) -> None:
        pass

    def _any(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length)
        self.shop.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        address = urlsplit(self.path)
        parts = address.path.strip("/").split("/")
        answer = getattr(self, f"_{parts[0].replace('-', '_')}", None)
        if answer is None:
            self._json(404, {"error": "no such page"})
        else:
            answer(parts[1:], parse_qs(address.query), body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _any  # noqa: N815 - names of the base class

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, status: int, value: object, **headers: str) -> None:
        self._send(status, json.dumps(value).encode(), content_type="application/json", **headers)

    def _books(self, parts, query, body) -> None:
        if self.command == "POST":
            number = str(len(self.shop.books) + 1)
            self.shop.books[number] = {"id": number, **json.loads(body)}
            self._json(201, self.shop.books[number], location=f"/books/{number}", set_cookie="visit=c00kie; Path=/")
        elif parts:
            book = self.shop.books.get(parts[0])
            self._json(200 if book else 404, book or {"error": "no such book"})
        else:
            self._json(200, {"items": list(self.shop.books.values()), "total": len(self.shop.books)})

    def _echo(self, parts, query, body) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        told = {"method": self.command, "query": query, "headers": headers, "body": body.decode("utf-8", "replace")}
        self._json(200, told)

    def _token(self, parts, query, body) -> None:
        form = parse_qs(body.decode())
        if form.get("grant_type") != ["client_credentials"] or "authorization" not in {k.lower() for k in self.headers}:
            self._json(400, {"error": "invalid_client", "error_description": "who are you?"})
        else:
            self._json(200, {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600})

    def _members(self, parts, query, body) -> None:
        known = self.headers.get("authorization") == f"Bearer {TOKEN}"
        self._json(200 if known else 401, {"member": known, "secret": TOKEN})

    def _jobs(self, parts, query, body) -> None:
        """Done when it has been looked at three times."""
        looked = self.shop.jobs[parts[0]] = self.shop.jobs.get(parts[0], 0) + 1
        self._json(200, {"state": "done" if looked >= 3 else "busy"})

    def _redirect(self, parts, query, body) -> None:
        self._send(302, b"", location="/redirect" if parts != ["once"] else "/books")

    def _text(self, parts, query, body) -> None:
        self._send(200, b"order 4711 is on its way", content_type="text/plain")

    def _latin(self, parts, query, body) -> None:
        self._send(200, b"\xff\xfe\x00{", content_type="application/json")

    def _bomb(self, parts, query, body) -> None:
        self._send(200, gzip.compress(bytes(33 << 20), 1), content_encoding="gzip", content_type="text/plain")

    def _garbage(self, parts, query, body) -> None:
        self._send(200, b"this is not gzip", content_encoding="gzip")

    def _slow(self, parts, query, body) -> None:
        self.shop.closing.wait(20)
        self.close_connection = True

    def _hang_up(self, parts, query, body) -> None:
        self.close_connection = True

    def _graphql(self, parts, query, body) -> None:
        asked = json.loads(body)
        if "__schema" in asked["query"] and not self.shop.introspects:
            self._json(400, {"errors": [{"message": "introspection is off"}]})
            return
        root = {
            "book": lambda info, **named: self.shop.books.get(named["id"]),
            "books": lambda info: list(self.shop.books.values()),
            "rename": self._rename,
        }
        found = graphql_sync(
            build_schema(SDL),
            asked["query"],
            root,
            variable_values=asked.get("variables"),
            operation_name=asked.get("operationName"),
        )
        self._json(200, found.formatted)

    def _rename(self, info, *, title, **named):
        book = self.shop.books.get(named["id"])
        if book is None:
            raise ValueError(f"no book {named['id']}")
        book["title"] = title
        return book
