"""What a value is expected to be: `{at_least: 3}`, `{matches: ^a}`, or simply another value."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleetest.common.suite.fields import refused
from fleetest.common.suite.problems import Fault, Hint, closest
from fleetest.worker.checks.json_values import ABSENT, named, same, shown, text_of, type_of
from fleetest.worker.checks.placeholders import Variables, filled, placeholders_in

__all__ = ["OPERATORS", "Check", "Verdict", "read_matcher"]

_TYPES: Final = ("string", "number", "integer", "boolean", "array", "object", "null")
_KEY: Final = "[key]"  # pydantic's mark for "the key, not the value"
_MOST_DIFFERENCES: Final = 60
_LONGEST_SHOWN: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """
    What became of a check.

    Args:
        message: what was expected, and what was found; empty when it holds.
    """

    holds: bool
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One operator and what it compares with, placeholders not yet filled."""

    operator: str
    operand: Any

    def judge(self, found: Any, variables: Variables) -> Verdict:
        """
        Raises:
            Missing: a placeholder has no value.
        """
        operand = filled(self.operand, variables)
        if problem := OPERATORS[self.operator].problem_of(operand):
            return Verdict(holds=False, message=f"{self.operator} {problem}")
        if OPERATORS[self.operator].holds(found, operand):
            return Verdict(holds=True)
        return Verdict(holds=False, message=_difference(self.operator, operand, found))


def read_matcher(value: Any) -> tuple[Check, ...]:
    """
    The checks that a value in a file stands for: a mapping holds operators, anything else is what must be equal.

    Raises:
        PydanticCustomError: it cannot be understood.
    """
    if not isinstance(value, dict):
        return (Check(operator="equals", operand=value),)
    faults = list(_faults(value))
    if faults:
        raise refused(*faults)
    return tuple(Check(operator=operator, operand=operand) for operator, operand in value.items())


def _faults(value: Mapping[str, Any]) -> Iterator[Fault]:
    if not value:
        yield Fault(message="must say what is expected", hint="A mapping that is empty is written {equals: {}}.")
    for name, operand in value.items():
        if name not in OPERATORS:
            yield Fault(message=f"'{name[:60]}' is not an operator", hint=_hint_for(name), path=(name, _KEY))
        elif not _waits(operand) and (problem := OPERATORS[name].problem_of(operand)):
            yield Fault(message=problem, path=(name,))


def _hint_for(name: str) -> Hint:
    near = closest(name, OPERATORS)

    def hint() -> str:
        known = near() if callable(near) else near
        return f"{known} A mapping to compare with is written {{equals: {{…}}}}."

    return hint


def _waits(operand: Any) -> bool:
    return isinstance(operand, str) and any(True for _ in placeholders_in(operand))


@dataclass(frozen=True, slots=True)
class _Operator:
    """
    Args:
        holds: of what was found, and the operand.
        problem_of: why an operand makes no sense; empty when it does.
    """

    holds: Callable[[Any, Any], bool]
    problem_of: Callable[[Any], str]


def _anything(_: Any) -> str:
    return ""


def _a_number(operand: Any) -> str:
    is_number = isinstance(operand, int | float) and not isinstance(operand, bool)
    return "" if is_number else f"must be a number, not {named(operand)}"


def _a_list(operand: Any) -> str:
    return "" if isinstance(operand, list) else f"must be a list, not {named(operand)}"


def _a_truth(operand: Any) -> str:
    return "" if isinstance(operand, bool) else f"must be true or false, not {named(operand)}"


def _an_expression(operand: Any) -> str:
    if not isinstance(operand, str):
        return f"must be a regular expression, not {named(operand)}"
    try:
        re.compile(operand)
    except (re.error, OverflowError, RecursionError) as error:
        return f"'{operand[:60]}' is not a regular expression: {error}"
    return ""


def _a_type(operand: Any) -> str:
    wrong = [each for each in (operand if isinstance(operand, list) else [operand]) if each not in _TYPES]
    return f"{named(wrong[0])} is not one of {', '.join(_TYPES)}" if wrong else ""


def _a_length(operand: Any) -> str:
    if not isinstance(operand, dict):
        return _a_number(operand)
    wrong = [name for name in operand if name not in _COMPARISONS]
    if wrong:
        return f"'{wrong[0][:60]}' is not one of {', '.join(_COMPARISONS)}"
    return next(filter(None, map(_a_number, operand.values())), "")


def _number(value: Any) -> float | None:
    """Headers are texts, also where they hold numbers."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _compares(compare: Callable[[float, float], bool]) -> Callable[[Any, Any], bool]:
    def holds(found: Any, operand: Any) -> bool:
        number = _number(found)
        return number is not None and compare(number, operand)

    return holds


def _contains(found: Any, operand: Any) -> bool:
    match found:
        case str():
            return text_of(operand) in found
        case list():
            return any(same(each, operand) for each in found)
        case dict() if isinstance(operand, dict):
            return all(key in found and same(found[key], each) for key, each in operand.items())
        case dict():
            return isinstance(operand, str) and operand in found
        case _:
            return False


def _has_length(found: Any, operand: Any) -> bool:
    if not isinstance(found, str | list | dict):
        return False
    if isinstance(operand, dict):
        return all(_COMPARISONS[name].holds(len(found), limit) for name, limit in operand.items())
    return bool(len(found) == operand)


def _has_type(found: Any, operand: Any) -> bool:
    kind = type_of(found)
    kinds = {kind, "number"} if kind == "integer" else {kind}
    return bool(kinds.intersection(operand if isinstance(operand, list) else [operand]))


_COMPARISONS: Final[Mapping[str, _Operator]] = {
    "less_than": _Operator(_compares(lambda found, limit: found < limit), _a_number),
    "at_most": _Operator(_compares(lambda found, limit: found <= limit), _a_number),
    "greater_than": _Operator(_compares(lambda found, limit: found > limit), _a_number),
    "at_least": _Operator(_compares(lambda found, limit: found >= limit), _a_number),
}

OPERATORS: Final[Mapping[str, _Operator]] = {
    "equals": _Operator(lambda found, operand: found is not ABSENT and same(found, operand), _anything),
    "not_equals": _Operator(lambda found, operand: found is ABSENT or not same(found, operand), _anything),
    "contains": _Operator(_contains, _anything),
    "not_contains": _Operator(lambda found, operand: not _contains(found, operand), _anything),
    "matches": _Operator(
        lambda found, operand: isinstance(found, str) and re.search(operand, found) is not None, _an_expression
    ),
    "one_of": _Operator(lambda found, operand: any(same(found, each) for each in operand), _a_list),
    "type": _Operator(_has_type, _a_type),
    "length": _Operator(_has_length, _a_length),
    "exists": _Operator(lambda found, operand: (found is not ABSENT) == operand, _a_truth),
    **_COMPARISONS,
}


_WORDS: Final = {
    "not_equals": "anything but",
    "contains": "to find in it",
    "not_contains": "not to find in it",
    "matches": "a match of",
}


def _difference(operator: str, operand: Any, found: Any) -> str:
    """What was expected and found; of two large values, where they differ."""
    if operator == "equals" and (lines := _diff(operand, found)):
        return "expected (-) and found (+) differ:\n" + "\n".join(lines)
    expected = {
        "equals": shown(operand),
        "exists": "something" if operand is True else "nothing",
    }.get(operator, f"{_WORDS.get(operator, operator.replace('_', ' '))} {shown(operand)}")
    length = f" of length {len(found)}" if operator == "length" and isinstance(found, str | list | dict) else ""
    return f"expected {_short(expected)}, found {_short(shown(found))}{length}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + " …"


def _diff(expected: Any, found: Any) -> list[str]:
    """By lines, when one of the two has several."""
    one, other = _lines(expected), _lines(found)
    if len(one) <= 1 and len(other) <= 1:
        return []
    lines = list(difflib.unified_diff(one, other, lineterm="", n=2))[2:]
    more = len(lines) - _MOST_DIFFERENCES
    return [*lines[:_MOST_DIFFERENCES], *([f"… and {more} lines more"] if more > 0 else [])]


def _lines(value: Any) -> list[str]:
    """Bounded: comparing costs the product of both."""
    text = value if isinstance(value, str) else shown(value, indent=2)
    return text.splitlines()[:2000]
