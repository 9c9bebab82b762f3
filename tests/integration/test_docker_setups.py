"""Setup in containers: it runs once, is kept as an image, and gives nothing away."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from fleetest.common.tasks import Network
from fleetest.common.version_control import VersionControl
from fleetest.worker.errors import SetupFailed
from fleetest.worker.executors.docker.setup_images import SetupBounds
from fleetest.worker.executors.docker.warm_cells import WarmBounds
from tests.support.docker_executors import executor_on, prepared, run_command
from tests.support.package_index import package_index
from tests.support.wheels import write_wheel
from tests.tools.local_worker import RecordingReporter, make_spec, suite

pytestmark = pytest.mark.timeout(180)

PASSWORD = "s3cret-of-the-index"


@pytest.fixture
def engine(docker_engine):
    """Leaves no setup behind for other tests to find."""
    yield docker_engine
    left = docker_engine.containers(), [name for name in docker_engine.volumes() if "cache" not in name]
    for image in setup_images(docker_engine):
        docker_engine.docker("rmi", image)
    for volume in docker_engine.volumes():
        docker_engine.docker("volume", "rm", volume)
    assert left == ([], [])


@pytest.fixture
async def executor(engine, tmp_path):
    async with executor_on(engine, tmp_path / "worker") as opened:
        yield opened


@pytest.fixture(scope="module")
def shell_image(docker_engine, base_image, tmp_path_factory):
    """Without Python, whose virtual environment would take most of a test's time."""
    context = tmp_path_factory.mktemp("shell-image")
    (context / "Dockerfile").write_text(f"FROM {base_image}\nRUN rm /usr/bin/python*\n")
    docker_engine.docker("build", "--quiet", "--tag", "fleetest-test-shell", str(context))
    return "fleetest-test-shell"


@pytest.fixture
def make(tmp_path, shell_image):
    """A command task; its setup's digest stands for its lines."""
    workspace = suite(tmp_path / "suite", test_sample="def test_it(): pass\n")

    def spec(shell, *setup, **changes):
        values = {"setup": setup, "setup_digest": "".join(setup), "image": shell_image, "network": Network.NONE}
        return make_spec(workspace, type="command", shell=shell, **{**values, **changes})

    return spec


def setup_images(engine):
    return engine.docker("images", "--filter=label=fleetest.setup", "--format={{.Repository}}:{{.Tag}}").split()


async def test_setup_runs_once_and_what_it_made_is_there_for_all(executor, engine, make, tmp_path, base_image):
    write_wheel(tmp_path / "suite" / "wheels", "sample", code="answer = 42\n")
    spec = make(
        'python -c "import sample; print(sample.answer)"; cat made/file; echo "in $VIRTUAL_ENV"; ! touch /opt/fleetest/x',
        "pip install --no-index --find-links wheels sample",
        "mkdir made && echo $SETUPTOOLS_SCM_PRETEND_VERSION > made/file; ls /sys/class/net; id -u",
        image=base_image,
        version_control=VersionControl(described_version="1.2.3"),
    )
    first, second = RecordingReporter(), RecordingReporter()

    _, one = await run_command(executor, spec, reporter=first)
    await executor.remove_orphans()  # so that the container is a new one
    _, two = await run_command(executor, spec, reporter=second)

    assert one.outcomes() == two.outcomes() == {"unit": "passed"}, one.text
    assert "42\n1.2.3\nin /opt/fleetest/venv\n" in one.text
    assert "Successfully installed sample-1.0" in first.text
    assert "eth0" in first.text
    assert "\n1000\n" in first.text
    assert second.text == ""
    assert (one.notes, two.notes) == ([], ["setup reused"])
    assert len(setup_images(engine)) == 1


async def test_slots_and_workers_that_need_the_same_setup_wait_for_one(engine, make, tmp_path):
    spec = make("true", "sleep 1; date +%N > stamp; echo made")
    reporters = [RecordingReporter() for _ in range(4)]
    locks = tmp_path / "locks"

    async with (
        executor_on(engine, tmp_path / "a", worker_id="a", locks=locks) as a,
        executor_on(engine, tmp_path / "b", worker_id="b", locks=locks) as b,
    ):
        runs = [
            run_command(executor, spec, reporter=reporter)
            for executor, reporter in zip((a, a, b, b), reporters, strict=True)
        ]
        await asyncio.gather(*runs)

    assert sum("made" in reporter.text for reporter in reporters) == 1
    assert len(setup_images(engine)) == 1


async def test_line_that_fails_is_shown_with_its_code_and_output(executor, engine, make):
    spec = make("true", "echo fine", "echo oh no; exit 7", "echo never")
    reporter = RecordingReporter()

    with pytest.raises(SetupFailed) as raised:
        await run_command(executor, spec, reporter=reporter)

    assert str(raised.value) == "setup failed with exit code 7: echo oh no; exit 7\noh no"
    assert "never" not in reporter.text
    assert setup_images(engine) == []
    assert engine.containers() == []


async def test_setup_that_is_broken_off_leaves_nothing_and_the_next_begins_anew(executor, engine, make):
    spec = make("true", "test -e early || echo begun; sleep 600")
    reporter = RecordingReporter()
    running = asyncio.create_task(run_command(executor, spec, reporter=reporter))
    await reporter.until("begun")

    running.cancel()
    await asyncio.wait([running])

    assert engine.containers() == []
    assert setup_images(engine) == []


async def test_image_without_python_has_setup_too(executor, make):
    spec = make("cat /opt/fleetest/made; echo ${VIRTUAL_ENV:-none}", "echo made > /opt/fleetest/made")

    _, reporter = await run_command(executor, spec)

    assert reporter.text == "made\nnone\n"


async def test_credentials_stay_in_no_layer_and_in_no_cache(executor, engine, make, tmp_path, base_image):
    write_wheel(tmp_path / "wheels", "sample", code="answer = 42\n")
    with package_index(tmp_path / "wheels", host=engine.gateway, password=PASSWORD) as index:
        secrets = {"PIP_INDEX_URL": index.url, "PIP_TRUSTED_HOST": engine.gateway}
        spec = make(
            "true",
            "pip install sample && pip uninstall --yes sample && pip install sample",
            image=base_image,
            secret_names=tuple(secrets),
        )
        await run_command(executor, spec, secrets=secrets)

    assert index.downloads == ["sample-1.0-py3-none-any.whl"], "the second time it comes from the cache"
    (image,) = setup_images(engine)
    saved = tmp_path / "saved.tar"
    engine.docker("save", "--output", str(saved), image)
    volume = engine.docker("volume", "ls", "--quiet", "--filter=label=fleetest.cache")
    cache = Path(engine.docker("volume", "inspect", "--format={{.Mountpoint}}", volume))
    assert [path for path in cache.rglob("*") if path.is_file()]
    assert PASSWORD not in engine.docker("inspect", image) + engine.docker("history", "--no-trunc", image)
    assert files_with(PASSWORD, saved, cache) == ""
    assert files_with("answer = 42", saved) == f"{saved}\n", "what it looks for could be found"


def files_with(text, *places):
    grep = ["grep", "--recursive", "--files-with-matches", "--text", "--fixed-strings", text, *map(str, places)]
    return subprocess.run(grep, capture_output=True, text=True, check=False).stdout


async def test_longest_unused_setups_go_but_none_in_use(engine, make, tmp_path):
    specs = [make("true", f"echo {number}") for number in range(3)]

    async with executor_on(
        engine, tmp_path / "worker", setups=SetupBounds(images=2), warm=WarmBounds(cells=0)
    ) as executor:
        async with prepared(executor, specs[0]):
            await run_command(executor, specs[1])
            await run_command(executor, specs[2])
            in_use = RecordingReporter()
            await run_command(executor, specs[0], reporter=in_use)
        after = RecordingReporter()
        await run_command(executor, specs[1], reporter=after)

    assert in_use.text == ""
    assert "$ echo 1" in after.text
    assert len(setup_images(engine)) == 2


async def test_cache_of_packages_is_bounded_and_no_other_projects(engine, make, tmp_path):
    fill = "head -c 3000000 /dev/zero > /fleetest/cache/big; ls /fleetest/cache"
    first, second, third = RecordingReporter(), RecordingReporter(), RecordingReporter()

    async with executor_on(engine, tmp_path / "worker", setups=SetupBounds(cache_bytes=2 << 20)) as executor:
        await run_command(executor, make("true", "touch /fleetest/cache/small"), reporter=first)
        await run_command(executor, make("true", fill), reporter=second)
        await run_command(executor, make("true", "ls /fleetest/cache; true"), reporter=third)
        async with prepared(executor, make("true", "ls /fleetest/cache", project="another"), reporter=first):
            pass

    assert "small" in second.text
    assert "big" in second.text
    assert third.text == "$ ls /fleetest/cache; true\n"
    assert first.text.endswith("$ ls /fleetest/cache\n")
