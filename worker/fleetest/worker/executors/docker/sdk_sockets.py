"""
The Docker SDK's connection over a Unix socket, which closes it when nobody answers there.

The SDK's own leaves that to the garbage collector (docker-py's pull request 3356), and a dead Engine is asked again and
again.
"""

from __future__ import annotations

import socket

from docker.transport import unixconn

__all__ = ["use_closing_connections"]


class _ClosingConnection(unixconn.UnixHTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)  # urllib3 closes what it finds here
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.unix_socket)


def use_closing_connections() -> None:
    """From now on, for all clients of this process; the SDK has no option for it."""
    unixconn.UnixHTTPConnection = _ClosingConnection  # type: ignore[misc]
