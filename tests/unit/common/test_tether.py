"""A tethered process ends with the one that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleetest.common.tether import TETHER_VARIABLE, tether_to_parent

CHILD = """
import os, sys, time
from fleetest.common.tether import tether_to_parent
tether_to_parent(os.environ)
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(60)
"""
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]], env={**os.environ, sys.argv[3]: str(os.getpid())})
time.sleep(60)
"""


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_it_ends_when_its_parent_is_killed(tmp_path: Path, platform: str) -> None:
    pid_file = tmp_path / "pid"
    child_there = f"import sys; sys.platform = {platform!r}\n{CHILD}"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, child_there, str(pid_file), TETHER_VARIABLE])
    try:
        wait_for(lambda: pid_file.exists() and pid_file.read_text())
        child = int(pid_file.read_text())
    finally:
        parent.kill()
        parent.wait()

    wait_for(lambda: not is_alive(child))


def test_it_ends_at_once_when_its_parent_is_gone_already(tmp_path: Path) -> None:
    environment = {**os.environ, TETHER_VARIABLE: "1"}  # somebody else's child

    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "pid")], env=environment, timeout=30, check=False
    )

    assert child.returncode == -signal.SIGTERM


def test_without_a_name_nothing_happens() -> None:
    tether_to_parent({})
    tether_to_parent({TETHER_VARIABLE: "nobody"})


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(holds) -> None:  # type: ignore[no-untyped-def]  # any callable
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
