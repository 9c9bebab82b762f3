"""A real cluster, as a user starts it, and the `fleetest` command to use it with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

from fleetest.client import Client, Run
from fleetest.common.cluster_file import ClusterFile
from fleetest.common.results import CaseResult
from fleetest.common.states import RunState
from tests.support.masters import CLIENT_TOKEN, Masters

PLAIN = Path(__file__).parents[2] / ".cache" / "venvs" / "plain"
"""An environment with pytest alone: plugins that nobody uses were more than half of a session's start."""

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

    @property
    def known(self) -> ClusterFile:
        known = ClusterFile.read(self.directory)
        assert known is not None, "the cluster has ended"
        return known

    @property
    def address(self) -> str:
        return self.known.address

    @property
    def supervisor(self) -> int:
        """Its process id."""
        return self.known.pid

    @property
    def join_token(self) -> str:
        """What the supervisor gave its workers to show."""
        return self.children("fleetest.worker")[0].environ()["FLEETEST_TOKEN"]

    def client(self, **options: str) -> Client:
        """The caller closes it."""
        return Client(self.known.address, token=self.known.token, **options)

    def submit(self, *arguments: str, cwd: Path, **environment: str) -> str:
        """Hand a run in; answers its id at once."""
        done = self.fleetest("run", "--detach", *arguments, cwd=cwd, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def ended(self, run_id: str) -> Run:
        """The run, once it has ended."""
        with self.client() as client:
            for _ in client.watch(run_id):
                pass
            return client.get_run(run_id)

    def results(self, run_id: str) -> dict[str, CaseResult]:
        """The last result of every case, by its id."""
        with self.client() as client:
            return {case.result.case_id: case.result for case in client.cases(run_id)}

    def children(self, *words: str) -> list[psutil.Process]:
        """The supervisor's own children whose command lines hold all these words."""
        return [
            child
            for child in psutil.Process(self.supervisor).children()
            if all(word in " ".join(child.cmdline()) for word in words)
        ]


def clean_environment() -> dict[str, str]:
    """
    Ours, without what leads to another cluster, to the machine's Engine, or makes the command behave as in CI; and
    without measuring of coverage, of which the other tests have enough, and a cluster twice the work.
    """
    ours = ("FLEETEST_", "DOCKER_", "COVERAGE_", "COV_", "GITHUB_", "GITLAB_", "CI")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return kept | {"FLEETEST_EXECUTORS": "process", "VIRTUAL_ENV": str(PLAIN)}


def start_cluster(directory: Path, *options: str, **environment: str) -> Cluster:
    """The caller stops it with `fleetest down`."""
    cluster = Cluster(
        directory, {**clean_environment(), "FLEETEST_DATA_DIR": str(directory), "NO_COLOR": "1", **environment}
    )
    done = cluster.fleetest("up", "--detach", *options)
    assert done.returncode == 0, done.stderr
    return cluster


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers with a slot each. Tests ask for `cluster`, which is this one with nothing left to do."""
    running = start_cluster(tmp_path_factory.mktemp("cluster"), "--workers", "2", "--slots", "1")
    yield running
    assert running.fleetest("down").returncode == 0


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """The shared cluster; what a test leaves running does not keep the next one waiting."""
    yield shared_cluster
    leave_nothing_running(shared_cluster)


def leave_nothing_running(cluster: Cluster) -> None:
    with cluster.client() as client:
        for run in client.list_runs(state=RunState.RUNNING):
            client.cancel(run.run_id, grace=timedelta())
            cluster.ended(run.run_id)


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Like `cluster`, for one test alone, with short leases."""
    running = start_cluster(tmp_path / "data", "--workers", "2", "--slots", "1", FLEETEST_LEASE_TTL_SECONDS="3")
    yield running
    assert running.fleetest("down").returncode == 0


def both_serving(masters: Masters) -> Masters:
    """Masters `a` and `b` serve; no worker yet."""
    masters.redis.start()
    masters.start("a")
    masters.start("b")
    masters.until_serving("a", "b")
    return masters


@pytest.fixture(scope="session")
def shared_masters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Masters]:
    """Tests ask for `apart`, and give it workers of their own."""
    with Masters(tmp_path_factory.mktemp("masters"), clean_environment()) as masters:
        yield both_serving(masters)


@pytest.fixture(params=["sqlite", "mongodb"])
def own_masters(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Masters]:
    """Two masters for one test alone, which may kill them; on either store."""
    store = {}
    if request.param == "mongodb":
        store["FLEETEST_MONGODB_URL"] = request.getfixturevalue("mongodb_url").reveal()
    with Masters(tmp_path / "masters", clean_environment(), store) as masters:
        yield both_serving(masters)


@pytest.fixture
def apart(shared_masters: Masters) -> Iterator[Cluster]:
    """A cluster whose clients are served by one master, and whose workers, when there are any, by another."""
    directory = shared_masters.directory
    ClusterFile(address=shared_masters.address("a"), token=CLIENT_TOKEN, pid=0, version="", started_at="").write(
        directory
    )
    cluster = Cluster(directory, shared_masters.client_environment("a"))
    yield cluster
    leave_nothing_running(cluster)


@pytest.fixture
def start_worker(shared_masters: Masters) -> Iterator[Callable[..., None]]:
    """Starts workers at the other master, one slot each: `start_worker("name", "--label", "colour=blue")`."""
    started: list[str] = []

    def start(name: str, *options: str, before: Sequence[str] = ()) -> None:
        started.append(name)
        shared_masters.start_worker(name, ["b"], *options, before=before)

    yield start
    for name in started:
        shared_masters.stop(name)


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """Makes a directory of files: `project({"test_a.py": "..."})`."""

    return lambda files: write_files(tmp_path / "project", files)


def write_files(root: Path, files: Mapping[str, str]) -> Path:
    """Texts by their paths below `root`; each may be indented as a whole. Answers `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(content).lstrip("\n"))
    return root
