"""
The networks in which containers of one run find its services.

There is one for each run that has services in containers of this worker, as long as a container is in it. It leads
nowhere: neither to the world, nor to the Engine's machine, nor to containers of other runs. Who may reach the world as
well is in the Engine's own network besides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from fleetest.common.errors import FleetestError, WrongState
from fleetest.worker.executors.docker.engine import Engine

__all__ = ["RunNetworks"]

_log = structlog.stdlib.get_logger()


@dataclass(slots=True)
class _Network:
    """
    Attributes:
        members: names of the containers that are in it, or about to be.
        seats: of each service that was in it: whoever holds the lock has its name.
        seated: names of services, by the container that is the service.
    """

    members: set[str] = field(default_factory=set)
    seats: dict[str, asyncio.Lock] = field(default_factory=dict)
    seated: dict[str, str] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    made: bool = False


class RunNetworks:
    """
    Makes networks, and removes each when nobody is left in it.

    Args:
        prefix: of their names.
        labels: of all that is made; see `cells`.
    """

    def __init__(self, engine: Engine, *, prefix: str, labels: Mapping[str, str]) -> None:
        self._engine = engine
        self._prefix = prefix
        self._labels = labels
        self._networks: dict[str, _Network] = {}

    def name(self, run_id: str) -> str:
        """Of the run's network on the Engine."""
        return f"{self._prefix}-{run_id}"

    def has_services(self, run_id: str) -> bool:
        """Whether some container is a service of the run."""
        network = self._networks.get(run_id)
        return network is not None and bool(network.seated)

    async def enter(self, run_id: str, member: str, *, service: str = "") -> None:
        """
        See that the network is there, until the member leaves.

        Args:
            member: a container's name.
            service: what the others find it by. A name means one container: one that is going is waited for.

        Raises:
            CapacityExceeded, DependencyUnavailable
        """
        network = self._networks.setdefault(run_id, _Network())
        network.members.add(member)  # first, so that nobody takes it away
        if service:
            await network.seats.setdefault(service, asyncio.Lock()).acquire()
            network.seated[member] = service
        async with network.lock:
            if not network.made:
                await self._engine.create_network(self.name(run_id), self._labels)
                network.made = True

    async def leave(self, run_id: str, member: str) -> None:
        """A container is gone, or will never come. Idempotent, and never raises."""
        network = self._networks.get(run_id)
        if network is None or member not in network.members:
            return
        network.members.discard(member)
        if service := network.seated.pop(member, ""):
            network.seats[service].release()
        async with network.lock:
            if network.made and not network.members:
                await self._remove(self.name(run_id))
                network.made = False
        if not network.members:
            self._networks.pop(run_id, None)

    async def remove_orphans(self, label: str) -> None:
        """Remove every network with that label that no container here is in."""
        for name in await self._engine.networks(label):
            if name not in {self.name(run_id) for run_id in self._networks}:
                await self._remove(name)

    async def _remove(self, name: str) -> None:
        try:
            await self._engine.remove_network(name)
        except WrongState as error:  # somebody put a container of his own into it
            _log.warning("network_in_use", network=name, reason=error.message)
        except FleetestError as error:  # an orphan now
            _log.warning("network_not_removed", network=name, reason=error.message)
