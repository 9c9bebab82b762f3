from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from importlib.util import find_spec

import pytest

from fleetest.common.tuning import loop_factory, settle


@pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed")
def test_a_server_uses_the_fast_loop_where_it_is() -> None:
    async def name() -> str:
        return type(asyncio.get_running_loop()).__module__

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        assert runner.run(name()).startswith("uvloop")


def test_a_server_without_the_fast_loop_uses_pythons_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)

    assert loop_factory() is None


def test_a_command_that_ends_loses_nothing_that_it_has_said() -> None:
    code = "import atexit; from fleetest.common.tuning import leave; atexit.register(print, 'late'); print('said'); leave(3)"

    left = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (left.returncode, left.stdout, left.stderr) == (3, "said\n", "")


def test_settling_keeps_what_is_loaded_out_of_collections() -> None:
    before = sys.getswitchinterval(), gc.get_threshold()
    try:
        settle()

        assert gc.get_freeze_count() > 0
        assert sys.getswitchinterval() < before[0]
    finally:
        gc.unfreeze()
        gc.set_threshold(*before[1])
        sys.setswitchinterval(before[0])
