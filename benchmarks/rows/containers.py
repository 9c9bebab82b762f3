"""What a container costs: a cold task, a command in a warm one, and a resident shard, beside a bare `docker run`."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.core.bench import ROOT, Bench
from benchmarks.core.cluster import serving
from benchmarks.core.commands import run
from benchmarks.core.figures import OURS, Aim, Better, Figure, Side
from benchmarks.core.rounds import Measurement, NotHere, in_turns, side
from fleetest.client import AsyncClient
from fleetest.client.events import AttemptEnded, RunEnded
from fleetest.client.scan import scan_workspace
from fleetest.common.states import RunState
from tests.support.docker_engine import docker_engine_absent, open_docker_engine

__all__ = ["measure"]

_IMAGE: Final = "fleetest-benchmarks:1"
_ROOT_ARCHIVE: Final = ROOT / ".cache" / "roots" / "trixie.tar"
_DOCKER_RUN: Final = "docker run"
_COLD: Final = ("cold task", 1.15, "A run of one task whose command is `true`, until the client knows that it passed.")
_WARM: Final = ("command in a warm container", 0.25, "Each further command of a task, in the container of the first.")
_RESIDENT: Final = ("resident shard", 0.02, "Each further shard of a pytest task, in the session of the first.")

_COMMANDS: Final = """
version: 1
name: containers
tasks:
  command:
    command: ["true"]
    image: {image}
    pull: never
    network: bridge
    shards: {shards}
"""
_CASES: Final = """
version: 1
name: containers
tasks:
  cases:
    args: [tests]
    image: {image}
    pull: never
    env: {{PYTHONPATH: /workspace/site, PYTHONDONTWRITEBYTECODE: "1"}}
    shards: {shards}
"""


async def measure(bench: Bench) -> Sequence[Figure]:
    """Everything in one slot of one worker, in turns."""
    try:
        with _engine():
            return await _measured(bench)
    except NotHere as reason:
        return _figures({}, str(reason))


async def _measured(bench: Bench) -> Sequence[Figure]:
    _require_image()
    commands, cases = bench.size(10, 4), bench.size(100, 10)
    with bench.directory() as directory:
        tree = await asyncio.to_thread(_made, bench, directory / "tree", cases)
        async with serving(directory / "cluster", workers=1) as cluster, cluster.client() as client:
            number = itertools.count()
            workspace = scan_workspace(tree, cache_directory=directory / "digests")
            await client.upload(workspace, tree)

            def run_of(suite: str, shards: int) -> Callable[[], Awaitable[tuple[float, float]]]:
                text = suite.format(image=_IMAGE, shards=shards)
                # A project of its own each time, since containers are never shared between projects.
                return lambda: _timed(client, text, workspace.digest, shards, project=f"project-{next(number)}")

            measured = await in_turns(
                {
                    _DOCKER_RUN: _docker_run(directory),
                    _COLD[0]: _whole(run_of(_COMMANDS, 1)),
                    _WARM[0]: _each(run_of(_COMMANDS, commands), commands),
                    _RESIDENT[0]: _each(run_of(_CASES, cases), cases),
                },
                rounds=bench.rounds,
                say=bench.say,
            )
    return _figures(measured, "")


def _figures(measured: Mapping[str, Sequence[Mapping[str, float]]], missing: str) -> Sequence[Figure]:
    def measured_side(name: str, key: str) -> Side:
        return Side(name=name, missing=missing) if missing else side(name, "ms", {name: measured[key]})

    return [
        Figure(
            name=f"container: {what}",
            unit="ms",
            better=Better.LOWER,
            ours=measured_side(OURS, what),
            peers=(measured_side(_DOCKER_RUN, _DOCKER_RUN),),
            aims=(Aim(limit=limit, against=_DOCKER_RUN),),
            notes=(note,),
        )
        for what, limit, note in (_COLD, _WARM, _RESIDENT)
    ]


@contextmanager
def _engine() -> Iterator[None]:
    """
    The Engine of this machine; where none answers, one that ends with the row. Whatever starts meanwhile is led to it.

    Raises:
        NotHere: none answers, and none can be started.
    """
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "version"], capture_output=True, check=False).returncode == 0:
        yield
        return
    if absent := docker_engine_absent():
        raise NotHere(absent)
    with open_docker_engine() as engine:
        before = {name: os.environ.get(name) for name in engine.environment}
        os.environ.update(engine.environment)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _require_image() -> None:
    """
    The tests' Debian as an image of that Engine.

    Raises:
        NotHere: there is no Debian to import.
    """
    if subprocess.run(["docker", "image", "inspect", _IMAGE], capture_output=True, check=False).returncode == 0:
        return
    if not _ROOT_ARCHIVE.exists():
        raise NotHere("there is no image to run: tests/tools/make_root.sh makes one")
    subprocess.run(["docker", "import", str(_ROOT_ARCHIVE), _IMAGE], check=True, capture_output=True)


def _made(bench: Bench, tree: Path, cases: int) -> Path:
    """A suite, and the pytest that it needs: the image has none."""
    (tree / "tests").mkdir(parents=True)
    (tree / "tests" / "test_many.py").write_text(
        f"import pytest\n\n\n@pytest.mark.parametrize('number', range({cases}))\ndef test_it(number):\n    pass\n"
    )
    packages = [f"--target={tree / 'site'}", "--quiet", "pytest==9.2.0"]
    subprocess.run([ROOT / ".venv" / "bin" / "uv", "pip", "install", "--python", bench.python, *packages], check=True)
    return tree


def _docker_run(directory: Path) -> Measurement:
    async def measure() -> Mapping[str, float]:
        return {"ms": run("docker", "run", "--rm", _IMAGE, "true", cwd=directory).seconds * 1000}

    return measure


def _whole(timed: Callable[[], Awaitable[tuple[float, float]]]) -> Measurement:
    async def measure() -> Mapping[str, float]:
        return {"ms": (await timed())[0] * 1000}

    return measure


def _each(timed: Callable[[], Awaitable[tuple[float, float]]], shards: int) -> Measurement:
    async def measure() -> Mapping[str, float]:
        return {"ms": (await timed())[1] / (shards - 1) * 1000}

    return measure


async def _timed(
    client: AsyncClient, suite: str, workspace_digest: str, shards: int, *, project: str
) -> tuple[float, float]:
    """Seconds of the whole run, and those from the end of its first shard to the end of its last."""
    start = time.perf_counter()
    submission = await client.submit(suite, workspace_digest=workspace_digest, project=project)
    ends: list[float] = []
    async for commit in client.watch(submission.run_id):
        for event in commit.events:
            if isinstance(event, AttemptEnded) and not event.shard_id.endswith("#plan") and not event.will_retry:
                ends.append(time.perf_counter())
            elif isinstance(event, RunEnded) and event.state is not RunState.PASSED:
                raise RuntimeError(f"the run ended as {event.state}: {event.reason}")
    if len(ends) != shards:
        raise RuntimeError(f"{len(ends)} attempts ended, not {shards}")
    return time.perf_counter() - start, ends[-1] - ends[0]
