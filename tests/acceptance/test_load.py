"""Load tests on a cluster: real Locust against a server that keeps a log of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from statistics import linear_regression
from typing import Any

import pytest

from fleetest.common.states import TaskState
from tests.acceptance.conftest import Cluster, start_cluster
from tests.support.slow_server import SlowServer, slow_server

PYTHON = Path(__file__).parents[2] / ".cache" / "venvs" / "load" / "bin" / "python"
RATE, SECONDS = 40, 6
SUITE = """
    version: 1
    name: load
    defaults: {type: performance, python: %(python)s, requires: {cpu: 0.1}}
    tasks:
      one:
        host: %(one)s
        requests: [{path: /books}]
        stages: [{duration: %(seconds)ss, target: %(rate)s}]
        thresholds: [p95 < 4s, error_rate < 1%%, {GET /books: [p99 < 1s]}]
      four:
        host: ${env.SHOP}
        env: {SHOP: %(four)s}
        requests: [{path: /books, weight: 3}, {path: /authors}]
        stages: [{duration: %(seconds)ss, target: %(rate)s}]
        generators: 4
        thresholds: [requests >= 240]
      broken:
        locustfile: load/shoppers.py
        host: %(broken)s
        model: closed
        stages: [{duration: 5m, target: 2}]
        abort: [error_rate < 50%%]
        abort_window: 2s
    """
SHOPPERS = """
    from locust import HttpUser, constant, events, task

    @events.test_start.add_listener
    def begin(environment, **_):
        print("shoppers begin", flush=True)

    class Shopper(HttpUser):
        wait_time = constant(0.4)

        @task
        def look(self):
            self.client.get("/broken")
    """


@pytest.fixture
def wide_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One worker with six slots."""
    running = start_cluster(tmp_path / "data", "--workers", "1", "--slots", "6")
    yield running
    assert running.fleetest("down").returncode == 0


def percentile(values: list[float], percent: float) -> float:
    """By the same definition as HdrHistogram's."""
    return sorted(values)[max(1, int(percent * len(values) / 100 + 0.5)) - 1]


def record(cluster: Cluster, run_id: str, task: str, directory: Path) -> dict[str, Any]:
    target = directory / task
    done = cluster.fleetest("artifacts", run_id, task, "--download", str(target))
    assert done.returncode == 0, done.stderr
    (path,) = target.rglob("fleetest-load.json")
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def check_against_log(found: dict[str, Any], server: SlowServer) -> None:
    """The generators' figures are those of the server's own log."""
    took = [seconds for _, _, seconds in server.log]
    came = sorted(at for _, at, _ in server.log)
    assert found["all"]["requests"] == len(took) == RATE * SECONDS
    for percent in (50, 95, 99):
        assert found["all"][f"p{percent}_ms"] == pytest.approx(percentile(took, percent) * 1000, rel=0.05), percent
    interval, _ = linear_regression(range(len(came)), came)
    assert found["offered_per_second"] == pytest.approx(RATE, rel=0.02)
    assert 1 / interval == pytest.approx(RATE, rel=0.02)


def test_load_is_the_one_that_was_asked_for_and_figures_are_those_of_the_server(wide_cluster, project, tmp_path):
    if not PYTHON.exists():
        assert "FLEETEST_TEST_ALL" not in os.environ, "run tests/tools/make_venvs.sh"
        pytest.skip("run tests/tools/make_venvs.sh")
    with slow_server() as one, slow_server() as four, slow_server() as broken:
        addresses = {"one": one.url, "four": four.url, "broken": broken.url}
        values = {"python": PYTHON, "rate": RATE, "seconds": SECONDS, **addresses}
        root = project({"fleetest.yaml": SUITE % values, "load/shoppers.py": SHOPPERS})

        run = wide_cluster.ended(wide_cluster.submit(cwd=root))

    tasks = {task.task_id: task for task in run.tasks}
    results = wide_cluster.results(run.run_id)
    shown = wide_cluster.fleetest("show", run.run_id).stdout
    check_against_log(record(wide_cluster, run.run_id, "one", tmp_path), one)
    check_against_log(record(wide_cluster, run.run_id, "four", tmp_path), four)
    assert {name: task.state for name, task in tasks.items()} == {
        "one": TaskState.FAILED,
        "four": TaskState.PASSED,
        "broken": TaskState.FAILED,
    }, {name: task.reason for name, task in tasks.items()}
    assert results["thresholds::p95 < 4s"].outcome.value == "passed"
    assert results["thresholds::GET /books: p99 < 1s"].message.startswith("it was 2")
    assert results["abort::error_rate < 50%"].message.startswith(
        "all generators were stopped: error_rate < 50%: it was"
    )
    assert "GET /authors" in shown
    assert "shoppers begin" in wide_cluster.fleetest("logs", run.run_id, "broken").stdout
    assert [row.request for row in tasks["broken"].load] == ["GET /broken", ""]
