"""The user's own cluster on this machine: found, or started by the part of Fleetest that knows how."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fleetest.common.cluster_file import ClusterFile, is_locked
from fleetest.common.errors import DependencyUnavailable
from fleetest.common.settings import Secret

__all__ = ["EmbeddedCluster", "running_cluster", "start_cluster"]

_START_TIMEOUT_SECONDS: Final = 90

# What the extra `embedded` brings; each is imported by the cluster that is started.
_NEEDED: Final = ("fleetest.master", "fleetest.worker", "msgspec", "redis", "psutil")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedCluster:
    """Where it serves, and the token that lets a client in."""

    address: str
    token: Secret
    pid: int
    version: str


def running_cluster(data_directory: Path) -> EmbeddedCluster | None:
    """The cluster of a data directory, if one runs there; its master may just be coming back."""
    known = ClusterFile.read(data_directory)
    if known is None or not is_locked(data_directory):
        return None
    return EmbeddedCluster(address=known.address, token=Secret(known.token), pid=known.pid, version=known.version)


def start_cluster(data_directory: Path) -> EmbeddedCluster:
    """
    Start the cluster of a data directory, or find that somebody else just did. It outlives this process.

    Raises:
        DependencyUnavailable: it is not installed, or does not start; its own words say why.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise DependencyUnavailable(
            f"no master is named, and this installation cannot run a cluster of its own ({missing[0]} is missing)",
            hint="Install it with pip install 'fleetest[embedded]', or set FLEETEST_MASTER to a master's address.",
        )
    try:
        started = subprocess.run(
            [sys.executable, "-m", "fleetest.master", "up", "--detach"],
            env={**os.environ, "FLEETEST_DATA_DIR": str(data_directory)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=_START_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DependencyUnavailable(f"the cluster on this machine does not start: {error}", hint=_hint()) from error
    cluster = running_cluster(data_directory)
    if started.returncode != 0 or cluster is None:
        said = started.stderr.strip() or f"`fleetest up` ended with exit code {started.returncode}"
        raise DependencyUnavailable(f"the cluster on this machine does not start:\n{said}", hint=_hint())
    return cluster


def _hint() -> str:
    return "Try `fleetest up` to see it start, or set FLEETEST_MASTER to a master's address."
