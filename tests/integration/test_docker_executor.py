"""The docker executor on a real Engine: what tests see in a container, and what can go wrong with one."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, Forbidden, InvalidRequest
from fleetest.common.states import Verdict
from fleetest.common.tasks import Network, Pull, Resources
from fleetest.v1 import types_pb2
from fleetest.worker.executors.compiled_modules import CompiledModules
from fleetest.worker.executors.docker.cells import ContainerRules
from fleetest.worker.executors.docker.executor import DockerExecutor
from fleetest.worker.executors.docker.sdk_engine import EngineAddress, SdkEngine
from fleetest.worker.ownership import Owner
from fleetest.worker.runners.command import CommandRunner
from fleetest.worker.runners.pytest import PytestRunner
from tests.conftest import install_for_image
from tests.support.full_disk import small_disk
from tests.support.overlay import overlay
from tests.support.registry import registry
from tests.support.worker_process import worker_process
from tests.tools.local_worker import (
    CopiedWorkspaces,
    DirectoryBlobs,
    RecordingReporter,
    assignment,
    make_spec,
    run_cases,
    suite,
)
from tests.unit.worker.scripted_master import ScriptedMaster, serving

pytestmark = pytest.mark.timeout(180)

MIB = 1 << 20
OWNER = Owner(uid=1000, gid=1000)


@asynccontextmanager
async def executor_on(engine, directory, *, directory_id="", **rules):
    address = EngineAddress(url=engine.url)
    connected = await SdkEngine.connect(address)
    executor = DockerExecutor(
        connected,
        directory,
        CopiedWorkspaces(),
        worker_id="w1",
        directory_id=directory_id,
        engine_url=address.url,
        rules=ContainerRules(owner=OWNER, **rules),
        compiled=CompiledModules(directory / "compiled", max_bytes=MIB, owner=OWNER),
    )
    await executor.open()
    try:
        yield executor
    finally:
        await executor.close()
        connected.close()


@pytest.fixture
async def executor(docker_engine, tmp_path):
    async with executor_on(docker_engine, tmp_path / "worker", pids=200) as opened:
        yield opened
    assert not docker_engine.containers("label=fleetest.worker=w1")
    assert not docker_engine.volumes()


@asynccontextmanager
async def session_of(executor, spec, blobs=Path("unused")):
    runner = (CommandRunner if spec.type == "command" else PytestRunner)(DirectoryBlobs(blobs))
    environment = await executor.prepare(spec, slot=0, secrets={}, output=lambda _: None)
    try:
        session = await runner.open(spec, environment)
        try:
            yield session
        finally:
            await session.close()
    finally:
        await environment.close()


async def run_command(executor, spec):
    async with session_of(executor, spec) as session:
        return await run_cases(session, spec, [])


@pytest.fixture
def workspace(tmp_path):
    return suite(tmp_path / "suite", test_sample="def test_it(): pass\n")


@pytest.fixture
def command(workspace, base_image):
    def make(shell, **changes):
        return make_spec(workspace, type="command", shell=shell, image=base_image, network=Network.NONE, **changes)

    return make


async def test_container_is_hardened_and_writable_where_it_should_be(executor, command):
    spec = command(
        """
        set -e
        test "$(id -u):$(id -g)" = 1000:1000
        test "$(pwd)" = /workspace
        grep -q '^NoNewPrivs:.1$' /proc/self/status
        ! touch /etc/evil 2>/dev/null
        ! touch /fleetest/evil 2>/dev/null
        touch new && touch test_sample.py && touch /tmp/x && touch "$HOME/x"
        test "$(wc -l < /proc/net/route)" = 1
        grep -h ^Cap /proc/self/status
        """
    )

    _, reporter = await run_command(executor, spec)

    assert reporter.outcomes() == {"unit": "passed"}, reporter.text
    assert [line.split()[1] for line in reporter.text.splitlines()] == ["0" * 16] * 5


async def test_pytest_suite_ends_in_a_container_as_it_should_and_is_compiled_once(executor, tmp_path, python_image):
    workspace = suite(
        tmp_path / "suite",
        test_sample="""
            import pathlib

            def test_passes(tmp_path):
                pathlib.Path("left.txt").write_text("from the test")

            def test_fails():
                assert 1 == 2

            def test_hangs():
                import time
                time.sleep(600)
        """,
    )
    spec = make_spec(workspace, image=python_image, artifacts=("left.txt",), silence_timeout=timedelta(seconds=5))
    cases = [f"test_sample.py::{name}" for name in ("test_passes", "test_fails", "test_hangs")]

    async with session_of(executor, spec, tmp_path / "blobs") as session:
        ended, reporter = await run_cases(session, spec, cases)
    kept = {path: path.stat().st_ino for path in (tmp_path / "worker" / "compiled").glob("*/*")}
    async with session_of(executor, spec) as session:
        _, again = await run_cases(session, spec, cases[1:2])

    assert reporter.outcomes() == {"test_passes": "passed", "test_fails": "failed", "test_hangs": "timed_out"}
    assert again.named("test_fails").details == reporter.named("test_fails").details
    assert kept
    assert kept == {path: path.stat().st_ino for path in (tmp_path / "worker" / "compiled").glob("*/*")}
    assert "in test_hangs" in reporter.named("test_hangs").details
    assert [artifact.path for artifact in reporter.stored] == ["left.txt"]
    assert ended.usage.cpu_time.total_seconds() > 0
    assert ended.usage.peak_memory_bytes > MIB
    assert not (workspace / "left.txt").exists()


async def test_case_that_runs_when_memory_runs_out_fails(executor, tmp_path, python_image):
    workspace = suite(
        tmp_path / "suite",
        test_sample="""
            def test_before(): pass

            def test_greedy():
                bytearray(1 << 30)

            def test_after(): pass
        """,
    )
    spec = make_spec(workspace, image=python_image, limits=Resources(cpu_millis=1000, memory_bytes=128 * MIB))
    cases = [f"test_sample.py::{name}" for name in ("test_before", "test_greedy", "test_after")]

    async with session_of(executor, spec) as session:
        _, reporter = await run_cases(session, spec, cases)

    assert reporter.outcomes() == {"test_before": "passed", "test_greedy": "failed", "test_after": "passed"}
    assert reporter.named("test_greedy").message.startswith("out of memory: ")


async def test_worker_runs_tasks_in_containers_of_an_engine_that_answers(docker_engine, base_image, tmp_path):
    master = ScriptedMaster(patience_seconds=60)
    async with serving(master) as address:
        master.enqueue(type="command", shell="cat /etc/os-release; id -u; exit 3", image=base_image)
        async with worker_process(tmp_path, address, FLEETEST_EXECUTORS="", **docker_engine.environment) as process:
            ended = await master.ended()
            process.send_signal(signal.SIGTERM)
            _, said = await process.communicate()

    assert ended.verdict == types_pb2.VERDICT_COMPLETED
    assert [outcome for _, outcome in master.results()] == [types_pb2.OUTCOME_FAILED]
    capabilities = master.registrations[0][0].capabilities
    assert capabilities["executor.docker"] == "true"
    assert capabilities["docker"] == docker_engine.docker("version", "--format", "{{.Server.Version}}")
    output = b"".join(report.output.content for report in master.reports())
    assert b"trixie" in output
    assert b"\n1000\n" in output
    assert not docker_engine.containers("label=fleetest.worker=w1")
    assert not [line for line in said.splitlines() if b"Traceback" in line]


async def test_worker_without_an_engine_offers_processes(tmp_path):
    master = ScriptedMaster(patience_seconds=60)
    environment = {"FLEETEST_EXECUTORS": "", "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    async with serving(master) as address, worker_process(tmp_path, address, **environment):
        await master.wanted(2)

    assert "executor.docker" not in master.registrations[0][0].capabilities
    assert master.registrations[0][0].capabilities["executor"] == "process"


async def test_worker_that_must_have_an_engine_says_where_it_looked(tmp_path):
    async with (
        serving(ScriptedMaster()) as address,
        worker_process(
            tmp_path, address, FLEETEST_EXECUTORS="docker", DOCKER_HOST=f"unix://{tmp_path}/none.sock"
        ) as process,
    ):
        _, said = await process.communicate()

    assert process.returncode == 3
    assert b"none.sock does not answer" in said
    assert b"DOCKER_HOST" in said


# The SDK does not close a socket that could not be connected; the collection of garbage finds it while this holds.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
async def test_attempts_of_a_dead_engine_are_errored_and_later_ones_work(own_docker_engine, root_tar, tmp_path):
    own_docker_engine.docker("import", str(root_tar), "base")

    lost, meanwhile, (after, outcomes) = await attempts_around_a_death(own_docker_engine, tmp_path)
    gc.collect()

    assert [(end.verdict, "Docker Engine went away" in end.reason) for end, _ in lost] == [(Verdict.ERRORED, True)] * 2
    assert [outcomes for _, outcomes in lost] == [{"test_before": "passed"}, {}]
    assert [(end.verdict, "does not answer" in end.reason) for end in meanwhile] == [(Verdict.ERRORED, True)] * 2
    assert (after.verdict, outcomes) == (Verdict.COMPLETED, {"test_running": "passed"}), after.reason
    assert not own_docker_engine.containers("label=fleetest.worker=w1")


async def attempts_around_a_death(engine, directory):
    """What became of attempts of a pytest suite and of a command that ran then, of those after it, and of a last one."""
    workspace = suite(
        directory / "suite",
        test_sample="""
            import pathlib, time

            def test_before(): pass

            def test_running():
                if not pathlib.Path("again").exists():
                    pathlib.Path("again").touch()
                    print("up", flush=True)
                    time.sleep(600)
        """,
    )
    install_for_image(workspace / "packages", "pytest")
    cases = ["test_sample.py::test_before", "test_sample.py::test_running"]
    environment = {"PYTHONPATH": "/workspace/packages", "PYTHONDONTWRITEBYTECODE": "1"}
    pytest_spec = make_spec(workspace, image="base", env=environment, command=("-s",))
    command_spec = make_spec(workspace, image="base", type="command", shell="echo up; exec sleep 600")
    async with (
        executor_on(engine, directory / "worker") as executor,
        session_of(executor, pytest_spec) as tests,
        session_of(executor, command_spec) as command,
    ):
        said, told = RecordingReporter(), RecordingReporter()
        ends = [tests.submit(assignment(pytest_spec, cases), said), command.submit(assignment(command_spec), told)]
        tests.flush()
        await said.until("up\n")
        await told.until("up\n")

        engine.kill()
        lost = [(await end, reporter.outcomes()) for end, reporter in zip(ends, (said, told), strict=True)]
        meanwhile = [
            (await run_cases(tests, pytest_spec, cases[1:]))[0],
            (await run_cases(command, command_spec, []))[0],
        ]
        engine.start()
        after, reporter = await run_cases(tests, pytest_spec, cases[1:])
        return lost, meanwhile, (after, reporter.outcomes())


async def test_image_that_does_not_exist_is_named(executor, workspace):
    spec = make_spec(workspace, image="fleetest-test-base:nonesuch", pull=Pull.NEVER)

    with pytest.raises(InvalidRequest, match="fleetest-test-base:nonesuch is not on the worker's machine"):
        await executor.prepare(spec, slot=0, secrets={}, output=lambda _: None)


@pytest.mark.parametrize(
    ("status", "code", "error", "words"),
    [
        (404, "MANIFEST_UNKNOWN", InvalidRequest, "there is no image"),
        (401, "UNAUTHORIZED", Forbidden, "the registry refuses the image"),
        (403, "DENIED", InvalidRequest, "its registry has no image .*, or refuses it"),
        (503, "UNAVAILABLE", DependencyUnavailable, "could not be pulled"),
    ],
)
async def test_refusal_of_a_registry_is_explained(executor, workspace, status, code, error, words):
    with registry(status, code) as address:
        spec = make_spec(workspace, image=f"{address}/team/app:1", pull=Pull.ALWAYS)

        with pytest.raises(error, match=words) as raised:
            await executor.prepare(spec, slot=0, secrets={}, output=lambda _: None)

    assert f"{address}/team/app:1" in raised.value.message
    assert raised.value.hint


async def test_pull_that_takes_long_can_be_cancelled(executor, workspace):
    asked = threading.Event()
    with registry(404, "MANIFEST_UNKNOWN", asked=asked) as address:
        spec = make_spec(workspace, image=f"{address}/team/app:1")
        pulling = asyncio.create_task(executor.prepare(spec, slot=0, secrets={}, output=lambda _: None))
        assert await asyncio.to_thread(asked.wait, 60)

        pulling.cancel()
        _, waiting = await asyncio.wait([pulling], timeout=10)

    assert not waiting


async def test_fork_bomb_is_ended_and_the_container_works_again(executor, tmp_path, python_image):
    workspace = suite(
        tmp_path / "suite",
        test_sample="""
            import os

            def test_bomb():
                while True:
                    try:
                        os.fork()
                    except OSError:
                        pass

            def test_after(): pass
        """,
    )
    half_a_core = Resources(cpu_millis=500)
    spec = make_spec(workspace, image=python_image, limits=half_a_core, silence_timeout=timedelta(seconds=5))
    cases = ["test_sample.py::test_bomb", "test_sample.py::test_after"]

    async with session_of(executor, spec) as session:
        _, reporter = await run_cases(session, spec, cases)

    assert reporter.outcomes() == {"test_bomb": "timed_out", "test_after": "passed"}


async def test_command_that_ignores_sigterm_is_killed_after_its_grace(executor, command):
    spec = command("trap 'echo asked' TERM; echo up; while :; do sleep 0.1; done")
    async with session_of(executor, spec) as session:
        reporter = RecordingReporter()
        future = session.submit(assignment(spec), reporter)
        await reporter.until("up")

        ref = assignment(spec).ref
        await session.stop(ref, reason="enough", grace=timedelta(seconds=4), finish_running_case=False)
        ended = await future

    assert (ended.verdict, ended.reason) == (Verdict.CANCELLED, "enough")
    assert "asked" in reporter.text


async def test_what_a_command_leaves_running_is_gone_before_the_next(executor, command):
    spec = command(
        "n=600; grep -c 'slee[p].600' /proc/[0-9]*/cmdline | grep -c ':1$'; setsid sleep $n & setsid sleep $n &"
    )

    async with session_of(executor, spec) as session:
        _, first = await run_cases(session, spec, [])
        _, second = await run_cases(session, spec, [])

    assert (first.text, second.text) == ("0\n", "0\n")


async def test_full_disk_fails_the_test_that_filled_it_and_takes_no_more(docker_engine, command, tmp_path):
    fill = command("head -c 200000000 /dev/zero > big")

    with small_disk(tmp_path / "disk", 100 * MIB) as disk:
        async with executor_on(docker_engine, disk / "worker") as executor, session_of(executor, fill) as session:
            _, reporter = await run_cases(session, fill, [])

            with pytest.raises(CapacityExceeded, match=r"has \d+ MiB free, the task needs 64 MiB"):
                await executor.prepare(fill, slot=1, secrets={}, output=lambda _: None)

    assert reporter.outcomes() == {"unit": "failed"}
    assert "No space left on device" in reporter.results[0].details


async def test_containers_of_a_killed_worker_end_and_its_next_life_removes_them(docker_engine, base_image, tmp_path):
    master = ScriptedMaster(patience_seconds=60)
    async with serving(master) as address:
        master.enqueue(type="command", shell="echo up; sleep 600", image=base_image)
        options = {"FLEETEST_EXECUTORS": "docker", **docker_engine.environment}
        async with worker_process(tmp_path, address, **options) as process:
            await master.until(lambda: b"up" in b"".join(report.output.content for report in master.reports()))
            process.kill()
            await process.wait()
        (orphan,) = docker_engine.containers("label=fleetest.worker=w1")
        docker_engine.docker("wait", orphan, timeout=60)

        async with worker_process(tmp_path, address, **options):
            await master.until(lambda: len(master.registrations) > 1)
            left = docker_engine.containers("label=fleetest.worker=w1")

    assert left == []
    assert not docker_engine.volumes()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert list((tmp_path / "docker" / "containers").iterdir()) == []


@pytest.fixture(params=["overlay", "copy"])
def data_directory(request, tmp_path):
    """One of a worker whose containers get overlays, and one of a worker that has to do without."""
    if request.param == "overlay":
        yield tmp_path
    else:
        with overlay(tmp_path, tmp_path / "over") as disk:  # on which there can be no further one
            yield disk


async def test_workspace_is_pristine_again_after_a_refresh(docker_engine, command, tmp_path, data_directory):
    spec = command(
        """
        ls /workspace /tmp
        echo broken > test_sample.py; touch new /tmp/left; (sleep 600 &)
        echo '<testsuite><testcase classname="c" name="reported"/></testsuite>' > junit.xml
        """,
        reports=("*.xml",),
    )
    runner = CommandRunner(DirectoryBlobs(tmp_path / "blobs"))
    async with executor_on(docker_engine, data_directory / "worker") as executor:
        environment = await executor.prepare(spec, slot=0, secrets={}, output=lambda _: None)
        listings = []
        for _ in range(2):
            session = await runner.open(spec, environment)
            _, reporter = await run_cases(session, spec, [])
            await session.close()
            await environment.refresh(spec)
            listings.append(reporter.text)
        await environment.close()

    assert listings[0] == listings[1]
    assert "test_sample.py" in listings[0]
    assert [(result.case_id, result.outcome.value) for result in reporter.results] == [("c::reported", "passed")]
    assert any("is a copy" in note for note in reporter.notes) is (data_directory != tmp_path)
    assert list((data_directory / "worker" / "containers").iterdir()) == []


async def test_worker_of_another_cluster_with_the_same_id_is_left_alone(docker_engine, command, tmp_path):
    spec = command("true")
    async with (
        executor_on(docker_engine, tmp_path / "ours", directory_id="ours") as executor,
        session_of(executor, spec) as session,
        executor_on(docker_engine, tmp_path / "theirs", directory_id="theirs"),
    ):
        _, reporter = await run_cases(session, spec, [])

    assert reporter.outcomes() == {"unit": "passed"}


async def test_outputs_come_in_the_order_in_which_they_were_written(executor, command):
    spec = command("for n in 1 2 3 4; do echo out $n; echo err $n >&2; done")

    _, reporter = await run_command(executor, spec)

    assert reporter.text == "".join(f"out {n}\nerr {n}\n" for n in (1, 2, 3, 4))


async def test_command_whose_child_was_killed_for_memory_says_so(executor, command):
    spec = command("python3 -c 'bytearray(1 << 30)'", limits=Resources(cpu_millis=1000, memory_bytes=64 * MIB))

    _, reporter = await run_command(executor, spec)

    assert reporter.results[0].message == "out of memory: its processes reached the limit of 64 MiB"
