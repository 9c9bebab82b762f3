"""
A whole deployment on real sockets: two masters on MongoDB and Redis, three workers, one of them in a container, and every
task in a container of the same Engine. What dies in the middle costs no result, none counts twice, and nothing stays.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from fleetest.client.events import AttemptRunning, AttemptStarted, CasesFinished, RunEvent, TaskEnded
from fleetest.common.states import RunState
from tests.acceptance.conftest import clean_environment, until
from tests.support.docker_engine import DockerEngine, open_docker_engine
from tests.support.images import build_image
from tests.support.masters import JOIN_TOKEN, Masters
from tests.support.mongodb_engine import MongodbEngine

pytestmark = pytest.mark.timeout(900)

LAYERS, WIDTH = 6, 50
GRACE = timedelta(seconds=2)
SLOTS = {"FLEETEST_WORKER_SLOTS": "2"}
_SLOTS = 6


@dataclass
class Deployment:
    """What an operator runs; `worker` is the container of the worker that lives in one."""

    engine: DockerEngine
    masters: Masters
    worker: str

    def start_worker(self, name: str) -> None:
        self.masters.start_worker(name, ["a", "b"], FLEETEST_EXECUTORS="docker", **SLOTS, **self.engine.environment)


@pytest.fixture(scope="module")
def deployment(
    mongodb_engine: MongodbEngine, root_tar: Path, build_context: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    directory = tmp_path_factory.mktemp("deployment")
    store = {"FLEETEST_MONGODB_URL": mongodb_engine.url().reveal()}
    with open_docker_engine() as engine, Masters(directory, clean_environment(), store) as masters:
        engine.docker("import", "--change", 'CMD ["/bin/sh"]', str(root_tar), "base")
        worker_image = build_image(engine, build_context, "worker", base="base")
        masters.redis.start()
        masters.start("a")
        masters.start("b")
        masters.until_serving("a", "b")
        running = Deployment(engine, masters, _start_worker_in_container(engine, masters, worker_image))
        running.start_worker("first")
        running.start_worker("second")
        with masters.client("b") as client:
            until(lambda: len(client.workers()) == 3, what="all workers are there")
        yield running
        masters.stop("first")
        masters.stop("second")
        engine.docker("stop", "--time", "30", running.worker)
        assert engine.containers("label=fleetest.worker") == []
        engine.docker("rm", "--volumes", running.worker)
        engine.docker("volume", "rm", "of-the-worker")
        assert engine.volumes() == []
        assert engine.docker("network", "ls", "--quiet", "--filter", "type=custom") == ""
        assert str(directory) not in Path("/proc/self/mountinfo").read_text()


def _start_worker_in_container(engine: DockerEngine, masters: Masters, image: str) -> str:
    environment = {
        "FLEETEST_MASTER": masters.address("b", "a"),
        "FLEETEST_TOKEN": JOIN_TOKEN,
        "FLEETEST_WORKER_ID": "contained",
        **SLOTS,
    }
    return engine.docker(
        *("run", "--detach", "--init", "--restart=always", "--network=host"),
        *(f"--volume={engine.socket}:/var/run/docker.sock", f"--group-add={engine.socket.stat().st_gid}"),
        *("--volume=of-the-worker:/var/lib/fleetest", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:ro"),
        *(f"--env={name}={value}" for name, value in environment.items()),
        image,
    )


def _priority(column: int) -> int:
    return column * 7 % WIDTH * 2


def _needs(layer: int, column: int) -> list[str]:
    return [f"t{layer - 1}-{column}", f"t{layer - 1}-{(column + 1) % WIDTH}"] if layer else []


def _graph() -> str:
    tasks = [
        f"  t{layer}-{column}: {{run: 'echo {column % 5}', priority: {_priority(column)},"
        f" needs: [{', '.join(_needs(layer, column))}]}}"
        for layer in range(LAYERS)
        for column in range(WIDTH)
    ]
    return "\n".join(["version: 1", "name: graph", "defaults: {image: base, pull: never}", "tasks:", *tasks])


def test_deaths_of_a_worker_a_master_and_the_engine_lose_and_double_no_result(deployment):
    masters, engine = deployment.masters, deployment.engine
    deaths = iter(
        [
            (50, lambda: (masters.kill("first"), deployment.start_worker("first"))),
            (120, lambda: (masters.kill("a"), masters.start("a"))),
            (190, lambda: (engine.kill(), engine.start())),
        ]
    )
    death_at, death = next(deaths)
    events: list[RunEvent] = []

    with masters.client("a", "b") as client:
        run_id = client.submit(_graph()).run_id
        ended = 0
        for commit in client.watch(run_id):
            events += commit.events
            ended += sum(isinstance(event, TaskEnded) for event in commit.events)
            if ended >= death_at:
                death()
                death_at, death = next(deaths, (LAYERS * WIDTH + 1, None))
        run = client.get_run(run_id)

    assert run.state is RunState.PASSED, [(task.task_id, task.reason) for task in run.tasks if task.reason]
    assert run.counts.passed == run.counts.planned == LAYERS * WIDTH
    accepted = Counter(
        result.case_id for event in events if isinstance(event, CasesFinished) for result in event.results
    )
    assert accepted == {f"t{layer}-{column}": 1 for layer in range(LAYERS) for column in range(WIDTH)}
    assert _out_of_order(events) == []


def _out_of_order(events: list[RunEvent]) -> list[str]:
    """
    Tasks that began before what they need had ended; and, of those that wait for nothing, those that began while more
    urgent ones waited. Each master claims for its own workers, so as many as there are slots may overtake one another.
    """
    over: set[str] = set()
    begun: list[str] = []
    wrong = []
    for event in events:
        match event:
            case TaskEnded(task_id=task_id):
                over.add(task_id)
            case AttemptStarted(task_id=task_id):
                layer, column = (int(part) for part in task_id.removeprefix("t").split("-"))
                if not over.issuperset(_needs(layer, column)):
                    wrong.append(task_id)
                if layer == 0 and task_id not in begun:
                    begun.append(task_id)
    urgency = [_priority(int(task_id.partition("-")[2])) for task_id in begun]
    for place, task_id in enumerate(begun):
        if sum(later > urgency[place] for later in urgency[place:]) > _SLOTS:
            wrong.append(task_id)
    return wrong


def test_cancelled_run_has_stopped_its_containers_within_the_grace_period(deployment):
    length = random.randrange(10**6, 10**7)
    task = f"{{image: base, pull: never, run: \"trap '' TERM; sleep {length}\"}}"
    suite = f"{{version: 1, name: stubborn, tasks: {{{', '.join(f't{number}: {task}' for number in range(6))}}}}}"
    running = 0

    with deployment.masters.client("a", "b") as client:
        run_id = client.submit(suite).run_id
        for commit in client.watch(run_id):
            running += sum(isinstance(event, AttemptRunning) for event in commit.events)
            if running == 6:
                break
        until(lambda: len(_sleepers(length)) == 6, what="all sleep")
        client.cancel(run_id, grace=GRACE)
        cancelled_at = time.monotonic()
        until(lambda: not _sleepers(length), seconds=GRACE.total_seconds() + 15, what="none sleeps")
        passed = time.monotonic() - cancelled_at
        [*client.watch(run_id)]
        run = client.get_run(run_id)

    assert run.state is RunState.CANCELLED
    assert passed >= GRACE.total_seconds() / 2, "they ignore SIGTERM, and were given time to heed it"


def _sleepers(length: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cmdline() == ["sleep", str(length)]:
                found.append(process)
    return found
