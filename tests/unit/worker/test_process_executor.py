import asyncio
import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleetest.common.errors import CapacityExceeded, InvalidRequest, NotFound
from fleetest.common.tasks import Resources
from fleetest.common.version_control import VersionControl
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.errors import SetupFailed
from fleetest.worker.executors.child import ChildProcess
from fleetest.worker.executors.places import Places
from fleetest.worker.executors.process import COPIED_NOTE, ProcessExecutor
from fleetest.worker.executors.scratch import Scratch, remove_abandoned
from tests.tools.local_worker import CopiedWorkspaces, make_spec, suite

NOTHING = timedelta()


class Output:
    def __init__(self) -> None:
        self.content = b""
        self.changed = asyncio.Event()

    def __call__(self, content: Any) -> None:
        self.content += content
        self.changed.set()

    async def until(self, text: bytes) -> None:
        async with asyncio.timeout(30):
            while text not in self.content:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def workspace(tmp_path: Path) -> Any:
    return suite(tmp_path / "w", module="value = 1")


@pytest.fixture
def executor(tmp_path: Path) -> Any:
    return ProcessExecutor(tmp_path / "root", CopiedWorkspaces(), python=sys.executable)


@pytest.fixture
def executor_without_pip(tmp_path: Path) -> ProcessExecutor:
    """Its virtual environments come without pip, which takes most of the time that they take."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$2" = venv ] && set -- "$@" --without-pip\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return ProcessExecutor(tmp_path / "root", CopiedWorkspaces(), python=str(python))


@contextlib.asynccontextmanager
async def prepared(executor: ProcessExecutor, spec: TaskSpec, **secrets: Any) -> Any:
    environment = await executor.prepare(spec, slot=0, secrets=secrets, output=lambda _: None)
    try:
        yield environment
    finally:
        await environment.close()


async def run(environment: Any, script: Any, output: Output | None = None, **env: Any) -> Any:
    process = await environment.start(
        [sys.executable, "-c", script], env=env, cwd=environment.source, output=output or Output()
    )
    return process, await process.wait()


def is_alive(pid: int) -> Any:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_process_runs_in_its_workspace_with_its_own_temporary_directory(
    executor: ProcessExecutor, workspace: Path
) -> None:
    output = Output()

    async with prepared(executor, make_spec(workspace, env={"A": "1"}), SECRET="s") as environment:
        script = "import os, sys, tempfile, module; print(tempfile.gettempdir(), os.environ['A'], os.environ['SECRET'], os.environ['B'], sys.stdin.read()); sys.exit(7)"
        process, exit_code = await run(environment, script, output, B="2")
        temporary = Path(output.content.split()[0].decode())
        existed = temporary.is_dir()

    assert exit_code == 7
    assert output.content.split()[1:] == [b"1", b"s", b"2"]
    assert existed
    assert not temporary.exists()
    assert process.usage().cpu_time > NOTHING
    assert process.sample().memory_bytes == 0


async def test_output_that_nobody_needed_yet_is_there_at_the_end(executor: ProcessExecutor, workspace: Path) -> None:
    output = Output()
    script = (
        "import os, time\nprint('first', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('last')"
    )

    async with prepared(executor, make_spec(workspace)) as environment:
        process = await environment.start([sys.executable, "-c", script], env={}, cwd=environment.source, output=output)
        await output.until(b"first")
        process.read_later(timedelta(hours=1))
        (environment.host_source / "go").touch()
        await process.wait()

    assert output.content.endswith(b"last\n")


async def test_memory_that_was_used_between_two_looks_counts(executor: ProcessExecutor, workspace: Path) -> None:
    async with prepared(executor, make_spec(workspace)) as environment:
        gone, _ = await run(environment, "bytearray(150 << 20)")
        output = Output()
        script = "import sys, time; bytearray(150 << 20); print('small again', flush=True); time.sleep(60)"
        alive = await environment.start([sys.executable, "-c", script], env={}, cwd=environment.source, output=output)
        await output.until(b"small again")

        peaks = gone.usage().peak_memory_bytes, alive.usage().peak_memory_bytes

    assert min(peaks) > 150 << 20
    assert max(peaks) < 250 << 20


async def test_variables_of_the_agents_own_tools_are_kept_from_tests(tmp_path: Path, workspace: Path) -> None:
    inherited = {
        "PATH": os.environ["PATH"],
        "HOME": "/h",
        "FLEETEST_TOKEN": "t",
        "PYTEST_ADDOPTS": "-x",
        "COV_CORE": "1",
    }
    executor = ProcessExecutor(tmp_path / "root", CopiedWorkspaces(), python=sys.executable, pass_environment=inherited)
    output = Output()

    async with prepared(executor, make_spec(workspace)) as environment:
        await run(environment, "import os; print(sorted(os.environ))", output)

    names = set(eval(output.content))
    assert names >= {"HOME", "PATH", "TERM", "TMPDIR", "VIRTUAL_ENV"}
    assert not names & {"FLEETEST_TOKEN", "PYTEST_ADDOPTS", "COV_CORE"}


@pytest.mark.parametrize(
    "script",
    [
        "import os, subprocess; subprocess.Popen(['sleep', '100'], start_new_session=True)",
        "import os, subprocess; subprocess.Popen(['sleep', '100'], start_new_session=True); os.kill(os.getppid(), 9); import time; time.sleep(50)",
        "import os, subprocess; subprocess.Popen(['sleep', '100'], start_new_session=True); os.killpg(0, 9)",
    ],
    ids=["daemon", "parent-killed", "group-killed"],
)
async def test_nothing_is_left_running(executor: ProcessExecutor, workspace: Path, script: Any) -> None:
    output = Output()
    script = script.replace("subprocess.Popen(['sleep'", "child = subprocess.Popen(['sleep'").replace(
        "start_new_session=True)", "start_new_session=True); print(child.pid, flush=True)", 1
    )

    async with prepared(executor, make_spec(workspace)) as environment:
        process, exit_code = await run(environment, script, output)

        assert exit_code in {0, -signal.SIGKILL}
        assert not is_alive(int(output.content))
        assert not is_alive(process.pid)
        assert ("through its parent" in process.end_reason) == ("getppid" in script)


async def test_stop_asks_first_and_kills_when_the_grace_has_passed(executor: ProcessExecutor, workspace: Path) -> None:
    polite = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(5)); print('up', flush=True); time.sleep(100)"
    )
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(100)"

    async with prepared(executor, make_spec(workspace)) as environment:
        codes = []
        for script, grace in ((polite, 30), (deaf, 0.2), (polite, 0)):
            output = Output()
            process = await environment.start(
                [sys.executable, "-c", script], env={}, cwd=environment.source, output=output
            )
            await output.until(b"up")
            await process.stop(timedelta(seconds=grace))
            process.interrupt(signal.SIGINT)
            codes.append(await process.wait())

    assert codes == [5, -signal.SIGKILL, -signal.SIGKILL]


async def test_interrupt_reaches_the_main_process(executor: ProcessExecutor, workspace: Path) -> None:
    output = Output()
    script = (
        "import time\ntry: print('up', flush=True); time.sleep(100)\nexcept KeyboardInterrupt: print('interrupted')"
    )

    async with prepared(executor, make_spec(workspace)) as environment:
        process = await environment.start([sys.executable, "-c", script], env={}, cwd=environment.source, output=output)
        await output.until(b"up")
        process.interrupt(signal.SIGINT)
        await process.wait()

    assert output.content.endswith(b"interrupted\n")


async def test_closing_the_environment_ends_what_still_runs(executor: ProcessExecutor, workspace: Path) -> None:
    async with prepared(executor, make_spec(workspace)) as environment:
        process = await environment.start(["sleep", "100"], env={}, cwd=environment.source, output=Output())

    assert await process.wait() == -signal.SIGKILL
    assert not is_alive(process.pid)


AGENT = """
import asyncio, sys
from pathlib import Path
from fleetest.worker.executors.process import COPIED_NOTE, ProcessExecutor
from tests.tools.local_worker import CopiedWorkspaces, make_spec

async def main():
    executor = ProcessExecutor(Path(sys.argv[1]), CopiedWorkspaces(), python=sys.executable)
    environment = await executor.prepare(make_spec(Path(sys.argv[2])), slot=0, secrets={}, output=lambda _: None)
    script = "import os, subprocess, time; child = subprocess.Popen(['sleep', '100'], start_new_session=True); print(os.getpid(), os.getppid(), child.pid, flush=True); time.sleep(100)"
    process = await environment.start([sys.executable, "-c", script], env={}, cwd=environment.source, output=lambda content: print(content.decode(), end="", flush=True))
    await process.wait()

asyncio.run(main())
"""


async def test_everything_ends_with_a_killed_agent(tmp_path: Path, workspace: Path) -> None:
    agent = subprocess.Popen(  # noqa: ASYNC220 - killed below without a word to any loop
        [sys.executable, "-c", AGENT, str(tmp_path / "root"), str(workspace)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    try:
        assert agent.stdout is not None
        pids = [int(word) for word in (await asyncio.to_thread(agent.stdout.readline)).split()]
    finally:
        agent.kill()
        agent.communicate()

    deadline = time.monotonic() + 20
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert len(pids) == 3
    assert not any(map(is_alive, pids))


def test_temporary_files_of_dead_agents_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / f"ft{dead.pid}-x" / "tmp").mkdir(parents=True)
    (tmp_path / f"ft{dead.pid}-x" / "tmp").chmod(0)
    mine = Scratch.create()

    remove_abandoned()

    assert [path for path in tmp_path.iterdir() if path.name.startswith("ft")] == [mine.root]


async def test_unknown_command_and_interpreter_are_named(executor: ProcessExecutor, workspace: Path) -> None:
    async with prepared(executor, make_spec(workspace)) as environment:
        with pytest.raises(InvalidRequest, match="command not found: no-such-command"):
            await environment.start(["no-such-command"], env={}, cwd=environment.source, output=Output())
        (environment.source / "script").write_text("not a program")
        with pytest.raises(InvalidRequest, match=r"command not found: \./script"):
            await environment.start(["./script"], env={}, cwd=environment.source, output=Output())
        (environment.source / "script").chmod(0o755)
        process = await environment.start(["./script"], env={}, cwd=environment.source, output=Output())
        assert await process.wait() == 126
    with pytest.raises(InvalidRequest, match=r"no interpreter python9\.9"):
        await executor.prepare(make_spec(workspace, python="python9.9"), slot=0, secrets={}, output=Output())


async def test_setup_runs_once_in_a_venv_and_its_products_outlive_a_refresh(
    executor_without_pip: ProcessExecutor, workspace: Path
) -> None:
    executor = executor_without_pip
    spec = make_spec(
        workspace,
        setup=("echo built $SETUPTOOLS_SCM_PRETEND_VERSION > built.txt", 'python -c "import sys; print(sys.prefix)"'),
        setup_digest="d",
        version_control=VersionControl(described_version="1.2.dev3"),
    )
    first, second = Output(), Output()

    environment = await executor.prepare(spec, slot=0, secrets={}, output=first)
    (environment.source / "left.txt").touch()
    await environment.close()
    environment = await executor.prepare(spec, slot=0, secrets={}, output=second)
    await environment.refresh(spec)
    files = sorted(path.name for path in environment.source.iterdir())
    content = (environment.source / "built.txt").read_text()
    _, exit_code = await run(environment, "import os, sys; sys.exit(sys.prefix == sys.base_prefix)")
    await environment.close()

    venv = str(Path(environment.python).parent.parent)
    assert venv.encode() in first.content
    assert second.content == b""
    assert "setup reused" in environment.notes
    assert files == ["built.txt", "module.py"]
    assert content == "built 1.2.dev3\n"
    assert exit_code == 0


def counting_setup(counter: Path) -> Any:
    """A setup that says each time that it ran, and leaves paths in the environment, in the tree, and in a link."""
    return (
        f"echo ran >> {counter}",
        """python -c "import pathlib, sys; [pathlib.Path(place, 'place.pth').write_text(str(pathlib.Path.cwd())) for place in sys.path if place.endswith('site-packages')]" """,
        "pwd > built.txt; ln -s $PWD/built.txt link; head -c 20 /dev/zero | cat - built.txt > binary",
    )


@pytest.mark.parametrize("slot", [1, 11])
async def test_second_slot_copies_the_setup_of_the_first(
    executor_without_pip: ProcessExecutor, workspace: Path, tmp_path: Path, slot: int
) -> None:
    counter = tmp_path / "counter"
    spec = make_spec(workspace, setup=counting_setup(counter)[: 3 if slot < 10 else 2], setup_digest="d")
    output = Output()

    first, second = await asyncio.gather(
        executor_without_pip.prepare(spec, slot=0, secrets={}, output=Output()),
        executor_without_pip.prepare(spec, slot=slot, secrets={}, output=Output()),
    )
    for environment in (first, second):
        process = await environment.start(
            [environment.python, "-c", "import sys; print(sys.prefix, sys.path[-1])"],
            env={},
            cwd=environment.source,
            output=output,
        )
        await process.wait()
        await environment.close()

    assert counter.read_text() == "ran\n"
    assert {COPIED_NOTE in first.notes, COPIED_NOTE in second.notes} == {True, False}
    assert output.content.decode().split() == [
        word for each in (first, second) for word in (str(each.source.parent / "venv"), str(each.source))
    ]
    if slot < 10:
        for environment in (first, second):
            place = str(environment.source)
            assert (environment.source / "built.txt").read_text() == place + "\n"
            assert (environment.source / "binary").read_bytes().endswith(b"\0" + place.encode() + b"\n")
            assert (environment.source / "link").readlink() == environment.source / "built.txt"


@pytest.mark.parametrize("change", ["changed", "removed", "binary path"])
async def test_setup_that_cannot_be_copied_exactly_runs_again(
    executor_without_pip: ProcessExecutor, workspace: Path, tmp_path: Path, change: str
) -> None:
    counter = tmp_path / "counter"
    spec = make_spec(workspace, setup=counting_setup(counter), setup_digest="d")
    first = await executor_without_pip.prepare(spec, slot=0, secrets={}, output=Output())
    venv = Path(first.python).parent.parent
    if change == "changed":
        (venv / "pyvenv.cfg").write_text((venv / "pyvenv.cfg").read_text() + "\n")
    elif change == "removed":
        (venv / "pyvenv.cfg").unlink()
    await first.close()

    slot = 11 if change == "binary path" else 1  # its place's path has another length
    second = await executor_without_pip.prepare(spec, slot=slot, secrets={}, output=Output())
    await second.close()

    assert counter.read_text() == "ran\n" * 2
    assert COPIED_NOTE not in second.notes


async def test_failed_setup_names_its_line_and_starts_afresh_the_next_time(
    executor_without_pip: ProcessExecutor, workspace: Path
) -> None:
    spec = make_spec(
        workspace, setup=("echo one >> /dev/stderr", "echo no luck; exit 3", "touch never"), setup_digest="d"
    )
    output = Output()

    with pytest.raises(SetupFailed) as failure:
        await executor_without_pip.prepare(spec, slot=0, secrets={}, output=output)

    assert (failure.value.line, failure.value.exit_code, failure.value.output) == ("echo no luck; exit 3", 3, "no luck")
    assert "setup failed with exit code 3: echo no luck; exit 3" in str(failure.value)
    assert b"one" in output.content
    with pytest.raises(SetupFailed):
        await executor_without_pip.prepare(spec, slot=0, secrets={}, output=output)


async def test_cancelled_start_leaves_nothing_running(tmp_path: Path) -> None:
    before = set(psutil.Process().children())  # other tests' helpers, such as multiprocessing's
    starting = asyncio.create_task(
        ChildProcess.start(["sleep", "100"], env=os.environ, cwd=tmp_path, memory_limit_bytes=0, output=Output())
    )
    while not set(psutil.Process().children()) - before:
        await asyncio.sleep(0)

    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    assert set(psutil.Process().children(recursive=True)) <= before


async def test_cancelled_setup_leaves_nothing_running(executor_without_pip: ProcessExecutor, workspace: Path) -> None:
    spec = make_spec(workspace, setup=("echo $$; exec sleep 100",), setup_digest="d")
    output = Output()

    task = asyncio.create_task(executor_without_pip.prepare(spec, slot=0, secrets={}, output=output))
    await output.until(b"sleep 100\n")
    while not output.content.splitlines()[-1].isdigit():
        output.changed.clear()
        await output.changed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not is_alive(int(output.content.splitlines()[-1]))


async def test_full_disk_is_named(tmp_path: Path, workspace: Path) -> None:
    class Full(CopiedWorkspaces):
        async def synchronise(self, workspace_digest: Any, target: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    executor = ProcessExecutor(tmp_path / "root", Full(), python=sys.executable)
    with pytest.raises(CapacityExceeded, match="is full"):
        await executor.prepare(make_spec(workspace), slot=0, secrets={}, output=Output())

    with pytest.raises(CapacityExceeded, match="MiB free, the task needs"):
        await executor.prepare(
            make_spec(workspace, limits=Resources(disk_bytes=1 << 60)), slot=0, secrets={}, output=Output()
        )


async def test_other_problems_of_the_workspace_are_passed_on(tmp_path: Path, workspace: Path) -> None:
    class Absent(CopiedWorkspaces):
        async def synchronise(self, workspace_digest: Any, target: Any) -> None:
            raise NotFound("no such workspace")

    executor = ProcessExecutor(tmp_path / "root", Absent(), python=sys.executable)

    with pytest.raises(NotFound):
        await executor.prepare(make_spec(workspace), slot=0, secrets={}, output=Output())


async def test_task_without_workspace_gets_an_empty_directory(executor: ProcessExecutor, workspace: Path) -> None:
    async with prepared(executor, make_spec(workspace, workspace_digest="")) as environment:
        (environment.source / "left").touch()
        await environment.refresh(make_spec(workspace, workspace_digest=""))

        assert list(environment.source.iterdir()) == []

        environment.source.chmod(0o500)  # there is nothing in it, but it is of no use
        await environment.refresh(make_spec(workspace, workspace_digest=""))

        (environment.source / "new").touch()
        assert environment.source.stat().st_mode & stat.S_IRWXU == stat.S_IRWXU
    await executor.close()


def test_longest_unused_places_are_removed_but_never_open_ones(tmp_path: Path, workspace: Path) -> None:
    places = Places(tmp_path)
    opened = []
    for number in range(9):
        place = places.open(make_spec(workspace, project=f"p{number}"), slot=0, python="python")
        os.utime(place.root, (number, number))
        if number:
            places.close(place)
        opened.append(place)

    last = places.open(make_spec(workspace, project="last"), slot=0, python="python")

    kept = {place.root for place in opened if place.root.exists()}
    assert len(kept) == 5
    assert {opened[0].root, opened[8].root} <= kept
    assert last.source.is_dir()


async def test_setup_that_fails_on_a_full_disk_is_no_fault_of_the_task(
    executor_without_pip: ProcessExecutor, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetest.worker.executors.setup._FULL_BYTES", 1 << 60)
    spec = make_spec(workspace, setup=("exit 1",), setup_digest="d")

    with pytest.raises(CapacityExceeded, match="was full when setup failed"):
        await executor_without_pip.prepare(spec, slot=0, secrets={}, output=Output())
