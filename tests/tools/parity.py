"""
Compares what plain pytest says of a suite with what resident sessions say of it, case by case.

    python tests/tools/parity.py --python VENV/bin/python --sessions 2 DIRECTORY -- PYTEST_ARGUMENTS

The cases are dealt to the sessions round robin, in shards of a few, as the master would. Prints the differences and
ends with 1 when there is one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetest.common.states import Verdict
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.executors.base_environment import base_environment, with_interpreter
from fleetest.worker.runners.pytest import PytestRunner
from tests.tools.local_worker import DirectoryBlobs, RecordingReporter, assignment, environment, make_spec, run_cases

__all__ = ["Recorded", "differences", "plain", "plain_in_container", "resident"]

SHARD_CASES = 7
CONTAINER_USER = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """
    Args:
        reason: of a skip or an expected failure; empty otherwise.
    """

    outcome: str
    reason: str


def plain(python: Path, directory: Path, arguments: Sequence[str]) -> Mapping[str, Recorded]:
    """What `pytest` says in a copy of `directory`."""
    with tempfile.TemporaryDirectory(prefix="fp") as name:
        copy, file = Path(name) / "src", Path(name) / "cases.json"
        temporary = Path(name) / "tmp"
        temporary.mkdir()
        shutil.copytree(directory, copy, symlinks=True)
        env = with_interpreter(base_environment(os.environ, temporary=temporary), str(python))
        env["PARITY_FILE"] = str(file)
        done = subprocess.run(
            [str(python), "-c", _recording(Path(__file__).parent, python.parent), *arguments],
            cwd=copy, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        return _recorded(file, done, workspace=copy.resolve())


def plain_in_container(
    docker: Sequence[str],
    image: str,
    directory: Path,
    *,
    working_directory: str = "",
    arguments: Sequence[str] = (),
) -> Mapping[str, Recorded]:
    """
    What `pytest` says of a copy of `directory` in a container of `image` that is as tight as a task's.

    Args:
        docker: the command `docker`, with what leads it to an Engine.
        working_directory: where it starts, below the directory.
    """
    with tempfile.TemporaryDirectory(prefix="fp") as name:
        copy, file = Path(name) / "src", Path(name) / "out" / "cases.json"
        file.parent.mkdir()
        shutil.copytree(directory, copy, symlinks=True)
        for path in (copy, *copy.rglob("*"), file.parent):
            os.chown(path, CONTAINER_USER, CONTAINER_USER, follow_symlinks=False)
        mounts = {copy: "/workspace", file.parent: "/out", Path(__file__).parent: "/recorder:ro"}
        done = subprocess.run(
            [
                *docker, "run", "--rm", "--read-only", "--init", "--cap-drop=ALL", "--security-opt=no-new-privileges",
                f"--user={CONTAINER_USER}:{CONTAINER_USER}", "--tmpfs=/tmp:exec", f"--workdir=/workspace/{working_directory}",
                "--env=HOME=/tmp", "--env=PARITY_FILE=/out/cases.json",
                *(f"--volume={host}:{there}" for host, there in mounts.items()),
                image, "python3", "-c", _recording(Path("/recorder"), Path("/usr/bin")), *arguments,
            ],
            stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        return _recorded(file, done, workspace=Path("/workspace"))


def _recording(recorder: Path, scripts: Path) -> str:
    """A program that runs pytest as its command does, with the recorder."""
    return f"import sys; sys.path.append({str(recorder)!r}); sys.path[0] = {str(scripts)!r}; import pytest; sys.exit(pytest.main(['-p', 'parity_recorder', *sys.argv[1:]]))"


def _recorded(file: Path, done: subprocess.CompletedProcess[bytes], *, workspace: Path) -> Mapping[str, Recorded]:
    if not file.exists():
        raise SystemExit(f"plain pytest failed:\n{done.stdout.decode()}{done.stderr.decode()}")
    return {
        id_.replace(str(workspace), "<workspace>"): Recorded(outcome=outcome, reason=reason)
        for id_, (outcome, reason) in json.loads(file.read_text()).items()
    }


async def resident(python: Path, directory: Path, arguments: Sequence[str], *, sessions: int) -> Mapping[str, Recorded]:
    """What `sessions` resident sessions say, each with its share of the cases; one before them has compiled the modules."""
    spec = make_spec(directory, python=str(python), command=tuple(arguments), total_timeout=None)
    with tempfile.TemporaryDirectory(prefix="fp") as name:
        compiled = Path(name)
        planned, found = await _plan(spec, compiled)
        shares = [planned[index::sessions] for index in range(sessions)]
        runs = (_run(spec, slot, share, compiled) for slot, share in enumerate(shares))
        for results in await asyncio.gather(*runs):
            found.update(results)
    return found


async def _plan(spec: TaskSpec, compiled: Path) -> tuple[list[str], dict[str, Recorded]]:
    async with environment(spec, compiled=compiled) as place:
        session = await PytestRunner(DirectoryBlobs(Path("unused"))).open(spec, place)
        try:
            ended, reporter = await run_cases(session, spec, ())
        finally:
            await session.close()
    if reporter.plan is None or ended.verdict is not Verdict.COMPLETED:
        raise SystemExit(f"planning failed: {ended.reason}\n{reporter.text}")
    errors = {error.case_id: Recorded(outcome="error", reason="") for error in reporter.collection_errors}
    return [case.case_id for case in reporter.plan], errors


async def _run(spec: TaskSpec, slot: int, case_ids: Sequence[str], compiled: Path) -> dict[str, Recorded]:
    found: dict[str, Recorded] = {}
    async with environment(spec, slot=slot, compiled=compiled) as place:
        session = await PytestRunner(DirectoryBlobs(Path("unused"))).open(spec, place)
        try:
            shards = [case_ids[start : start + SHARD_CASES] for start in range(0, len(case_ids), SHARD_CASES)]
            waiting = []
            for token, shard in enumerate(shards):
                reporter = RecordingReporter()
                waiting.append((session.submit(assignment(spec, shard, token=token), reporter), reporter))
            session.flush()
            for future, reporter in waiting:
                ended = await future
                if ended.verdict is not Verdict.COMPLETED:
                    sys.stderr.write(f"slot {slot}: {ended.verdict}: {ended.reason}\n")
                for result in reporter.results:
                    reason = result.message if result.outcome.value in {"skipped", "xfailed"} else ""
                    found[result.case_id] = Recorded(outcome=result.outcome.value, reason=reason)
        finally:
            await session.close()
    return found


def differences(expected: Mapping[str, Recorded], found: Mapping[str, Recorded]) -> list[str]:
    """One line for each case that differs."""
    return [
        f"{case_id}: plain {expected.get(case_id, 'nothing')}, resident {found.get(case_id, 'nothing')}"
        for case_id in sorted({*expected, *found})
        if expected.get(case_id) != found.get(case_id)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--sessions", type=int, default=2)
    parser.add_argument("directory", type=Path)
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    python, directory = options.python.absolute(), options.directory.resolve()
    expected = plain(python, directory, options.arguments)
    found = asyncio.run(resident(python, directory, options.arguments, sessions=options.sessions))
    lines = differences(expected, found)
    sys.stdout.write("".join(f"{line}\n" for line in [*lines, f"{len(expected)} cases, {len(lines)} differences"]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
