"""Both layouts of control groups, as directory trees."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fleetest.worker.container_cgroup import ContainerMeter, find_cgroup

ID = "c0ffee" * 10
MIB = 1 << 20

V1_FILES = {
    "cpuacct/cpuacct.usage": "1500000000\n",
    "memory/memory.usage_in_bytes": f"{50 * MIB}\n",
    "memory/memory.stat": f"cache 0\ninactive_file 1\ntotal_inactive_file {20 * MIB}\n",
    "memory/memory.max_usage_in_bytes": f"{60 * MIB}\n",
    "memory/memory.limit_in_bytes": f"{100 * MIB}\n",
    "memory/memory.failcnt": "0\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 100\n8:16 Read 4096\nTotal 8292\n",
    "pids/pids.current": "3\n",
}
V2_FILES = {
    "cpu.stat": "usage_usec 1500000\nuser_usec 1000000\n",
    "memory.current": f"{50 * MIB}\n",
    "memory.stat": f"anon 1\ninactive_file {20 * MIB}\n",
    "memory.peak": f"{60 * MIB}\n",
    "memory.events": "low 0\nmax 0\noom 0\noom_kill 0\n",
    "io.stat": "8:0 rbytes=4096 wbytes=100 rios=1 wios=1\n8:16 rbytes=4096 wbytes=0\n",
    "pids.current": "3\n",
}


class Groups:
    """The root of a machine with one container, whose main process is 77."""

    def __init__(self, root, version):
        self.root = root
        self.version = version
        lines = f"0::/docker/{ID}\n"
        if version == 1:
            lines = "".join(
                f"{n}:{name}:/docker/{ID}\n" for n, name in enumerate(("memory", "cpu,cpuacct", "blkio", "pids"), 1)
            )
        (root / "proc/77").mkdir(parents=True)
        (root / "proc/77/cgroup").write_text(lines)
        for name, content in (V1_FILES if version == 1 else V2_FILES).items():
            self.write(name, content)

    def write(self, name, content):
        controller, _, file = name.rpartition("/")
        path = self.root / "sys/fs/cgroup" / controller / "docker" / ID / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def use(self, *, cpu_seconds, memory_bytes):
        if self.version == 1:
            self.write("cpuacct/cpuacct.usage", str(int(cpu_seconds * 1e9)))
            self.write("memory/memory.usage_in_bytes", str(memory_bytes + 20 * MIB))
        else:
            self.write("cpu.stat", f"usage_usec {int(cpu_seconds * 1e6)}")
            self.write("memory.current", str(memory_bytes + 20 * MIB))

    def run_out_of_memory(self, *, own_limit):
        if self.version == 1:
            self.write("memory/memory.oom_control", "oom_kill 1")
            self.write("memory/memory.failcnt", "9" if own_limit else "0")
        else:
            self.write("memory.events", f"oom {int(own_limit)}\noom_kill 1")


@pytest.fixture(params=[1, 2])
def groups(request, tmp_path):
    return Groups(tmp_path, request.param)


@pytest.fixture
def cgroup(groups):
    found = find_cgroup(ID, 77, groups.root)
    assert found is not None
    return found


def test_what_a_container_uses_is_read(cgroup):
    reading = cgroup.read()

    assert reading.cpu_seconds == 1.5
    assert reading.memory_bytes == 30 * MIB
    assert reading.peak_memory_bytes == 60 * MIB
    assert (reading.disk_read_bytes, reading.disk_written_bytes) == (8192, 100)
    assert reading.pids == 3


def test_process_is_charged_with_what_came_after_its_start(groups, cgroup):
    meter = ContainerMeter(cgroup)
    groups.use(cpu_seconds=4.0, memory_bytes=45 * MIB)

    sample, usage = meter.sample(), meter.usage()

    assert usage.cpu_time == timedelta(seconds=2.5)
    assert sample.memory_bytes == 45 * MIB
    assert (usage.disk_read_bytes, usage.disk_written_bytes) == (0, 0)


def test_totals_outlive_the_container(groups, cgroup):
    meter = ContainerMeter(cgroup)
    groups.use(cpu_seconds=4.0, memory_bytes=45 * MIB)
    before = meter.usage()

    for file in groups.root.glob(f"sys/fs/cgroup/**/docker/{ID}/*"):
        file.unlink()

    assert meter.usage() == before


@pytest.mark.parametrize("own_limit", [True, False])
def test_own_limit_is_told_from_the_machines(groups, cgroup, own_limit):
    meter = ContainerMeter(cgroup)
    assert not meter.was_killed_for_memory()

    groups.run_out_of_memory(own_limit=own_limit)

    assert meter.was_killed_for_memory()
    assert meter.hit_its_limit() is own_limit


def test_limit_counts_as_hit_where_the_kernel_does_not_count_but_memory_came_up_to_it(tmp_path):
    groups = Groups(tmp_path, 1)
    meter = ContainerMeter(find_cgroup(ID, 77, tmp_path))

    groups.write("memory/memory.max_usage_in_bytes", str(100 * MIB))
    groups.write("memory/memory.oom_control", "oom_kill 1")

    assert meter.was_killed_for_memory()
    assert meter.hit_its_limit()


def test_highest_memory_is_the_kernels_where_it_can_be_reset(tmp_path):
    groups = Groups(tmp_path, 1)
    meter = ContainerMeter(find_cgroup(ID, 77, tmp_path))
    assert groups.root.joinpath(f"sys/fs/cgroup/memory/docker/{ID}/memory.max_usage_in_bytes").read_text() == "0"

    groups.write("memory/memory.max_usage_in_bytes", str(90 * MIB))
    groups.use(cpu_seconds=2.0, memory_bytes=10 * MIB)

    assert meter.usage().peak_memory_bytes == 90 * MIB


def test_highest_memory_is_the_highest_seen_where_it_cannot_be_reset(tmp_path):
    groups = Groups(tmp_path, 2)
    (tmp_path / f"sys/fs/cgroup/docker/{ID}/memory.peak").unlink()  # before Linux 5.19; until 6.12 it takes no reset
    meter = ContainerMeter(find_cgroup(ID, 77, tmp_path))

    for memory_bytes in (70 * MIB, 10 * MIB):
        groups.use(cpu_seconds=2.0, memory_bytes=memory_bytes)
        meter.sample()

    assert meter.usage().peak_memory_bytes == 70 * MIB


def test_process_of_another_container_is_not_taken_for_it(groups):
    assert find_cgroup("deadbeef" * 8, 77, groups.root) is None


def test_groups_are_found_by_name_from_inside_a_container_which_sees_no_processes_of_others(groups):
    found = find_cgroup(ID, 78, groups.root)

    assert found is not None
    assert found.read() == find_cgroup(ID, 77, groups.root).read()


def test_nothing_is_known_without_control_groups():
    meter = ContainerMeter(None)

    assert meter.sample().memory_bytes == 0
    assert meter.usage().cpu_time == timedelta()
    assert not meter.was_killed_for_memory()
