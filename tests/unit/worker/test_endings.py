from typing import Any

import pytest

from fleetest.worker.runners.endings import ending_of, signal_name
from fleetest.worker.runners.pytest_channel import DESCRIPTOR_LOST

NO_CHECKS = 'ERROR: Error importing plugin "fleetest.worker.checks.plugin": no; '
CHECKS_HINT = "checks run in the environment of their task: pip install 'fleetest[checks]' there"


@pytest.mark.parametrize(
    ("exit_code", "output", "collected", "words"),
    [
        (-11, "", True, "the interpreter was ended by SIGSEGV (Segmentation fault)"),
        (-9, "", False, "the interpreter was ended by SIGKILL: by the test itself, or the machine was out of memory"),
        (DESCRIPTOR_LOST, "", True, "a test closed the descriptor over which its session reports"),
        (3, "noise", True, "the interpreter ended with exit code 3 in the middle"),
        (0, "noise", False, "pytest ended with exit code 0 before it had collected its cases"),
        (4, "ERROR: usage: pytest\npytest: error: no --x\n  rootdir: /", False, "pytest: error: no --x"),
        (4, "ImportError while loading conftest 'c'.\nE   NameError: y\n", False, "ImportError while loading conftest 'c'.; NameError: y"),
        (2, "!!!! _pytest.outcomes.Exit: enough !!!!", False, "_pytest.outcomes.Exit: enough"),
        (4, 'ERROR: Error importing plugin "fleetest.worker.checks.plugin": no', False, f"{NO_CHECKS}{CHECKS_HINT}"),
    ],
)  # fmt: skip
def test_endings_are_put_into_words(exit_code: int, output: str, collected: Any, words: str) -> None:
    assert ending_of(exit_code, output, collected=collected) == words


@pytest.mark.parametrize(("number", "name"), [(15, "SIGTERM (Terminated)"), (60, "signal 60"), (500, "signal 500")])
def test_signals_have_names(number: int, name: str) -> None:
    assert signal_name(number) == name
