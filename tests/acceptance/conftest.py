"""A real cluster, as a user starts it, and the `fleetest` command to use it with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

FLEETEST = str(Path(sys.executable).with_name("fleetest"))


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., None]:
    return until


def until(condition: Callable[[], object], *, seconds: float = 60, what: str = "") -> None:
    """Look again and again until it is so; what is waited for is in other processes, which send us no event."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"did not happen within {seconds} s: {what or condition}"
        time.sleep(0.02)


@dataclass
class Cluster:
    """A running embedded cluster."""

    directory: Path
    environment: Mapping[str, str]

    def fleetest(
        self, *arguments: str, cwd: Path | None = None, timeout: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [FLEETEST, *arguments],
            cwd=cwd,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def start(self, *arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [FLEETEST, *arguments],
            cwd=cwd,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def json(self, *arguments: str) -> dict | list:
        done = self.fleetest(*arguments, "--output", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def children(self, *words: str) -> list[psutil.Process]:
        """The supervisor's own children whose command lines hold all these words."""
        supervisor = psutil.Process(json.loads((self.directory / "cluster.json").read_text())["pid"])
        return [
            child for child in supervisor.children() if all(word in " ".join(child.cmdline()) for word in words)
        ]


def start_cluster(directory: Path, *options: str, **environment: str) -> Cluster:
    """The caller stops it with `fleetest down`."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("FLEETEST_", "COV_", "GITHUB_"))}
    cluster = Cluster(
        directory, {**clean, "FLEETEST_DATA_DIR": str(directory), "NO_COLOR": "1", "CI": "", **environment}
    )
    done = cluster.fleetest("up", "--detach", *options)
    assert done.returncode == 0, done.stderr
    return cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers with a slot each, shared by the tests of a module."""
    running = start_cluster(tmp_path_factory.mktemp("cluster"), "--workers", "2", "--slots", "1")
    yield running
    assert running.fleetest("down").returncode == 0


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Like `cluster`, for one test alone, with short leases."""
    running = start_cluster(tmp_path / "data", "--workers", "2", "--slots", "1", FLEETEST_LEASE_TTL_SECONDS="3")
    yield running
    assert running.fleetest("down").returncode == 0


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """Makes a directory of files: `project({"test_a.py": "..."})`."""

    def make(files: Mapping[str, str]) -> Path:
        root = tmp_path / "project"
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(content))
        return root

    return make
