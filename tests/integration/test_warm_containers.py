"""A container that was used before is the same as a new one; see `warm_cells`."""

from __future__ import annotations

import asyncio
import gc
import subprocess
from datetime import timedelta

import pytest

from fleetest.common.tasks import Network, Resources
from fleetest.worker.directories import empty_directory
from fleetest.worker.executors.docker.overlay import undo
from fleetest.worker.executors.docker.warm_cells import WarmBounds
from tests.support.docker_executors import executor_on, run_command
from tests.tools.local_worker import RecordingReporter, make_spec, suite

pytestmark = pytest.mark.timeout(180)

# All that can be seen from inside, but for times of directories and numbers of processes and inodes.
LOOK = r"""
import os, stat, hashlib
for top in (b"/workspace", b"/tmp", b"/dev/shm", b"/dev/mqueue", b"/fleetest/channel"):
    for directory, names, files in os.walk(top):
        names.sort()
        for path in [directory, *(os.path.join(directory, name) for name in sorted(files + names))]:
            status = os.lstat(path)
            kind = stat.filemode(status.st_mode), status.st_uid, status.st_gid, status.st_nlink if stat.S_ISREG(status.st_mode) else 0
            content = hashlib.sha256(open(path, "rb").read()).hexdigest()[:8] if stat.S_ISREG(status.st_mode) else ""
            changed = status.st_mtime if stat.S_ISREG(status.st_mode) else 0
            print(path, *kind, content, changed, sorted(os.listxattr(path, follow_symlinks=False)))
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) != os.getpid():
        print(open(f"/proc/{pid}/cmdline").read().replace(chr(0), " "))
for kind in ("msg", "sem", "shm"):
    print(open(f"/proc/sysvipc/{kind}").read())
print(sorted(os.environ))
"""

# All that can be left behind, wherever something can be.
LEAVE = r"""
import ctypes, os, shutil, socket, subprocess
def mess(top):
    os.chdir(top)
    for number, name in enumerate([b"-rf", b".wh.x", b".removed-1", b"new\nline", b"\xff", b"..."]):
        open(name, "w").write("left")
        os.chmod(name, number)
    os.makedirs("closed/inner/deep")
    open("closed/inner/file", "w").write("left")
    os.mkfifo("closed/inner/fifo")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind("socket")
    os.symlink("/etc", "link")
    deep = os.getcwd()
    for _ in range(300):
        os.mkdir("d" * 100)
        os.chdir("d" * 100)
    os.chdir(top)
    os.chmod("closed/inner", 0)
    os.chmod("closed", 0)
mess("/tmp")
mess("/dev/shm")
mess("/workspace")
os.setxattr("package", "user.left", b"x")
os.setxattr("/workspace", "user.left", b"x")
os.setxattr("package/module.py", "user.left", b"x")
acl = bytes.fromhex("02000000" "01000700ffffffff" "04000500ffffffff" "20000500ffffffff")
os.setxattr("package", "system.posix_acl_default", acl)
before = os.stat("same.txt")
open("same.txt", "w").write("SAME")
os.utime("same.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
os.remove("removed.txt")
os.chmod("mode.txt", 0o4777)
os.link("linked.txt", "hard")
shutil.rmtree("gone")
shutil.rmtree("remade")
os.mkdir("remade")
open("remade/other", "w").write("left")
os.rename("moved", "moved-away") if not shutil.move("moved", "moved-away") else None
os.remove("target"), os.symlink("/etc/passwd", "target")
shutil.rmtree("replaced"), open("replaced", "w").write("a file now")
os.chmod("/workspace", 0o1777)
shutil.rmtree("package/__pycache__", ignore_errors=True)
os.mkdir("package/__pycache__")
open("package/__pycache__/module.cpython-313.pyc", "wb").write(b"lies")
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mq_open(b"/left", os.O_CREAT | os.O_RDWR, 0o600, None) >= 0
subprocess.Popen(["setsid", "sleep", "600"], close_fds=True)
print("left")
"""


@pytest.fixture
async def executor(docker_engine, tmp_path):
    async with executor_on(docker_engine, tmp_path / "worker") as opened:
        yield opened
    assert not docker_engine.containers("label=fleetest.worker=w1")
    assert not docker_engine.volumes()


@pytest.fixture
def workspace(tmp_path):
    root = suite(tmp_path / "suite", test_sample="def test_it(): pass\n")
    for name in ("same.txt", "removed.txt", "mode.txt", "linked.txt", "target"):
        (root / name).write_text("same")
    for name in ("package", "gone", "remade", "moved", "replaced"):
        (root / name / "inner").mkdir(parents=True)
        (root / name / "module.py").write_text(f"here = '{name}'\n")
        (root / name / "inner" / "data").write_text("data")
    return root


@pytest.fixture
def make(workspace, base_image):
    def spec(code, **changes):
        command = ("python3", "-c", code)
        values = {"command": command, "image": base_image, "network": Network.NONE}
        return make_spec(workspace, type="command", **{**values, **changes})

    return spec


async def test_whatever_was_left_in_a_container_is_gone_for_the_next(executor, make):
    _, cold = await run_command(executor, make(LOOK))

    _, left = await run_command(executor, make(LEAVE), secrets={"TOKEN": "hush"})
    _, warm = await run_command(executor, make(LOOK))

    assert left.outcomes() == {"unit": "passed"}, left.text
    assert (cold.notes, left.notes, warm.notes) == ([], ["container reused"], ["container reused"])
    assert warm.text.splitlines() == cold.text.splitlines()
    assert "package" in cold.text


async def test_container_with_objects_of_system_v_is_not_used_again(executor, make):
    leave = "import ctypes; assert ctypes.CDLL(None).shmget(7, 4096, 0o1600) >= 0"

    _, left = await run_command(executor, make(leave))
    _, after = await run_command(executor, make(LOOK))

    assert left.outcomes() == {"unit": "passed"}, left.text
    assert after.notes == []


async def test_changed_workspace_is_brought_into_a_warm_container(executor, make, workspace, tmp_path):
    changed = suite(tmp_path / "changed", test_sample="def test_it(): assert True\n", more="")
    (changed / "package").write_text("a file instead of a directory")
    first, second = make(LEAVE), make(LOOK, workspace_digest=str(changed))

    await run_command(executor, first)
    _, warm = await run_command(executor, second)
    _, back = await run_command(executor, make(LOOK))
    await executor.remove_orphans()
    _, cold = await run_command(executor, second)

    assert (warm.notes, back.notes, cold.notes) == (["container reused"], ["container reused"], [])
    assert warm.text.splitlines() == cold.text.splitlines()
    assert "replaced" in back.text


def test_directories_of_a_lower_layer_can_be_removed(docker_engine, tmp_path):
    """An overlay moves none of them, as is done with others so that no depth is too deep."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "lower" / "a" / "b" / "file").touch()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    merged = tmp_path / "merged"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=True)
    try:
        empty_directory(merged)

        assert list(merged.iterdir()) == []
        undo(tmp_path / "upper", tmp_path / "lower", merged)
        assert sorted(path.name for path in merged.rglob("*")) == ["a", "b", "c", "file"]
    finally:
        subprocess.run(["umount", str(merged)], check=True)


async def test_only_the_like_is_taken(executor, make):
    await run_command(executor, make("pass"))

    others = [
        make("pass", project="another"),
        make("pass", network=Network.BRIDGE),
        make("pass", limits=Resources(memory_bytes=256 << 20)),
    ]
    notes = [(await run_command(executor, spec))[1].notes for spec in others]
    _, same = await run_command(executor, make("pass"))

    assert notes == [[], [], []]
    assert same.notes == ["container reused"]


async def test_secrets_of_one_run_are_unknown_to_the_next(executor, make):
    search = "grep -a -r -l -s hush-hush /proc/[0-9]*/environ /tmp /dev/shm /fleetest /workspace; echo looked"
    keep = "setsid sleep 600 & echo $TOKEN > /tmp/token; echo $TOKEN > token"

    _, first = await run_command(executor, make("", command=(), shell=keep), secrets={"TOKEN": "hush-hush"})
    _, second = await run_command(executor, make("", command=(), shell=search))

    assert first.outcomes() == {"unit": "passed"}
    assert (second.notes, second.text) == (["container reused"], "looked\n")


async def test_few_are_kept_and_none_for_long(docker_engine, make, tmp_path):
    bounds = WarmBounds(cells=2, idle_timeout=timedelta(seconds=30))
    async with executor_on(docker_engine, tmp_path / "a", warm=bounds) as executor:
        for project in ("a", "b", "c"):
            await run_command(executor, make("pass", project=project))

        await until_left(docker_engine, 2)
        _, newest = await run_command(executor, make("pass", project="c"))
        _, oldest = await run_command(executor, make("pass", project="a"))

    assert (newest.notes, oldest.notes) == (["container reused"], [])
    bounds = WarmBounds(idle_timeout=timedelta())
    async with executor_on(docker_engine, tmp_path / "b", warm=bounds) as executor:
        await run_command(executor, make("pass"))

        await until_left(docker_engine, 0)


async def until_left(engine, number):
    async with asyncio.timeout(60):
        while len(engine.containers("label=fleetest.worker=w1")) != number:
            await asyncio.sleep(0.05)  # the Engine rings no bell here


async def test_release_gives_back_what_nobody_uses(executor, make, docker_engine):
    await run_command(executor, make("pass"))

    executor.release_idle()

    await until_left(docker_engine, 0)


# The SDK does not close a socket that could not be connected; the collection of garbage finds it while this holds.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
async def test_task_that_starts_while_the_engine_restarts_waits_for_it(own_docker_engine, root_tar, make, tmp_path):
    engine = own_docker_engine
    engine.docker("import", str(root_tar), "base")
    spec = make("pass", image="base")
    async with executor_on(engine, tmp_path / "worker") as executor:
        await run_command(executor, spec)
        engine.kill()
        reporter = RecordingReporter()
        running = asyncio.create_task(run_command(executor, spec, reporter=reporter))
        await reporter.until("waiting for the Docker Engine")

        await asyncio.to_thread(engine.start)
        _, after = await running

    gc.collect()
    assert after.outcomes() == {"unit": "passed"}
    assert engine.containers() == []
