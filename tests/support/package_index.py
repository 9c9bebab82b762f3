"""A package index that wants a password."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["PackageIndex", "package_index"]


@dataclass
class PackageIndex:
    """
    Args:
        url: with the credentials.
        downloads: names of the files that were asked for.
    """

    url: str
    downloads: list[str] = field(default_factory=list)


@contextmanager
def package_index(wheels: Path, *, host: str, password: str) -> Iterator[PackageIndex]:
    """Serves the wheels of a directory as PEP 503 has it, to the user `ci`."""
    wanted = "Basic " + base64.b64encode(f"ci:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic")
                self.end_headers()
                return
            if self.path.endswith(".whl"):
                name = self.path.rpartition("/")[2]
                index.downloads.append(name)
                self._answer((wheels / name).read_bytes(), "application/octet-stream")
            else:
                links = "".join(f'<a href="/files/{path.name}">{path.name}</a>' for path in wheels.glob("*.whl"))
                self._answer(f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), "text/html")

        def _answer(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "max-age=600")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer((host, 0), Handler)
    index = PackageIndex(url=f"http://ci:{password}@{host}:{server.server_port}/simple")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield index
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
