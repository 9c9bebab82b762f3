"""The port to a container engine, and the values in which it is spoken with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from fleetest.common.tasks import Network, Resources

__all__ = [
    "ContainerSpec",
    "ContainerState",
    "Engine",
    "EngineEvent",
    "EventKind",
    "EventStream",
    "ExecConnection",
    "ExecSpec",
    "ExecStream",
    "Image",
    "KeptImage",
    "Mount",
    "MountKind",
    "PublishedPort",
    "VolumeSpec",
]


class MountKind(StrEnum):
    """Where a mount's files come from."""

    BIND = "bind"
    VOLUME = "volume"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """
    Args:
        source: a directory of the Engine's machine, or a volume's name. A volume that is not there yet is made; one
            without a name goes with its container.
        target: where the container sees it.
        labels: of a volume that is made.
    """

    kind: MountKind
    source: str
    target: str
    read_only: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """
    Args:
        search_path: the PATH of its containers; empty when it sets none.
        has_volumes: whether each of its containers gets volumes that the image declares, which can be written to.
    """

    id: str
    search_path: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    has_volumes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptImage:
    """
    An image that was made of a container.

    Args:
        size_bytes: of what it adds to the image that the container was made of.
        last_used: when it was made, or marked as used.
    """

    name: str
    size_bytes: int
    last_used: datetime
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPort:
    """
    Args:
        port: of the container.
        host_port: of the Engine's machine; 0 means one that is free.
        address: of that machine, on which it listens.
    """

    port: int
    host_port: int
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """
    All that makes a difference between two containers. Every container is hardened; what is here is what varies.

    Args:
        image: its id, or a name.
        argv: the main process, run instead of the image's own entry point and command.
        user: `uid:gid` of the main process.
        cpu_millis: at most, 0 means no limit.
        memory_bytes: at most, swap included; 0 means no limit.
        pids: how many processes and threads at most.
        tmp_bytes: size of the file system in memory that is its `/tmp`, and of its `/dev/shm`; 0 means no such `/tmp`.
        writable_root: whether its image's files can be changed in it, as a setup must.
        env: public variables of every process in it. Never a secret: anybody who sees the container sees them.
        inner_network: one that `create_network` made, which it is in, too; empty means none.
        inner_name: under which it is found there; empty means under none that is known.
        published: ports of it that others reach, if it has a network that leads somewhere.
    """

    image: str
    argv: tuple[str, ...]
    user: str
    network: Network
    pids: int
    tmp_bytes: int
    cpu_millis: int = 0
    memory_bytes: int = 0
    mounts: tuple[Mount, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    writable_root: bool = False
    inner_network: str = ""
    inner_name: str = ""
    published: tuple[PublishedPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSpec:
    """
    Args:
        options: of the local driver; none means a directory that the Engine keeps.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecSpec:
    """
    One more process in a running container.

    Args:
        env: may hold secrets: it is kept only as long as the process runs.
        attached: whether it reads what is written to its connection; otherwise it has no input.
        terminal: whether it has one; then its standard error is its standard output.
    """

    argv: tuple[str, ...]
    user: str
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    attached: bool = False
    terminal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerState:
    """
    Args:
        pid: of its main process, as the Engine's machine counts them; 0 when it does not run.
    """

    running: bool
    pid: int


class EventKind(StrEnum):
    """What the Engine tells of containers, as far as it is listened to."""

    EXEC_ENDED = "exec_die"
    CONTAINER_ENDED = "die"
    OUT_OF_MEMORY = "oom"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEvent:
    """
    Args:
        exec_id: of the process that ended, for `EXEC_ENDED`.
        exit_code: 128 and the signal's number when a signal ended it.
    """

    kind: EventKind
    container_id: str
    exec_id: str = ""
    exit_code: int = 0


class ExecStream(Protocol):
    """The output of a process, while it is read."""

    def close(self) -> None:
        """Read no more of it. Idempotent."""


class ExecConnection(Protocol):
    """
    The streams of an attached process. Blocking: to be read in one thread, and written in another. Every method but the
    last may raise OSError: the Engine went away, or the connection was closed.
    """

    def read(self) -> tuple[int, bytes]:
        """The number of a stream, 1 or 2, and the next that was written to it; nothing at the end of both."""

    def write(self, content: bytes) -> None: ...

    def end_input(self) -> None:
        """Nothing more will be written."""

    def close(self) -> None:
        """Ends a `read` that waits. Idempotent."""


class EventStream(Protocol):
    """What the Engine tells, while it is listened to."""

    def __aiter__(self) -> AsyncIterator[EngineEvent]:
        """Ends when the Engine goes away, or the connection to it."""

    def close(self) -> None:
        """Listen no more. Idempotent."""


class Engine(Protocol):
    """
    A container engine.

    Every method may raise DependencyUnavailable: the Engine does not answer, or cannot do what it should; and
    CapacityExceeded: its disk is full. Removing what is gone already is no error.
    """

    async def version(self) -> str: ...

    async def machine(self) -> Resources:
        """The Engine's machine: all cpu and memory that there is; disk is not told."""

    async def limits(self, *, without: str) -> Resources:
        """The cpu and memory that running containers may use together, but for those that carry the label."""

    async def mounts(self, container_id: str) -> Mapping[Path, Path]:
        """
        A container's directories from outside, and where the Engine has each.

        Raises:
            NotFound
        """

    async def image(self, image: str) -> Image:
        """
        Raises:
            NotFound: it is not on the Engine's machine.
        """

    async def pull(self, image: str) -> None:
        """
        Bring an image from its registry.

        Raises:
            InvalidRequest: there is no such image.
            Forbidden: the registry refuses.
        """

    async def commit(self, container_id: str, name: str, labels: Mapping[str, str]) -> Image:
        """Make an image of a container's root. What is mounted in it is not part of that."""

    async def kept_images(self, label: str) -> Sequence[KeptImage]:
        """All that carry the `key`, or `key=value`, as they were made by `commit`."""

    async def mark_used(self, image: str) -> None:
        """
        Raises:
            NotFound
        """

    async def remove_image(self, image: str) -> None:
        """
        Raises:
            WrongState: a container is made of it.
        """

    async def create(self, name: str, spec: ContainerSpec) -> str:
        """Make a container, which does not run yet; answers its id. After an error it may be there all the same."""

    async def start(self, container_id: str) -> None:
        """
        Raises:
            InvalidRequest: the image has nothing to start it with, or a port that it publishes is somebody else's.
            MountFailed: a volume cannot be mounted.
        """

    async def restart(self, container_id: str) -> None:
        """
        End all of its processes at once, and start it anew. What is mounted keeps its files, `/tmp` does not.

        Raises:
            NotFound
        """

    async def state(self, container_id: str) -> ContainerState:
        """
        Raises:
            NotFound
        """

    async def remove(self, container: str) -> None:
        """End a container, by id or name, and remove it."""

    async def containers(self, label: str) -> Sequence[str]:
        """The names of all that carry the `key=value`."""

    async def published_ports(self, container_id: str) -> Mapping[int, int]:
        """
        What a running container publishes: ports of the Engine's machine by its own.

        Raises:
            NotFound
        """

    async def create_network(self, name: str, labels: Mapping[str, str]) -> None:
        """
        Make a network whose members reach one another, by name, and nobody else. One of that name may be there already.

        Raises:
            CapacityExceeded: the Engine has no addresses left for one more.
        """

    async def remove_network(self, name: str) -> None:
        """
        Raises:
            WrongState: a container is in it.
        """

    async def networks(self, label: str) -> Sequence[str]:
        """The names of all that carry the `key=value`."""

    async def create_volume(self, spec: VolumeSpec) -> Path:
        """Answers where the Engine's machine mounts it, while a container uses it."""

    async def remove_volume(self, name: str) -> None:
        """
        Raises:
            WrongState: a container has it.
        """

    async def volumes(self, label: str) -> Sequence[str]:
        """The names of all that carry the `key=value`."""

    async def create_exec(self, container_id: str, spec: ExecSpec) -> str:
        """
        Raises:
            NotFound, WrongState: the container is gone, or does not run.
        """

    async def start_exec(
        self, exec_id: str, *, output: Callable[[bytes], None], ended: Callable[[], None]
    ) -> ExecStream:
        """
        Start the process. `output` gets its standard output and error, interleaved, as they come; `ended` is called
        after the last.

        What it writes waits until `output` has taken it. A process that could not be started may be told of by
        `output` alone.
        """

    async def start_exec_detached(self, exec_id: str) -> None:
        """Start the process; nobody reads what it writes."""

    async def attach_exec(self, exec_id: str, *, terminal: bool) -> ExecConnection:
        """Start the process, and be at its other end; `terminal` as it was created with."""

    async def resize_exec(self, exec_id: str, *, rows: int, columns: int) -> None:
        """Have its terminal so large. Refused while it is being started."""

    async def exec_exit_code(self, exec_id: str) -> int | None:
        """
        `None` while it runs.

        Raises:
            NotFound
        """

    async def events(self, label: str) -> EventStream:
        """What happens to containers that carry the `key=value`, from now on."""
