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

__all__ = ["find_capabilities", "playwright_directory"]

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_SYSTEMS: Final = {"darwin": "macos", "win32": "windows"}
_BROWSERS: Final = ("chromium", "firefox", "webkit")
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
    playwright: Path | None = None,
) -> Mapping[str, str]:
    """
    `key=value` pairs; a label of the same key wins.

    Keys: `os`, `arch`, `cpu` (whole cores), `memory` and `disk` (in GiB, rounded down), `python` (the worker's own
    version) and `python3.X` for each interpreter on the search path; where there is one, `docker` (the Engine's
    version), `chromium` and `gpu=nvidia`; the first executor as `executor`, each also as `executor.NAME`; browsers
    likewise, Chromium first.

    Args:
        playwright: where Playwright keeps its own browsers.
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
    for browser in _browsers(search_path, playwright):
        found.setdefault("browser", browser)
        found[f"browser.{browser}"] = "true"
    if "browser.chromium" in found:
        found["chromium"] = "true"
    if shutil.which("nvidia-smi", path=search_path) or any(devices.glob("nvidia[0-9]*")):
        found["gpu"] = "nvidia"
    return found | dict(labels)


def playwright_directory(environment: Mapping[str, str]) -> Path:
    """Where Playwright keeps its own browsers (https://playwright.dev/docs/browsers#managing-browser-binaries)."""
    if chosen := environment.get("PLAYWRIGHT_BROWSERS_PATH"):
        return Path(chosen)
    default = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    cache = environment.get("XDG_CACHE_HOME") or os.path.expanduser(default)  # noqa: PTH111 - a user may have no home
    return Path(cache, "ms-playwright")


def _browsers(search_path: str, playwright: Path | None) -> list[str]:
    """Playwright's own, of any revision (`firefox-1500`, `chromium_headless_shell-1200`), and the system's Chromium."""
    own = list(playwright.glob("*-*")) if playwright is not None else []
    found = {name for name in _BROWSERS if any(folder.name.startswith((f"{name}-", f"{name}_")) for folder in own)}
    if any(shutil.which(name, path=search_path) for name in _CHROMIUM):
        found.add("chromium")
    return sorted(found)


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
