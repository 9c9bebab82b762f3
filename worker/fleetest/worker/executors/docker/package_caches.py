"""What package managers keep from one setup to the next: a volume for each project, never part of an image."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from fleetest.common.digest import digest_of
from fleetest.common.errors import FleetestError
from fleetest.worker.executors.docker.engine import Engine, Mount, MountKind
from fleetest.worker.executors.docker.environment import DockerEnvironment
from fleetest.worker.ownership import Owner

__all__ = ["CACHE_LABEL", "PackageCaches"]

CACHE_LABEL: Final = "fleetest.cache"

_CACHE: Final = "/fleetest/cache"
_TEMPORARY: Final = "/tmp"  # noqa: S108 - the container's


class PackageCaches:
    """
    The volumes of package managers' caches. They hold what was downloaded, not what it was downloaded with.

    Args:
        owner: who writes to them.
        max_bytes: of one; checked after each setup. One that is larger then begins anew.
    """

    def __init__(self, engine: Engine, *, owner: Owner, max_bytes: int) -> None:
        self._engine = engine
        self._owner = owner
        self._max_bytes = max_bytes
        self._oversized: set[str] = set()

    @property
    def variables(self) -> Mapping[str, str]:
        """What leads pip, uv and npm there."""
        return {
            "PIP_CACHE_DIR": f"{_CACHE}/pip",
            "UV_CACHE_DIR": f"{_CACHE}/uv",
            "UV_LINK_MODE": "copy",  # across file systems it can only copy, and says so
            "npm_config_cache": f"{_CACHE}/npm",
        }

    def name(self, project: str) -> str:
        """Of a project's volume."""
        return f"fleetest-cache-{digest_of(f'{self._owner.text} {project}'.encode())[:32]}"

    def mounts(self, project: str) -> tuple[Mount, ...]:
        """For the container of a setup: the cache, and a /tmp on disk that goes with the container."""
        name = self.name(project)
        return (
            Mount(kind=MountKind.VOLUME, source=name, target=_CACHE, labels={CACHE_LABEL: name}),
            Mount(kind=MountKind.VOLUME, source="", target=_TEMPORARY),
        )

    async def measure(self, environment: DockerEnvironment, project: str) -> None:
        """See in the container of a setup whether the cache has become too large."""
        fits = f'[ "$(du -s -k {_CACHE} | (read -r size _; echo "$size"))" -le {self._max_bytes >> 10} ]'
        du = await environment.start(["/bin/sh", "-c", fits], env={}, cwd=Path("/"), output=lambda _: None)
        if await du.wait() != 0:
            self._oversized.add(project)

    async def bound(self, project: str) -> None:
        """Remove the cache if it is too large, unless another setup uses it: that one sees to it then."""
        if project in self._oversized:
            self._oversized.discard(project)
            with contextlib.suppress(FleetestError):
                await self._engine.remove_volume(self.name(project))

    async def keep(self, names: Collection[str]) -> None:
        """Remove the others, but for those that a container has."""
        for name in await self._engine.volumes(CACHE_LABEL):
            if name not in names:
                with contextlib.suppress(FleetestError):
                    await self._engine.remove_volume(name)
