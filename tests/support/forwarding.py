"""A TCP port that leads to a Unix socket, for those who can reach the one and not the other."""

from __future__ import annotations

import shutil
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["forwarding"]


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    target: Path


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as there:
            there.connect(str(self.server.target))
            back = threading.Thread(target=_copy, args=(there, self.request), daemon=True)
            back.start()
            _copy(self.request, there)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Until one of them ends, which then both do."""
    with suppress(OSError), source.makefile("rb", 0) as reader, target.makefile("wb", 0) as writer:
        shutil.copyfileobj(reader, writer)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextmanager
def forwarding(host: str, target: Path) -> Iterator[int]:
    """Serve on an address of this machine; gives the port."""
    with _Server((host, 0), _Handler) as server:
        server.target = target
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
