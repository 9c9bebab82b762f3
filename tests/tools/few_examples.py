"""
A plugin for pytest that leaves out repetition: each test whose input Hypothesis makes up gets one example, and one that
would run thousands of times, to find a race, runs once. Which cases a suite runs, and whether they pass, is the same,
but for one of werkzeug's: its URL of ten thousand parts takes as long as all others of that suite.
"""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["pytest_collection_modifyitems", "pytest_generate_tests"]

_MANY = 1000
_LONG = "tests/test_routing.py::test_long_build"

try:
    from hypothesis import Phase, settings
except ModuleNotFoundError:
    pass
else:
    settings.register_profile("few", max_examples=1, phases=[Phase.explicit, Phase.generate], database=None)
    settings.load_profile("few")


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: Any) -> None:
    marks = metafunc.definition.own_markers
    for index, mark in enumerate(marks):
        if mark.name == "parametrize" and isinstance(mark.args[1], range) and len(mark.args[1]) >= _MANY:
            marks[index] = pytest.mark.parametrize(mark.args[0], mark.args[1][:1]).mark


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    long = [item for item in items if item.nodeid == _LONG]
    if long:
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)
