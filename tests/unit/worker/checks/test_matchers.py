from __future__ import annotations

import pytest
from pydantic_core import PydanticCustomError

from fleetest.worker.checks.json_values import ABSENT
from fleetest.worker.checks.matchers import read_matcher
from fleetest.worker.checks.placeholders import Variables

NOTHING = Variables({}, env={})


def judged(matcher, found):
    return [check.judge(found, NOTHING) for check in read_matcher(matcher)]


@pytest.mark.parametrize(
    ("matcher", "holding", "failing"),
    [
        (1, [1, 1.0], [True, "1", 2, None, ABSENT]),
        (True, [True], [1, False]),
        (None, [None], [ABSENT, 0]),
        ([1, {"a": [2]}], [[1, {"a": [2.0]}]], [[1], [1, {"a": [2], "b": 1}]]),
        ({"equals": {}}, [{}], [[], None]),
        ({"not_equals": 1}, [2, ABSENT], [1]),
        ({"contains": "b"}, ["abc", ["b"], {"b": 1}], ["ac", [["b"]], 5, ABSENT]),
        ({"contains": {"a": 1}}, [{"a": 1, "b": 2}, [{"a": 1}]], [{"a": 2}]),
        ({"not_contains": 3}, [[1], "12", ABSENT], [[3], "43"]),
        ({"matches": "^a+$"}, ["aa"], ["ab", 5, ABSENT]),
        ({"one_of": [1, "x"]}, [1, "x"], [True, ABSENT]),
        ({"type": "number"}, [1, 1.5], [True, "1", None]),
        ({"type": ["null", "array"]}, [None, []], [{}, ABSENT]),
        ({"length": 2}, ["ab", [1, 2], {"a": 1, "b": 2}], ["a", 22, ABSENT]),
        ({"length": {"at_least": 1, "less_than": 3}}, [[1]], [[], [1, 2, 3]]),
        ({"exists": True}, [None, 0], [ABSENT]),
        ({"exists": False}, [ABSENT], [None]),
        ({"less_than": 3}, [2, "2.5"], [3, "x", True, None]),
        ({"at_most": 3}, [3], [3.1]),
        ({"greater_than": 3}, [4], [3]),
        ({"at_least": 3}, [3], [2]),
    ],
)
def test_operators_hold_for_what_they_mean_and_nothing_else(matcher, holding, failing):
    assert [found for found in holding if not all(verdict.holds for verdict in judged(matcher, found))] == []
    assert [found for found in failing if all(verdict.holds for verdict in judged(matcher, found))] == []


def test_difference_of_large_values_is_shown_by_lines():
    (verdict,) = judged([1, 2, 3], [1, 2, 4])

    assert verdict.message.splitlines()[-3:] == ["-  3", "+  4", " ]"]


def test_difference_of_small_values_is_shown_on_one_line():
    (verdict,) = judged({"length": 2}, "abc")

    assert verdict.message == 'expected length 2, found "abc" of length 3'


@pytest.mark.parametrize(
    ("matcher", "message"),
    [
        ({"equal": 1}, "'equal' is not an operator"),
        ({}, "must say what is expected"),
        ({"matches": "("}, "'(' is not a regular expression"),
        ({"type": "text"}, "text 'text' is not one of string"),
        ({"length": "three"}, "must be a number, not text 'three'"),
        ({"length": {"about": 3}}, "'about' is not one of less_than"),
        ({"one_of": 1}, "must be a list, not 1"),
        ({"exists": "yes"}, "must be true or false"),
    ],
)
def test_matcher_that_makes_no_sense_is_refused(matcher, message):
    with pytest.raises(PydanticCustomError) as caught:
        read_matcher(matcher)

    (fault,) = caught.value.context["faults"]
    assert message in fault.message
