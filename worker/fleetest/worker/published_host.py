"""Under which address others reach this machine."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Sequence
from typing import Final

from fleetest.worker.service_address import LOOPBACK

__all__ = ["find_published_host"]

_ELSEWHERE: Final = "192.0.2.1:9"
"""Nobody's address (RFC 5737), and nothing is sent there."""


def find_published_host(named: str, masters: Sequence[str]) -> str:
    """
    The one that is named; else that from which this machine reaches its master, or, where this is on the same machine,
    the world; a machine without a network is reached by itself alone.

    Looks names up, so it may block.
    """
    if named:
        return named
    for address in (*masters, _ELSEWHERE):
        with contextlib.suppress(OSError, ValueError):
            host, _, port = address.rpartition(":")
            own = _own_address_towards(host.strip("[]"), int(port))
            if not ipaddress.ip_address(own.partition("%")[0]).is_loopback:
                return own
    return LOOPBACK


def _own_address_towards(host: str, port: int) -> str:
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)  # of a datagram: the way is looked up, and nothing is sent
        return str(probe.getsockname()[0])
