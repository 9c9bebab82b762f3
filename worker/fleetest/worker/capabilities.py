"""What a worker offers, found by looking."""

from __future__ import annotations

import http.client
import os
import platform
import re
import shutil
import socket
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from fleetest.common.tasks import Resources

__all__ = ["find_capabilities"]

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_SYSTEMS: Final = {"darwin": "macos", "win32": "windows"}
_CHROMIUM: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_PYTHON: Final = re.compile(r"python(3\.\d+)")
_DOCKER_TIMEOUT_SECONDS: Final = 2


def find_capabilities(
    capacity: Resources,
    *,
    executors: Iterable[str],
    labels: Mapping[str, str],
    search_path: str,
    docker_socket: Path = Path("/var/run/docker.sock"),
    devices: Path = Path("/dev"),
) -> Mapping[str, str]:
    """
    `key=value` pairs; a label of the same key wins.

    Keys: `os`, `arch`, `cpu` (whole cores), `memory` and `disk` (in GiB, rounded down), `python` (the worker's own
    version) and `python3.X` for each interpreter on the search path; where there is one, `docker` (the engine's
    version), `chromium`, `browser=chromium` and `gpu=nvidia`; the first executor as `executor`, each also as
    `executor.NAME`.
    """
    found = {
        "os": _SYSTEMS.get(sys.platform, sys.platform),
        "arch": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "cpu": str(capacity.cpu_millis // 1000),
        "memory": f"{capacity.memory_bytes >> 30}GiB",
        "disk": f"{capacity.disk_bytes >> 30}GiB",
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        **{f"python{version}": "true" for version in _pythons(search_path)},
    }
    for name in executors:
        found.setdefault("executor", name)
        found[f"executor.{name}"] = "true"
    if version := _docker_version(docker_socket):
        found["docker"] = version
    if any(shutil.which(name, path=search_path) for name in _CHROMIUM):
        found |= {"browser": "chromium", "chromium": "true"}
    if shutil.which("nvidia-smi", path=search_path) or any(devices.glob("nvidia[0-9]*")):
        found["gpu"] = "nvidia"
    return found | dict(labels)


def _pythons(search_path: str) -> set[str]:
    versions = set()
    for folder in filter(None, search_path.split(os.pathsep)):
        try:
            files = list(Path(folder).iterdir())
        except OSError:
            continue
        for file in files:
            match = _PYTHON.fullmatch(file.name)
            if match and os.access(file, os.X_OK):
                versions.add(match[1])
    return versions


def _docker_version(docker_socket: Path) -> str | None:
    """The engine's version when it answers; a socket file alone may be a dead engine's."""
    connection = _UnixConnection(docker_socket)
    try:
        connection.request("GET", "/_ping")
        answer = connection.getresponse()
        return (answer.getheader("Api-Version") or "true") if answer.status == http.client.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_DOCKER_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_DOCKER_TIMEOUT_SECONDS)
        self.sock.connect(str(self._path))
