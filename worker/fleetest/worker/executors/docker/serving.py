"""What a container must have to be a service."""

from __future__ import annotations

from typing import Final

from fleetest.common.serving import host_name
from fleetest.common.tasks import Service
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.executors.docker.cells import Serving
from fleetest.worker.executors.docker.engine import PublishedPort
from fleetest.worker.service_address import listen_for

__all__ = ["ports_inside", "serving_of"]

_FIRST_PORT: Final = 8000


def ports_inside(service: Service) -> dict[str, int]:
    """Its ports by name: in a container nobody else has any, so that it is known which ones are free."""
    fixed = set(service.all_ports.values())
    free = (port for port in range(_FIRST_PORT, _FIRST_PORT + 2 * len(service.all_ports)) if port not in fixed)
    return {name: port or next(free) for name, port in service.all_ports.items()}


def serving_of(spec: TaskSpec, published_host: str) -> Serving | None:
    """Of a task that is none, or for which nobody waits in a network: nothing."""
    if spec.service is None or not spec.run_network:
        return None
    ports, address = ports_inside(spec.service), listen_for(published_host)
    return Serving(
        name=host_name(spec.task_id),
        published=tuple(
            PublishedPort(port=ports[name], host_port=host_port, address=address)
            for name, host_port in spec.service.publish.items()
            if name in ports
        ),
    )
