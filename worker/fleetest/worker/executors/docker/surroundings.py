"""
Where the worker stands beside its Engine: on the same machine, in a container of that Engine, or in one beside it.

In a container of the Engine, what the worker calls `/var/lib/fleetest` is another directory to the Engine, who has to
be told that one. Beside it (a sidecar, over TCP or a socket that both see), the two share a volume at the same path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleetest.common.errors import DependencyUnavailable, NotFound
from fleetest.common.tasks import Resources
from fleetest.worker.executors.docker.engine import Engine

__all__ = ["Surroundings", "find_surroundings", "own_container"]

_HOSTNAME: Final = "/etc/hostname"
_OF_CONTAINER: Final = re.compile(r"/([0-9a-f]{64})/(?:userdata/)?hostname")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """
    Args:
        mounts: directories of the worker's own container, and what the Engine calls them; absent where both agree.
        room: cpu and memory that the worker may hand out, as the Engine tells; absent where the worker sees the
            Engine's machine itself.
    """

    mounts: Mapping[Path, Path] | None = None
    room: Resources | None = None

    def engine_path(self, path: Path) -> Path:
        """
        What the Engine calls a directory of the worker's.

        Raises:
            DependencyUnavailable: it cannot see that directory.
        """
        if self.mounts is None:
            return path
        for above in (path, *path.parents):
            if above in self.mounts:
                return self.mounts[above] / path.relative_to(above)
        raise DependencyUnavailable(
            f"the Docker Engine cannot see {path}, which lies in the worker's own container only",
            hint="Mount a volume there, and keep FLEETEST_DATA_DIR on it.",
        )


async def find_surroundings(
    engine: Engine, directory: Path, *, engine_url: str, tasks_label: str, root: Path = Path("/")
) -> Surroundings:
    """
    Look around, once.

    Args:
        directory: of the worker; the Engine has to see it.
        tasks_label: what containers of tasks carry, of any worker: they come and go, and are not counted.

    Raises:
        DependencyUnavailable: the Engine cannot see the directory.
    """
    container = own_container(root)
    if not container and engine_url.startswith("unix:"):
        return Surroundings()
    mounts = None
    if container:
        with suppress(NotFound):  # another Engine's
            mounts = await engine.mounts(container)
    room = (await engine.machine()) - (await engine.limits(without=tasks_label))
    room = Resources(cpu_millis=max(0, room.cpu_millis), memory_bytes=max(0, room.memory_bytes))
    found = Surroundings(mounts=mounts, room=room)
    found.engine_path(directory)
    return found


def own_container(root: Path = Path("/")) -> str:
    """
    The id of the container that this process runs in, empty when in none: engines mount a container's host name from
    a directory that has the id for a name. Source: proc(5), `/proc/PID/mountinfo`.
    """
    try:
        lines = (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, _, _, source, target, *_ = line.split()
        if target == _HOSTNAME and (match := _OF_CONTAINER.search(source)):
            return match[1]
    return ""
