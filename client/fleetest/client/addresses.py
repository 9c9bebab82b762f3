"""Where masters are: `host:port` or `unix:///path`, several parted by commas."""

from __future__ import annotations

import re
from typing import Final

from fleetest.common.errors import InvalidRequest

__all__ = ["is_local", "parse_addresses"]

_HOST_AND_PORT: Final = re.compile(r"(?P<host>\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9_.-]+):(?P<port>\d{1,5})", re.ASCII)
_HIGHEST_PORT: Final = 65535
_LOOPBACK: Final = re.compile(r"localhost|127\.\d+\.\d+\.\d+|\[::1\]")


def parse_addresses(text: str) -> tuple[str, ...]:
    """
    The addresses in a text, in its order.

    Raises:
        InvalidRequest: there is none, or one of them is not an address.
    """
    addresses = tuple(part for each in text.split(",") if (part := each.strip()))
    if not addresses:
        raise InvalidRequest("no master's address is given", hint="Write host:port, as in 127.0.0.1:50051.")
    for address in addresses:
        _check(address)
    return addresses


def is_local(address: str) -> bool:
    """Whether the address cannot leave this machine, so that a proxy has no business with it."""
    return address.startswith("unix:") or _LOOPBACK.fullmatch(address.rpartition(":")[0]) is not None


def _check(address: str) -> None:
    if address.startswith("unix:///") and len(address) > len("unix:///"):
        return
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None or not 0 < int(match["port"]) <= _HIGHEST_PORT:
        raise InvalidRequest(
            f"{address[:200]!r} is not a master's address",
            hint="Write host:port (127.0.0.1:50051) or unix:///path/to/socket; several parted by commas.",
        )
