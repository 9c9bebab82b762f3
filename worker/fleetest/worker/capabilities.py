"""What a worker offers, found by looking."""

from __future__ import annotations

import os
import platform
import re
import shutil
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


def find_capabilities(
    capacity: Resources,
    *,
    executors: Iterable[str],
    labels: Mapping[str, str],
    search_path: str,
    engine_version: str = "",
    devices: Path = Path("/dev"),
) -> Mapping[str, str]:
    """
    `key=value` pairs; a label of the same key wins.

    Keys: `os`, `arch`, `cpu` (whole cores), `memory` and `disk` (in GiB, rounded down), `python` (the worker's own
    version) and `python3.X` for each interpreter on the search path; where there is one, `docker` (the Engine's
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
    if engine_version:
        found["docker"] = engine_version
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
