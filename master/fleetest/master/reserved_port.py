"""Which port the master of `fleetest up` gets, when several clusters start on one machine at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Final

from fleetest.common.errors import DependencyUnavailable

__all__ = ["DEFAULT_PORT", "reserved_port"]

DEFAULT_PORT: Final = 50051

_LOOPBACK: Final = "127.0.0.1"
_TRIES: Final = 100
"""The system chooses a UDP port; on a busy machine, a connection may have the TCP port of that number."""


@contextmanager
def reserved_port(wanted: int = 0) -> Iterator[int]:
    """
    A TCP port of the loopback interface that is free, and that no other supervisor takes before our master listens.

    Whoever holds the UDP port of the same number has the right to it; nothing is ever sent there.

    Args:
        wanted: 0 takes the usual one, or any when that is taken.

    Raises:
        DependencyUnavailable: the port that is wanted is taken, or no port is free.
    """
    for port in (wanted,) if wanted else (DEFAULT_PORT, *repeat(0, _TRIES)):
        with socket.socket(type=socket.SOCK_DGRAM) as right:
            try:
                right.bind((_LOOPBACK, port))
                number = int(right.getsockname()[1])
                _see_that_it_is_free(number)
            except OSError:
                continue
            yield number
            return
    if not wanted:
        raise DependencyUnavailable("no port of the loopback interface is free", hint="choose one with --port")
    raise DependencyUnavailable(f"port {wanted} is taken", hint="choose another with --port, or leave it out")


def _see_that_it_is_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((_LOOPBACK, port))
