"""Where a service listens, and where others find it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from fleetest.common.errors import InvalidRequest
from fleetest.common.serving import address_variables, published_prefix
from fleetest.common.tasks import Service, variable_prefix

__all__ = ["ANYWHERE", "LOOPBACK", "ServiceAddress", "address_among_processes", "listen_for", "refusal_of"]

LOOPBACK: Final = "127.0.0.1"
ANYWHERE: Final = "0.0.0.0"  # noqa: S104 - a service listens there that is to be reached from elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAddress:
    """
    Args:
        host: under which its neighbours find it.
        listens: the address on which it has to listen for that.
        ports: by name; the first one's is empty.
        published_host: under which everybody finds what it publishes.
        published: those ports, by name.
        inside: whether only those in its own network reach it at `host`, so not this agent.
    """

    host: str
    listens: str
    ports: Mapping[str, int]
    published_host: str = ""
    published: Mapping[str, int] = field(default_factory=dict)
    inside: bool = False

    def variables(self, service: str) -> dict[str, str]:
        """What whoever needs the service is told."""
        return {
            **address_variables(variable_prefix(service), self.host, self.ports),
            **address_variables(published_prefix(service), self.published_host, self.published),
        }

    @property
    def own_variables(self) -> dict[str, str]:
        """What tells the service itself where to listen."""
        ports = {f"{name.upper()}_PORT" if name else "PORT": str(port) for name, port in self.ports.items()}
        return {"HOST": self.listens, **ports}


def listen_for(published_host: str) -> str:
    """The address on which a port listens that is published under a host's name."""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(published_host).is_loopback:
            return published_host
    return ANYWHERE


async def address_among_processes(service: Service, published_host: Callable[[], str]) -> ServiceAddress:
    """
    Of a service that shares the ports of its machine with everybody.

    Raises:
        InvalidRequest: one of its ports is somebody else's, or it is to be published under another number than it has.
    """
    ports: dict[str, int] = {}
    for name, port in service.all_ports.items():
        wanted = service.publish.get(name, 0)
        if wanted and port and wanted != port:
            raise InvalidRequest(
                f"it listens on port {port} and is to be published as {wanted}: a process is reached where it listens"
            )
        ports[name] = port or wanted
        if ports[name] and not await refusal_of(LOOPBACK, ports[name]):
            raise InvalidRequest(f"port {ports[name]} of this worker is somebody else's; `port: auto` takes a free one")
    free = iter(_free_ports(sum(not port for port in ports.values())))
    ports = {name: port or next(free) for name, port in ports.items()}
    if not service.publish:
        return ServiceAddress(host=LOOPBACK, listens=LOOPBACK, ports=ports)
    host = await asyncio.to_thread(published_host)
    return ServiceAddress(
        host=LOOPBACK,
        listens=listen_for(host),
        ports=ports,
        published_host=host,
        published={name: ports[name] for name in service.publish},
    )


async def refusal_of(host: str, port: int) -> str:
    """Why nobody takes a connection there; empty when somebody does."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return f"port {port} takes no connection: {error.strerror or error}"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""


def _free_ports(number: int) -> list[int]:
    """Ports that nobody listens on just now; no two are the same."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]
