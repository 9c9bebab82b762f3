"""A Docker Engine of the tests' own: a child process beside whatever Engine the machine has, of which nothing stays."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.support.docker_network import Bridge

__all__ = ["DockerEngine", "docker_engine_absent", "open_docker_engine"]

_PREFIX = "fleetest-engine-"
_START_SECONDS = 60
_PROGRAMS = ("docker", "dockerd", "containerd", "iptables", "ip")
_SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


_CONTAINERD = """
version = 2
root = "{directory}/containerd-root"
state = "{directory}/containerd-state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{directory}/containerd.sock"
"""


def docker_engine_absent() -> str:
    """Why no Engine can be started here; empty when one can."""
    missing = [program for program in _PROGRAMS if shutil.which(program, path=_SYSTEM_PATH) is None]
    if missing:
        return f"needs {', '.join(missing)}: run tests/tools/install_debian.sh"
    return "" if os.geteuid() == 0 else "only root can start a Docker Engine: run the tests as root"


@contextmanager
def open_docker_engine() -> Iterator[DockerEngine]:
    """A running Engine. Containers, images, volumes, network and directories are gone at the end, however it ends."""
    _remove_orphans()
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
    with (directory / "owner.new").open("w") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)  # the kernel lets it go when this process is gone
        (directory / "owner.new").rename(directory / "owner")
        engine = DockerEngine(directory)
        try:
            engine.start()
            yield engine
        finally:
            engine.remove()


class DockerEngine:
    """
    `dockerd` with a `containerd` of its own, on a socket, roots and a bridge of its own.

    Args:
        directory: everything that it keeps. Its path is short, since sockets lie in it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "docker.sock"
        self.url = f"unix://{self.socket}"
        self.environment = {"DOCKER_HOST": self.url}
        """What leads a Docker client to it."""
        self._containerd: subprocess.Popen[bytes] | None = None
        self._dockerd: subprocess.Popen[bytes] | None = None
        self._options: tuple[str, ...] = ()
        self._bridge = Bridge.make(f"fte-{directory.name.removeprefix(_PREFIX)}")
        (directory / "daemon.json").write_text("{}")  # not the machine's own
        (directory / "containerd.toml").write_text(_CONTAINERD.format(directory=directory))

    @property
    def gateway(self) -> str:
        """The address under which its containers reach this machine."""
        return self._bridge.gateway

    @property
    def bridge(self) -> str:
        """The name of its network's interface on this machine."""
        return self._bridge.name

    @property
    def pid(self) -> int:
        """Of `dockerd`."""
        assert self._dockerd is not None, "it was never started"
        return self._dockerd.pid

    def start(self, *options: str) -> None:
        """
        Start it, also after `kill` or `stop`, on what it had. Returns when it answers.

        Args:
            options: more options of `dockerd`; when there are none, those of the last start.
        """
        self._options = options or self._options
        if self._containerd is None or self._containerd.poll() is not None:
            self._containerd = self._spawn("containerd", "--config", f"{self.directory}/containerd.toml")
        # One that was killed leaves its own behind.
        (self.directory / "dockerd.pid").unlink(missing_ok=True)
        self._dockerd = self._spawn(
            "dockerd",
            f"--config-file={self.directory}/daemon.json",
            f"--containerd={self.directory}/containerd.sock",
            f"--data-root={self.directory}/data",
            f"--exec-root={self.directory}/exec",
            f"--pidfile={self.directory}/dockerd.pid",
            f"--bridge={self._bridge.name}",
            f"--mtu={self._bridge.mtu}",
            f"--default-address-pool=base={self._bridge.pool},size=28",
            "--iptables=false",
            "--log-level=warn",
            f"--host={self.url}",
            *self._options,
        )
        limit = time.monotonic() + _START_SECONDS
        while self.run("version").returncode != 0:
            log = (self.directory / "dockerd.log").read_text(errors="replace")[-4000:]
            assert self._dockerd.poll() is None, f"dockerd ended at once:\n{log}"
            assert time.monotonic() < limit, f"dockerd does not answer:\n{log}"
            time.sleep(0.05)  # another process rings no bell

    def kill(self) -> None:
        """As when the machine's memory is full: `dockerd` is gone at once, its containers run on until it is back."""
        if self._dockerd is not None:
            self._dockerd.kill()
            self._dockerd.wait()

    def stop(self) -> None:
        """In order: containers are stopped first."""
        if self._dockerd is not None:
            self._dockerd.terminate()
            self._dockerd.wait(timeout=60)

    def docker(self, *arguments: str, timeout: float = 120) -> str:
        """What the `docker` command with these arguments prints, which must succeed."""
        done = self.run(*arguments, timeout=timeout)
        assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def inspect(self, thing: str) -> dict[str, Any]:
        """What the Engine knows of a container, an image, a volume."""
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", thing))
        return found[0]

    def containers(self, *filters: str) -> list[str]:
        """Ids of all containers, also of stopped ones, that pass filters such as `label=fleetest.worker=a`."""
        chosen = [word for each in filters for word in ("--filter", each)]
        return self.docker("ps", "--all", "--quiet", "--no-trunc", *chosen).split()

    def volumes(self) -> list[str]:
        return self.docker("volume", "ls", "--quiet").split()

    def networks(self) -> list[str]:
        """All that are not the Engine's own."""
        return self.docker("network", "ls", "--filter=type=custom", "--format={{.Name}}").split()

    def remove(self) -> None:
        """Take away all that it made."""
        try:
            if self._dockerd is not None:
                if self._dockerd.poll() is not None:
                    self.start()  # it alone can clear away what its former life left running
                if running := self.containers():
                    self.docker("rm", "--force", *running)
                self.stop()
        finally:
            for process in (self._dockerd, self._containerd):
                if process is not None:
                    process.kill()
                    process.wait()
            _unmount_below(self.directory)
            self._bridge.remove()
            shutil.rmtree(self.directory)

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{program}.log").open("ab") as log:
            return subprocess.Popen(
                [program, *arguments],
                env={**os.environ, "PATH": _SYSTEM_PATH},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for pytest, which stops it in order
            )

    def run(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        client = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
        return subprocess.run(
            ["docker", *arguments],
            env={**client, **self.environment, "DOCKER_CONFIG": str(self.directory / "client")},
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )


def _remove_orphans() -> None:
    """What is left of Engines whose tests were killed and could not clear away."""
    for owner in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/owner"):
        with suppress(FileNotFoundError, BlockingIOError), owner.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for process in psutil.process_iter():
                with suppress(psutil.NoSuchProcess):
                    if process.name() in {"dockerd", "containerd"} and str(owner.parent) in " ".join(process.cmdline()):
                        process.kill()
                        process.wait()
            orphan = DockerEngine(owner.parent)
            orphan.start()
            orphan.remove()


def _unmount_below(directory: Path) -> None:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed(points):
        if Path(point).is_relative_to(directory):
            subprocess.run(["umount", point], check=True)
