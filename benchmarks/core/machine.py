"""What a figure depends on besides the code: the machine, and the versions of everything that took part."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from benchmarks.core.bench import ROOT, Bench

__all__ = ["load", "machine", "versions"]

_OURS: Final = ("grpcio", "protobuf", "redis", "msgspec", "psutil")
_THEIRS: Final = (
    "celery",
    "distributed",
    "ray",
    "dramatiq",
    "pytest",
    "pytest-xdist",
)
_PROGRAMS: Final = (("redis-server", "--version"), ("git", "--version"), ("docker", "--version"))


def machine() -> Mapping[str, str]:
    """The machine in words."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory_bytes / (1 << 30):.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
    }


def load() -> float:
    """How many processes have wanted a core over the last minute; ours among them."""
    return os.getloadavg()[0]


def versions(bench: Bench) -> Mapping[str, str]:
    """Of Fleetest, the peers, and what both stand on."""
    found = {"Python": platform.python_version(), "Fleetest": _commit() or version("fleetest")}
    for package in _OURS:
        found[package] = version(package)
    found |= _installed(bench.python)
    for program in _PROGRAMS:
        if said := _said(*program):
            found[program[0]] = said
    return found


def _installed(python: Path) -> Mapping[str, str]:
    script = "import sys, importlib.metadata as m; [print(m.version(name)) for name in sys.argv[1:]]"
    said = _said(str(python), "-c", script, *_THEIRS)
    return dict(zip(_THEIRS, said.splitlines(), strict=False))


def _commit() -> str:
    try:
        number = version("fleetest")
    except PackageNotFoundError:
        number = "?"
    commit = _said("git", "-C", str(ROOT), "rev-parse", "--short=10", "HEAD")
    return f"{number} at {commit}" if commit else number


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.strip()
    except OSError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
