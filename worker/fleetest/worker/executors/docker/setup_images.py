"""
Images that hold what a task's `setup` made, so that it runs once for all that need the same.

An image is named by all that decides what setup makes; whoever finds it, in this worker or in another on the same
Engine, uses it. It comes to be by one step at the very end (a commit), so a setup that is broken off, by a crash too,
leaves none.
"""

from __future__ import annotations

import contextlib
import os
import secrets as random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from fleetest.common.digest import digest_of
from fleetest.common.errors import DependencyUnavailable, FleetestError, InvalidRequest, NotFound, WrongState
from fleetest.common.tasks import Network
from fleetest.common.threads import in_thread
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.executors.docker.cells import DIRECTORY_LABEL, PROJECT_LABEL, WORKER_LABEL, Cell, CellPlan, Cells
from fleetest.worker.executors.docker.engine import Engine, Image
from fleetest.worker.executors.docker.environment import BASE_VARIABLES, PRODUCTS, DockerEnvironment
from fleetest.worker.executors.docker.package_caches import CACHE_LABEL, PackageCaches
from fleetest.worker.executors.file_lock import FileLocks
from fleetest.worker.executors.setup import run_line, run_setup
from fleetest.worker.executors.setup_products import SetupProducts
from fleetest.worker.ownership import Owner

__all__ = ["SETUP_LABEL", "VENV", "SetupBounds", "SetupImages", "activated", "has_products", "has_venv"]

SETUP_LABEL: Final = "fleetest.setup"

VENV: Final = Path("/opt/fleetest/venv")
"""Where a setup image has its virtual environment, if it has one."""

_REPOSITORY: Final = "fleetest-setup"
_VENV_LABEL: Final = "fleetest.setup.venv"
_PRODUCTS_LABEL: Final = "fleetest.setup.products"
_YES: Final = "true"
_DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # what the Engine sets by itself
_KEY_DIGITS: Final = 32

# For root, who owns these but has no capability: so it cannot give them away, only open them to everybody.
_MAKE_ROOM: Final = "umask 0; mkdir -p /opt/fleetest /tmp && chmod 1777 /opt/fleetest /tmp "
# What the image's own virtual environment has stays usable too, should its interpreter be in one.
_LINK_OUTER_VENV: Final = """\
import sys, sysconfig
if sys.prefix != sys.base_prefix:
    inner = sysconfig.get_path("purelib", vars={"base": sys.argv[1]})
    with open(inner + "/_image.pth", "w") as file:
        file.write(sysconfig.get_path("purelib") + "\\n")
"""

_log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupBounds:
    """
    Args:
        images: how many setups are kept at most.
        image_bytes: what all of them may add to the images that they were made of.
        cache_bytes: what one project's packages may take.
    """

    images: int = 20
    image_bytes: int = 20 << 30
    cache_bytes: int = 4 << 30


def has_venv(image: Image) -> bool:
    """Whether the setup that made the image had a virtual environment."""
    return image.labels.get(_VENV_LABEL) == _YES


def has_products(image: Image) -> bool:
    """Whether the setup that made the image left something in the source tree."""
    return image.labels.get(_PRODUCTS_LABEL) == _YES


def activated(image: Image) -> Mapping[str, str]:
    """The variables that activating the setup's virtual environment sets."""
    return {"VIRTUAL_ENV": str(VENV), "PATH": f"{VENV / 'bin'}:{image.search_path or _DEFAULT_PATH}"}


class SetupImages:
    """
    Makes setup images, and keeps those that were used last.

    Args:
        cells: where setups run.
        locks: a directory, best shared by the workers of one machine: each setup is made by one of them at a time.
        owner: the user that setups run as.
    """

    def __init__(self, engine: Engine, cells: Cells, *, locks: Path, owner: Owner, bounds: SetupBounds) -> None:
        self._engine = engine
        self._cells = cells
        self._locks = FileLocks(locks)
        self._owner = owner
        self._bounds = bounds
        self._caches = PackageCaches(engine, owner=owner, max_bytes=bounds.cache_bytes)

    def name(self, spec: TaskSpec, base: Image, *, python: str) -> str:
        """What the image for a task is called."""
        decisive = (spec.project, base.id, spec.setup_digest, spec.working_directory, python, self._owner.text)
        key = digest_of("\0".join((*decisive, *spec.setup)).encode())[:_KEY_DIGITS]
        return f"{_REPOSITORY}:{key}"

    async def ensure(
        self, spec: TaskSpec, base: Image, *, python: str, secrets: Mapping[str, str], output: Callable[[bytes], None]
    ) -> tuple[Image, bool]:
        """
        The image for a task, and whether it was there already.

        Raises:
            SetupFailed: a line of the setup failed.
            NotFound, CapacityExceeded, DependencyUnavailable
        """
        name = self.name(spec, base, python=python)
        async with self._locks.hold(name):
            with contextlib.suppress(NotFound):
                await self._engine.mark_used(name)
                return await self._engine.image(name), True
            made = await self._make(name, spec, base, python=python, secrets=secrets, output=output)
        await self._remove_longest_unused(keep=name)
        return made, False

    # -- making one

    async def _make(
        self,
        name: str,
        spec: TaskSpec,
        base: Image,
        *,
        python: str,
        secrets: Mapping[str, str],
        output: Callable[[bytes], None],
    ) -> Image:
        plan = CellPlan(
            project=spec.project,
            image=base.id,
            network=Network.BRIDGE,
            cpu_millis=spec.limits.cpu_millis,
            memory_bytes=spec.limits.memory_bytes,
            mounts=self._caches.mounts(spec.project),
            writable_root=True,
        )
        async with self._cell(plan, base, spec) as cell:
            environment = DockerEnvironment(
                cell,
                variables={
                    **BASE_VARIABLES,
                    **activated(base),
                    **self._caches.variables,
                    **spec.env,
                    **secrets,
                },
                python=python,
                give_back=_keep,
            )
            venv = await _make_venv(environment, required=bool(spec.python), output=output)
            if not venv:
                environment = DockerEnvironment(
                    cell,
                    variables={**BASE_VARIABLES, **self._caches.variables, **spec.env, **secrets},
                    python=python,
                    give_back=_keep,
                )
            kept = cell.channel.parent / "products"  # out of the container's reach
            await run_setup(environment, spec, products=SetupProducts(kept), output=output)
            products = await self._take_products(environment, kept)
            await self._caches.measure(environment, spec.project)
            await cell.container.clear()
            labels = {
                SETUP_LABEL: name.partition(":")[2],
                PROJECT_LABEL: spec.project,
                CACHE_LABEL: self._caches.name(spec.project),
                DIRECTORY_LABEL: "",  # it is nobody's own
                WORKER_LABEL: "",
                _VENV_LABEL: _YES if venv else "",
                _PRODUCTS_LABEL: _YES if products else "",
            }
            return await self._engine.commit(cell.container.id, name, labels)

    @asynccontextmanager
    async def _cell(self, plan: CellPlan, base: Image, spec: TaskSpec) -> AsyncIterator[Cell]:
        cell = await self._cells.open(plan, base, spec.workspace_digest)
        try:
            places = " ".join(mount.target for mount in plan.mounts)
            if not await cell.container.do_as_root(["/bin/sh", "-c", _MAKE_ROOM + places]):
                raise DependencyUnavailable("the container for setup could not be made ready")
            yield cell
        finally:
            with contextlib.suppress(FleetestError):
                await cell.close()
            await self._caches.bound(plan.project)

    async def _take_products(self, environment: DockerEnvironment, kept: Path) -> bool:
        """Put what setup left in the source tree into the image; answers whether there is something."""
        if not await in_thread(kept.is_dir):
            return False
        shown = environment.host_channel_directory / f"products-{random.token_hex(8)}"
        await in_thread(self._show, kept, shown)
        copy = f"mkdir {PRODUCTS} && cp -a {environment.channel_directory / shown.name}/. {PRODUCTS}/"
        await run_line(environment, ["/bin/sh", "-c", copy], copy, cwd=Path("/"), output=_nowhere)
        return True

    def _show(self, kept: Path, shown: Path) -> None:
        for _, _, names, descriptor in os.fwalk(kept):
            self._owner.own(descriptor)
            for name in names:
                self._owner.own_link(name, directory=descriptor)
        kept.rename(shown)

    # -- keeping few

    async def _remove_longest_unused(self, *, keep: str) -> None:
        """Whatever a container is made of stays: the Engine sees to that."""
        try:
            kept = sorted(await self._engine.kept_images(SETUP_LABEL), key=lambda image: image.last_used)
            count, total_bytes = len(kept), sum(image.size_bytes for image in kept)
            for image in kept:
                if count <= self._bounds.images and total_bytes <= self._bounds.image_bytes:
                    break
                if image.name == keep:
                    continue
                with contextlib.suppress(WrongState):
                    await self._engine.remove_image(image.name)
                    count, total_bytes = count - 1, total_bytes - image.size_bytes
            await self._caches.keep({image.labels.get(CACHE_LABEL, "") for image in kept})
        except FleetestError as error:
            _log.warning("setup_images_not_bounded", reason=error.message)


async def _make_venv(environment: DockerEnvironment, *, required: bool, output: Callable[[bytes], None]) -> bool:
    """Make the virtual environment, if the image has a Python that can, or if the task names one."""
    python, root = environment.python, Path("/")
    if not required:
        try:
            probe = await environment.start([python, "-c", "import venv, ensurepip"], env={}, cwd=root, output=_nowhere)
        except InvalidRequest:
            return False
        if await probe.wait() != 0:
            return False
    make = [python, "-m", "venv", "--system-site-packages", str(VENV)]
    await run_line(environment, make, " ".join(make), cwd=root, output=output)
    link = [python, "-c", _LINK_OUTER_VENV, str(VENV)]
    await run_line(environment, link, f"{python} ...", cwd=root, output=output)
    return True


def _nowhere(_: bytes) -> None:
    """Nobody reads it."""


async def _keep(_: Cell) -> None:
    """Who made the cell closes it."""
