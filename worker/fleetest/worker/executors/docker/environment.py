"""What a task sees of a cell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, InvalidRequest, NotFound, WrongState
from fleetest.common.tasks import Service
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.executors.docker.cells import CHANNEL, Cell
from fleetest.worker.executors.docker.container_process import ContainerProcess
from fleetest.worker.executors.docker.container_workspaces import WORKSPACE
from fleetest.worker.executors.docker.foreground import attach
from fleetest.worker.executors.docker.serving import ports_inside
from fleetest.worker.service_address import ANYWHERE, ServiceAddress
from fleetest.worker.tail import Tail

__all__ = ["BASE_VARIABLES", "COMPILED", "PRODUCTS", "DockerEnvironment"]

BASE_VARIABLES: Final = {"HOME": "/tmp/home", "USER": "fleetest", "LOGNAME": "fleetest"}  # noqa: S108 - the container's

PRODUCTS: Final = Path("/opt/fleetest/products")
"""Where a setup image keeps what its setup left in the source tree."""

COMPILED: Final = Path("/fleetest/compiled")
"""Where containers see what their project keeps of compiled modules."""

_NO_SPACE: Final = "No space left on device"


class DockerEnvironment:
    """
    Fulfils `Environment`; see there.

    Args:
        variables: of every process; may hold secrets.
        image: the digest of the task's image, whatever its setup added to that.
        has_products: whether the image keeps something at `PRODUCTS`.
        compiled_directory: see there.
        published_host: under which others reach what it publishes.
        give_back: takes the cell when the environment is closed.
    """

    def __init__(
        self,
        cell: Cell,
        *,
        variables: Mapping[str, str],
        python: str,
        notes: tuple[str, ...] = (),
        where: str = "in a container",
        image: str = "",
        has_products: bool = False,
        compiled_directory: Path | None = None,
        published_host: str = "",
        give_back: Callable[[Cell], Awaitable[None]],
    ) -> None:
        self.source = WORKSPACE
        self.host_source = cell.workspace.host_path
        self.python = python
        self.keeps_processes = False
        self.notes = (*cell.notes, *notes)
        self.where = where
        self.image = image
        self.channel_directory = CHANNEL
        self.host_channel_directory = cell.channel
        self.compiled_directory = compiled_directory
        self._cell = cell
        self._variables = variables
        self._has_products = has_products
        self._published_host = published_host
        self._give_back = give_back

    @property
    def shell(self) -> tuple[str, ...]:
        return "/bin/sh", "-c", "command -v bash >/dev/null && exec bash; exec sh"

    async def start(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, output: Callable[[bytes], None]
    ) -> ContainerProcess:
        return await self._cell.container.run(argv, env={**self._variables, **env}, cwd=cwd, output=output)

    async def run_beside(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, output: Callable[[bytes], None]
    ) -> int:
        try:
            return await self._cell.container.run_beside(argv, env={**self._variables, **env}, cwd=cwd, output=output)
        except (NotFound, WrongState) as error:
            raise DependencyUnavailable(f"the container was lost: {error.message}") from error

    async def service_address(self, service: Service) -> ServiceAddress:
        serving, ports = self._cell.plan.serving, ports_inside(service)
        if serving is None:
            raise InvalidRequest("its master is too old for services in containers")
        published: Mapping[int, int] = {}
        if serving.published:
            published = await self._cell.container.published_ports()
        return ServiceAddress(
            host=serving.name,
            listens=ANYWHERE,
            ports=ports,
            published_host=self._published_host,
            published={name: published[port] for name, port in ports.items() if port in published},
            inside=True,
        )

    async def attach(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> int:
        return await attach(self._cell.container, argv, env={**self._variables, **env}, cwd=cwd)

    def is_apart_from(self, spec: TaskSpec) -> bool:
        """A task of the like waits, as it may get this container."""
        own, limits = self._cell.plan, spec.limits
        return (own.project, own.network, own.run_network, own.cpu_millis, own.memory_bytes) != (
            spec.project,
            spec.network,
            spec.run_network,
            limits.cpu_millis,
            limits.memory_bytes,
        )

    async def refresh(self, spec: TaskSpec) -> None:
        await self._cell.refresh(spec.workspace_digest)
        await self.put_products_back()

    async def put_products_back(self) -> None:
        """
        Bring what the setup left in the source tree there again.

        Raises:
            CapacityExceeded, DependencyUnavailable
        """
        if not self._has_products:
            return
        tail = Tail()
        copy = ["cp", "-a", f"{PRODUCTS}/.", f"{WORKSPACE}/"]
        process = await self.start(copy, env={}, cwd=Path("/"), output=tail.write)
        if await process.wait() != 0:
            full = _NO_SPACE in tail.text()
            raise (CapacityExceeded if full else DependencyUnavailable)(
                f"what setup left in the source tree could not be put back: {tail.text()}"
            )

    async def close(self) -> None:
        await self._give_back(self._cell)
