from __future__ import annotations

import sys
from datetime import UTC, datetime

import pytest

from fleetest.common.clock import SystemClock
from fleetest.common.tasks import Resources
from fleetest.worker.capabilities import find_capabilities
from fleetest.worker.cgroup import Cgroup, read_cgroup
from fleetest.worker.host import LocalHost, capacity_of, default_slots

GIB = 1 << 30


def found(tmp_path, **settings):
    defaults = {
        "executors": ["process"],
        "labels": {},
        "search_path": str(tmp_path / "bin"),
        "devices": tmp_path / "dev",
    }
    capacity = Resources(cpu_millis=2500, memory_bytes=15 * GIB + 5, disk_bytes=100 * GIB)
    return find_capabilities(capacity, **(defaults | settings))


def program(tmp_path, name, mode=0o755):
    file = tmp_path / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("#!/bin/sh\n")
    file.chmod(mode)


def test_bare_machine_offers_what_every_machine_has(tmp_path):
    capabilities = found(tmp_path)

    assert capabilities == {
        "os": {"darwin": "macos"}.get(sys.platform, sys.platform),
        "arch": capabilities["arch"],
        "cpu": "2",
        "memory": "15GiB",
        "disk": "100GiB",
        "python": f"3.{sys.version_info.minor}",
        "executor": "process",
        "executor.process": "true",
    }


def test_programs_on_the_search_path_are_found(tmp_path):
    for name in ("python3.8", "python3.12", "python3.12-config", "chromium", "nvidia-smi"):
        program(tmp_path, name)
    program(tmp_path, "python3.9", mode=0o644)

    capabilities = found(tmp_path)

    assert {key for key in capabilities if key.startswith("python3")} == {"python3.8", "python3.12"}
    assert (capabilities["browser"], capabilities["gpu"]) == ("chromium", "nvidia")


def test_browsers_are_the_systems_and_playwrights_own(tmp_path):
    for folder in ("firefox-1500", "webkit-2200", "ffmpeg-1013", ".links"):
        (tmp_path / "ms-playwright" / folder).mkdir(parents=True)

    own = found(tmp_path, playwright=tmp_path / "ms-playwright")
    program(tmp_path, "google-chrome")
    both = found(tmp_path, playwright=tmp_path / "ms-playwright")
    (tmp_path / "small" / "chromium_headless_shell-1200").mkdir(parents=True)
    small = found(tmp_path, playwright=tmp_path / "small", search_path="")

    assert {key: value for key, value in own.items() if "browser" in key} == {
        "browser": "firefox",
        "browser.firefox": "true",
        "browser.webkit": "true",
    }
    assert (both["browser"], both["browser.chromium"], both["chromium"]) == ("chromium", "true", "true")
    assert (small["browser"], small["chromium"]) == ("chromium", "true")
    assert "browser" not in found(tmp_path, playwright=tmp_path / "absent", search_path="")


def test_gpu_is_found_by_its_device(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()

    assert found(tmp_path)["gpu"] == "nvidia"


def test_label_wins_over_what_was_found(tmp_path):
    capabilities = found(tmp_path, labels={"os": "minix", "zone": "eu"})

    assert (capabilities["os"], capabilities["zone"]) == ("minix", "eu")


def test_engine_is_offered_with_its_version(tmp_path):
    capabilities = found(tmp_path, executors=["process", "docker"], engine_version="28.5.1")

    assert (capabilities["docker"], capabilities["executor.docker"]) == ("28.5.1", "true")


def control_group(root, line, files):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(line)
    for path, content in files.items():
        file = root / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return read_cgroup(root)


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        (
            "0::/pod/box\n",
            {"pod/box/cpu.max": "max 100000", "pod/cpu.max": "150000 100000\n", "pod/box/memory.max": "1000\n"},
            Cgroup(cpu_millis=1500, memory_bytes=1000),
        ),
        ("0::/\n", {"cpu.max": "50000 100000", "memory.max": "max"}, Cgroup(cpu_millis=500)),
        (
            "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
            {
                "memory/memory.limit_in_bytes": "2000",
                "memory/docker/abc/memory.limit_in_bytes": str(2**63 - 4096),
                "cpu/docker/abc/cpu.cfs_quota_us": "200000",
                "cpu/docker/abc/cpu.cfs_period_us": "100000",
            },
            Cgroup(cpu_millis=2000, memory_bytes=2000),
        ),
        (
            "1:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            Cgroup(),
        ),
        ("0::/gone\n", {}, Cgroup()),
    ],
)
def test_limits_of_the_control_group_are_read(tmp_path, line, files, expected):
    assert control_group(tmp_path, line, files) == expected


def test_machine_without_control_groups_has_no_limits(tmp_path):
    assert read_cgroup(tmp_path) == Cgroup()


def test_capacity_is_the_machines_within_its_limits(tmp_path):
    whole = capacity_of(tmp_path, Cgroup())
    limited = capacity_of(tmp_path, Cgroup(cpu_millis=500, memory_bytes=GIB))

    assert whole.cpu_millis >= 1000
    assert whole.cpu_millis % 1000 == 0
    assert whole.disk_bytes > 0
    assert (limited.cpu_millis, limited.memory_bytes) == (500, GIB)


@pytest.mark.parametrize(
    ("cores", "memory_bytes", "slots"), [(16, 64 * GIB, 5), (2, 64 * GIB, 2), (16, GIB, 2), (0.5, 1, 1)]
)
def test_slots_are_five_unless_cpu_or_memory_is_short(cores, memory_bytes, slots):
    capacity = Resources(cpu_millis=int(cores * 1000), memory_bytes=memory_bytes)

    assert default_slots(capacity) == slots


def test_host_is_measured():
    host = LocalHost(SystemClock())

    sample = host.sample()

    assert sample.memory_bytes > 0
    assert sample.cpu_cores >= 0
    assert min(sample.disk_read_bytes, sample.network_sent_bytes) >= 0
    assert (datetime.now(UTC) - sample.at).total_seconds() < 60
    assert host.memory_is_short() in {True, False}
