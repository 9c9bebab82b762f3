"""The `Engine` port over the Docker SDK; beside `sdk_sockets`, nothing else imports it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors
import docker.tls
import docker.types
import docker.utils
import requests.exceptions
import urllib3.exceptions

from fleetest.common.errors import InvalidRequest, NotFound, WrongState
from fleetest.common.tasks import Network, Resources
from fleetest.common.threads import in_thread
from fleetest.worker.executors.docker.engine import (
    ContainerSpec,
    ContainerState,
    EngineEvent,
    EventKind,
    ExecSpec,
    Image,
    KeptImage,
    Mount,
    MountKind,
    PublishedPort,
    VolumeSpec,
)
from fleetest.worker.executors.docker.engine_errors import engine_error, engine_gone, image_error
from fleetest.worker.executors.docker.sdk_connection import SdkConnection
from fleetest.worker.executors.docker.sdk_sockets import use_closing_connections

__all__ = ["EngineAddress", "SdkEngine"]

_ANSWER_SECONDS: Final = 120
_CONNECT_SECONDS: Final = 30  # where none listens that is known at once; a busy one is waited for
_CONNECTIONS: Final = 64
_CPU_PERIOD: Final = 100_000
_CHUNK_BYTES: Final = 1 << 16
_UNREAD_CHUNKS: Final = 16
_NO_DETACHING: Final = "ctrl-^,ctrl-_,ctrl-^,ctrl-_"  # or else the Engine keeps every Ctrl-P until the next key
_NO_OTHER_NAMES: Final[Mapping[str, Any]] = {
    "dns": ["192.0.2.1"],  # nobody's address (RFC 5737)
    "dns_search": ["."],
    "dns_opt": ["timeout:1"],  # the Engine answers at once for names that there are, and not at all for others
}
"""Where a container finds its neighbours alone: whatever other name it asks for is told to nobody."""
_WITHOUT_THE_MACHINE: Final = {"com.docker.network.bridge.inhibit_ipv4": "true"}
"""The machine has no address in such a network, so that its own servers cannot be reached from there either."""
_GONE: Final = (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAddress:
    """
    Args:
        url: `unix://...` or `tcp://...`.
        certificates: a directory with ca.pem, cert.pem and key.pem; absent means no TLS.
        verify: whether the Engine's certificate must be signed by ca.pem.
    """

    url: str
    certificates: Path | None = None
    verify: bool = False

    def tls(self) -> docker.tls.TLSConfig | None:
        """
        Raises:
            InvalidRequest: a file is missing.
        """
        if self.certificates is None:
            return None
        folder = self.certificates
        try:
            return docker.tls.TLSConfig(
                client_cert=(str(folder / "cert.pem"), str(folder / "key.pem")),
                ca_cert=str(folder / "ca.pem"),
                verify=self.verify,
            )
        except docker.errors.TLSParameterError as error:
            raise InvalidRequest(
                f"DOCKER_CERT_PATH: {folder} lacks ca.pem, cert.pem or key.pem",
                hint="It must hold all three, as `docker --tlsverify` wants them.",
            ) from error


class SdkEngine:
    """
    Fulfils `Engine`; see there. Calls run in threads.

    Registry credentials come from Docker's own config.json (DOCKER_CONFIG), as the SDK reads it.
    """

    def __init__(self, client: docker.APIClient, address: EngineAddress) -> None:
        self.address = address
        self._client = client

    @classmethod
    async def connect(cls, address: EngineAddress) -> SdkEngine:
        """
        Raises:
            DependencyUnavailable: nothing answers there.
            InvalidRequest: the address, or what belongs to it, is wrong.
        """
        return cls(await in_thread(_connect, address), address)

    def close(self) -> None:
        self._client.close()

    async def version(self) -> str:
        with self._errors("tell its version"):
            return str((await in_thread(self._client.version))["Version"])

    async def machine(self) -> Resources:
        with self._errors("tell of its machine"):
            info = await in_thread(self._client.info)
        return Resources(cpu_millis=int(info["NCPU"]) * 1000, memory_bytes=int(info["MemTotal"]))

    async def limits(self, *, without: str) -> Resources:
        with self._errors("list containers"):
            running = await in_thread(self._client.containers)
        held = Resources()
        for container in running:
            if without in (container["Labels"] or {}):
                continue
            with contextlib.suppress(NotFound), self._errors("look at a container"):
                held += _limits(await in_thread(self._client.inspect_container, container["Id"]))
        return held

    async def mounts(self, container_id: str) -> Mapping[Path, Path]:
        with self._errors("look at a container"):
            found = await in_thread(self._client.inspect_container, container_id)
        return {Path(mount["Destination"]): Path(mount["Source"]) for mount in found["Mounts"]}

    # -- images

    async def image(self, image: str) -> Image:
        with self._errors(f"look at the image {image}"):
            return _image(await in_thread(self._client.inspect_image, image))

    async def pull(self, image: str) -> None:
        stopped = threading.Event()
        try:
            # Not waited for when it is cancelled, as it may take minutes and leaves nothing to clear away.
            await asyncio.to_thread(self._pull, image, stopped)
        except asyncio.CancelledError:
            stopped.set()
            raise
        except docker.errors.APIError as error:
            raise image_error(image, error.status_code, str(error.explanation or error)) from error
        except docker.errors.DockerException as error:
            raise image_error(image, None, str(error)) from error
        except _GONE as error:
            raise engine_gone(self.address.url, error) from error

    def _pull(self, image: str, stopped: threading.Event) -> None:
        repository, tag = docker.utils.parse_repository_tag(image)
        for line in self._client.pull(repository, tag=tag or "latest", stream=True, decode=True):
            if "error" in line:
                raise image_error(image, None, str(line["error"]))
            if stopped.is_set():
                return  # the Engine gives up what nobody listens to

    async def commit(self, container_id: str, name: str, labels: Mapping[str, str]) -> Image:
        repository, tag = docker.utils.parse_repository_tag(name)
        with self._errors(f"commit the image {name}"):
            await in_thread(
                self._client.commit, container_id, repository, tag=tag, pause=False, conf={"Labels": dict(labels)}
            )
        return await self.image(name)

    async def kept_images(self, label: str) -> Sequence[KeptImage]:
        with self._errors("list images"):
            return await in_thread(self._kept_images, label)

    def _kept_images(self, label: str) -> list[KeptImage]:
        client: Any = self._client
        kept = []
        for image in client.images(filters={"label": label}):
            for name in image["RepoTags"] or ():
                # Another worker may be removing it.
                with contextlib.suppress(docker.errors.ImageNotFound):
                    kept.append(
                        KeptImage(
                            name=name,
                            size_bytes=int(client.history(image["Id"])[0]["Size"]),
                            last_used=_time(client.inspect_image(image["Id"])["Metadata"]["LastTagTime"]),
                            labels=image["Labels"] or {},
                        )
                    )
        return kept

    async def mark_used(self, image: str) -> None:
        repository, tag = docker.utils.parse_repository_tag(image)
        with self._errors(f"look at the image {image}"):
            await in_thread(self._client.tag, image, repository, tag or "latest")  # it notes when that was

    async def remove_image(self, image: str) -> None:
        with contextlib.suppress(NotFound), self._errors(f"remove the image {image}"):
            await in_thread(self._client.remove_image, image)

    # -- containers

    async def create(self, name: str, spec: ContainerSpec) -> str:
        with self._errors(f"create a container of {spec.image}"):
            return await in_thread(self._create, name, spec)

    def _create(self, name: str, spec: ContainerSpec) -> str:
        client: Any = self._client
        memory_bytes = spec.memory_bytes or None
        inner, names = spec.inner_network, [spec.inner_name] if spec.inner_name else None
        shut_in = bool(inner) and spec.network is Network.NONE
        config = client.create_host_config(
            read_only=not spec.writable_root,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            init=True,
            # A container in none cannot be in another as well.
            network_mode=inner if shut_in else spec.network.value,
            **(_NO_OTHER_NAMES if shut_in else {}),
            port_bindings={each.port: _binding(each) for each in spec.published},
            tmpfs=_tmpfs(spec.tmp_bytes),
            shm_size=spec.tmp_bytes or None,
            mem_limit=memory_bytes,
            memswap_limit=memory_bytes,
            nano_cpus=spec.cpu_millis * 1_000_000 or None,
            pids_limit=spec.pids,
            ulimits=[docker.types.Ulimit(name="core", soft=0, hard=0)],
            restart_policy={"Name": "no"},
            log_config=docker.types.LogConfig(type="none"),
            mounts=[_mount(mount) for mount in spec.mounts],
        )
        created = client.create_container(
            spec.image,
            entrypoint=list(spec.argv),
            command=[],
            name=name,
            user=spec.user,
            working_dir="/",
            environment=dict(spec.env),
            labels=dict(spec.labels),
            healthcheck={"test": ["NONE"]},
            ports=[each.port for each in spec.published],
            host_config=config,
            networking_config=client.create_networking_config({inner: client.create_endpoint_config(aliases=names)})
            if shut_in
            else None,
            use_config_proxy=False,
        )
        container_id = str(created["Id"])
        if inner and not shut_in:
            client.connect_container_to_network(container_id, inner, aliases=names)
        return container_id

    async def start(self, container_id: str) -> None:
        with self._errors("start a container"):
            await in_thread(self._client.start, container_id)

    async def restart(self, container_id: str) -> None:
        with self._errors("start a container anew"):
            await in_thread(self._client.restart, container_id, timeout=0)

    async def state(self, container_id: str) -> ContainerState:
        with self._errors("look at a container"):
            state = (await in_thread(self._client.inspect_container, container_id))["State"]
        return ContainerState(running=bool(state["Running"]), pid=int(state["Pid"]))

    async def remove(self, container: str) -> None:
        with contextlib.suppress(NotFound), self._errors("remove a container"):
            await in_thread(self._client.remove_container, container, force=True, v=True)

    async def containers(self, label: str) -> Sequence[str]:
        with self._errors("list containers"):
            found = await in_thread(self._client.containers, all=True, filters={"label": label})
        return [str(container["Names"][0]).removeprefix("/") for container in found]

    async def published_ports(self, container_id: str) -> Mapping[int, int]:
        with self._errors("look at a container"):
            found = await in_thread(self._client.inspect_container, container_id)
        ports = found["NetworkSettings"]["Ports"] or {}
        return {
            int(port.partition("/")[0]): int(bindings[0]["HostPort"]) for port, bindings in ports.items() if bindings
        }

    # -- networks

    async def create_network(self, name: str, labels: Mapping[str, str]) -> None:
        with contextlib.suppress(WrongState), self._errors(f"create the network {name}"):
            await in_thread(
                self._client.create_network,
                name,
                driver="bridge",
                options=_WITHOUT_THE_MACHINE,
                check_duplicate=True,
                internal=True,
                labels=dict(labels),
            )

    async def remove_network(self, name: str) -> None:
        with contextlib.suppress(NotFound), self._errors(f"remove the network {name}"):
            await in_thread(self._client.remove_network, name)

    async def networks(self, label: str) -> Sequence[str]:
        with self._errors("list networks"):
            found = await in_thread(self._client.networks, filters={"label": label})
        return [str(network["Name"]) for network in found]

    # -- volumes

    async def create_volume(self, spec: VolumeSpec) -> Path:
        with self._errors(f"create the volume {spec.name}"):
            volume = await in_thread(
                self._client.create_volume,
                spec.name,
                driver="local",
                driver_opts=dict(spec.options),
                labels=dict(spec.labels),
            )
        return Path(volume["Mountpoint"])

    async def remove_volume(self, name: str) -> None:
        with contextlib.suppress(NotFound), self._errors(f"remove the volume {name}"):
            await in_thread(self._client.remove_volume, name, force=True)

    async def volumes(self, label: str) -> Sequence[str]:
        with self._errors("list volumes"):
            found = await in_thread(self._client.volumes, filters={"label": label})
        return [str(volume["Name"]) for volume in found["Volumes"] or ()]

    # -- processes

    async def create_exec(self, container_id: str, spec: ExecSpec) -> str:
        with self._errors("start a process"):
            created = await in_thread(
                self._client.exec_create,
                container_id,
                list(spec.argv),
                user=spec.user,
                environment=dict(spec.env),
                stdin=spec.attached,
                tty=spec.terminal,
                detach_keys=_NO_DETACHING,
            )
        return str(created["Id"])

    async def start_exec(
        self, exec_id: str, *, output: Callable[[bytes], None], ended: Callable[[], None]
    ) -> _OutputReader:
        with self._errors("start a process"):
            connection = await in_thread(self._client.exec_start, exec_id, socket=True)
        reader = _OutputReader(connection, output, ended)
        reader.start()
        return reader

    async def start_exec_detached(self, exec_id: str) -> None:
        with self._errors("start a process"):
            await in_thread(self._client.exec_start, exec_id, detach=True)

    async def attach_exec(self, exec_id: str, *, terminal: bool) -> SdkConnection:
        with self._errors("start a process"):
            connection = await in_thread(self._client.exec_start, exec_id, tty=terminal, socket=True)
        return SdkConnection(connection, terminal=terminal)

    async def resize_exec(self, exec_id: str, *, rows: int, columns: int) -> None:
        with self._errors("resize a terminal"):
            await in_thread(self._client.exec_resize, exec_id, height=rows, width=columns)

    async def exec_exit_code(self, exec_id: str) -> int | None:
        with self._errors("look at a process"):
            found = await in_thread(self._client.exec_inspect, exec_id)
        return None if found["Running"] or found["ExitCode"] is None else int(found["ExitCode"])

    async def events(self, label: str) -> _EventReader:
        filters = {"type": "container", "label": label, "event": [kind.value for kind in EventKind]}
        with self._errors("tell its events"):
            stream = await in_thread(self._client.events, decode=True, filters=filters)
        reader = _EventReader(stream)
        reader.start()
        return reader

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except docker.errors.APIError as error:  # is an OSError too
            raise engine_error(error.status_code, str(error.explanation or error), doing=doing) from error
        except docker.errors.DockerException as error:
            raise engine_error(None, str(error), doing=doing) from error
        except _GONE as error:
            raise engine_gone(self.address.url, error) from error


def _connect(address: EngineAddress) -> docker.APIClient:
    use_closing_connections()
    tls = address.tls()
    try:
        probe = docker.APIClient(base_url=address.url, tls=tls or False, timeout=_CONNECT_SECONDS, version="auto")
        version = probe.api_version
        probe.close()
        return docker.APIClient(
            base_url=address.url,
            tls=tls or False,
            timeout=_ANSWER_SECONDS,
            version=version,
            max_pool_size=_CONNECTIONS,
        )
    except (docker.errors.DockerException, *_GONE) as error:
        raise engine_gone(address.url, error) from error
    except ValueError as error:
        raise InvalidRequest(f"DOCKER_HOST: {address.url!r} is no address of a Docker Engine: {error}") from error


def _limits(container: Any) -> Resources:
    config = container["HostConfig"]
    cpu_millis = int(config.get("NanoCpus") or 0) // 1_000_000
    if quota := max(0, int(config.get("CpuQuota") or 0)):
        cpu_millis = quota * 1000 // int(config.get("CpuPeriod") or _CPU_PERIOD)
    return Resources(cpu_millis=cpu_millis, memory_bytes=int(config.get("Memory") or 0))


def _binding(published: PublishedPort) -> tuple[str, int] | tuple[str]:
    return (published.address, published.host_port) if published.host_port else (published.address,)


def _mount(mount: Mount) -> docker.types.Mount:
    is_volume = mount.kind is MountKind.VOLUME
    return docker.types.Mount(
        target=mount.target,
        source=mount.source or None,
        type=mount.kind.value,
        read_only=mount.read_only,
        no_copy=is_volume,
        labels=dict(mount.labels) if is_volume and mount.labels else None,
    )


def _tmpfs(size_bytes: int) -> dict[str, str]:
    return {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={size_bytes}"} if size_bytes else {}  # noqa: S108 - the container's


def _image(said: Any) -> Image:
    config = said["Config"] or {}
    variables = dict(variable.partition("=")[::2] for variable in config.get("Env") or ())
    return Image(
        id=str(said["Id"]),
        search_path=variables.get("PATH", ""),
        labels=config.get("Labels") or {},
        has_volumes=bool(config.get("Volumes")),
    )


def _time(text: str) -> datetime:
    """The Engine's, with nanoseconds, which Python does not read."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))


class _OutputReader(threading.Thread):
    """Reads the frames of a process's output, and hands them to the event loop; see "attach" in the Engine's API."""

    def __init__(self, connection: Any, output: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        super().__init__(name="container-output", daemon=True)
        self._connection = connection
        # What came together with the answer's header lies in this buffer, not in the connection.
        self._buffer = connection._response.raw._fp.fp  # noqa: SLF001 - the SDK offers no other way
        self._loop = asyncio.get_running_loop()
        self._output = output
        self._ended = ended
        self._room = threading.Semaphore(_UNREAD_CHUNKS)
        # Over TLS the connection is the socket itself, else it wraps one.
        self._socket = getattr(connection, "_sock", connection)
        self._socket.settimeout(None)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        try:
            for chunk in self._chunks():
                self._room.acquire()
                self._loop.call_soon_threadsafe(self._take, chunk)
        except (OSError, ValueError, urllib3.exceptions.HTTPError):
            pass  # the Engine went away; that is learnt from its events
        except RuntimeError:
            return  # so did the loop
        finally:
            with contextlib.suppress(Exception):
                self._connection._response.close()  # noqa: SLF001 - as above
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ended)

    def _take(self, chunk: bytes) -> None:
        self._room.release()
        self._output(chunk)

    def _chunks(self) -> Iterator[bytes]:
        while len(header := self._buffer.read(8)) == 8:  # noqa: PLR2004 - as the protocol has it
            (left,) = struct.unpack(">xxxxL", header)
            while left and (chunk := self._buffer.read1(min(left, _CHUNK_BYTES))):
                left -= len(chunk)
                yield chunk


class _EventReader(threading.Thread):
    """Fulfils `EventStream`; one iteration."""

    def __init__(self, stream: Any) -> None:
        super().__init__(name="container-events", daemon=True)
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[EngineEvent | None] = asyncio.Queue()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._stream.close()

    def run(self) -> None:
        try:
            for said in self._stream:
                if event := _event(said):
                    self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except Exception:  # noqa: BLE001, S110 - whatever it was, nothing more will come
            pass
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, None)

    async def __aiter__(self) -> AsyncIterator[EngineEvent]:
        while (event := await self._events.get()) is not None:
            yield event


def _event(said: Any) -> EngineEvent | None:
    try:
        attributes = said["Actor"]["Attributes"]
        return EngineEvent(
            kind=EventKind(said["Action"]),
            container_id=said["Actor"]["ID"],
            exec_id=attributes.get("execID", ""),
            exit_code=int(attributes.get("exitCode", 0)),
        )
    except (KeyError, TypeError, ValueError):
        return None
