"""Where cases stand is what pytest itself finds out."""

from __future__ import annotations

import pytest

from fleetest.worker.resident.locations import Locations

pytest_plugins = ["pytester"]

_SUITE = """
import functools
import unittest
import pytest
from elsewhere import test_imported, wrapping

def test_plain(): ...

@pytest.mark.parametrize("n", [1, 2])
def test_parametrized(n): ...

@wrapping
def test_wrapped(): ...

test_partial = functools.partial(test_plain)

class TestClass:
    def test_method(self): ...
    @staticmethod
    def test_static(): ...
    @classmethod
    def test_of_class(cls): ...
    class TestInner:
        def test_deep(self): ...

class TestUnit(unittest.TestCase):
    def test_unit(self): ...

exec("def test_of_no_file(): ...")
"""
_ELSEWHERE = """
import functools

def wrapping(function):
    @functools.wraps(function)
    def wrapper(): function()
    return wrapper

def test_imported(): ...
"""


def test_locations_are_those_that_pytest_finds(pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\nasyncio_default_fixture_loop_scope = 'function'\n")
    pytester.makepyfile(elsewhere=_ELSEWHERE, test_all=_SUITE)
    expected = [item.location for item in pytester.inline_genitems()[0]]
    items = pytester.inline_genitems()[0]

    locations = Locations(str(pytester.path), str)
    places = [locations.of(item) for item in items]

    assert places == [("test_all.py", line + 1) for _, line, _ in expected]
    assert [vars(item)["location"] for item in items] == expected
    assert len(expected) == 12
