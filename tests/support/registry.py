"""A registry of images that refuses, over the protocol of registries."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["registry"]


@contextmanager
def registry(status: int, code: str, *, asked: threading.Event | None = None) -> Iterator[str]:
    """
    Answers everything but its greeting with this status of HTTP and code of the distribution protocol; when there is
    `asked`, it sets that instead, and answers when it is told to go.

    Gives its address, which an Engine takes for a registry without TLS, as it lies on the loopback network.
    """

    leaving = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            greeted = self.path == "/v2/"
            if asked is not None and not greeted:
                asked.set()
                leaving.wait()
            body = b"{}" if greeted else json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()
            self.send_response(200 if greeted else status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - as above

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            leaving.set()
            server.shutdown()
            thread.join()
