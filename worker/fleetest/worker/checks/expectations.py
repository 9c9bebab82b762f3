"""Holds a response against what is expected of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fleetest.common.results import Assertion
from fleetest.common.suite.durations import format_duration
from fleetest.common.suite.tree import WrittenFloat, WrittenInt
from fleetest.worker.checks.exchange import Exchange
from fleetest.worker.checks.json_paths import at_path
from fleetest.worker.checks.json_values import ABSENT, shown
from fleetest.worker.checks.matchers import Check, Verdict
from fleetest.worker.checks.model import ExpectModel, StepModel
from fleetest.worker.checks.placeholders import Missing, Variables, filled
from fleetest.worker.checks.schemas import JsonSchema

__all__ = ["judge"]


def judge(
    expect: ExpectModel, exchange: Exchange, step: StepModel, variables: Variables, schema: JsonSchema | None
) -> list[Assertion]:
    """Every expectation, met or not."""
    return list(_Judge(expect, exchange, step, variables, schema).run())


class _Judge:
    def __init__(
        self, expect: ExpectModel, exchange: Exchange, step: StepModel, variables: Variables, schema: JsonSchema | None
    ) -> None:
        self._expect = expect
        self._exchange = exchange
        self._step = step
        self._variables = variables
        self._schema = schema

    def run(self) -> Iterator[Assertion]:
        expect, exchange = self._expect, self._exchange
        if self._step.subscribe is None:
            yield _status(expect.status, exchange)
        if expect.latency is not None:
            yield _latency(exchange, expect)
        for name, checks in expect.headers.items():
            found = exchange.header(name)
            yield from self._check(f"header {name}", _of_header(checks), ABSENT if found is None else found)
        if expect.text:
            yield from self._check("text", expect.text, exchange.text)
        for path, checks in expect.json_.items():
            yield from self._at_path(path, checks)
        if self._schema is not None:
            yield self._against_schema(self._schema)
        if self._step.operation is not None:
            yield from self._graphql()

    def _check(self, name: str, checks: Sequence[Check], found: Any) -> Iterator[Assertion]:
        for check in checks:
            full_name = name if check.operator == "equals" else f"{name} {check.operator.replace('_', ' ')}"
            try:
                verdict = check.judge(found, self._variables)
            except Missing as error:
                verdict = Verdict(holds=False, message=str(error))
            yield Assertion(name=full_name, passed=verdict.holds, message=verdict.message)

    def _at_path(self, path: str, checks: Sequence[Check]) -> Iterator[Assertion]:
        try:
            actual_path = str(filled(path, self._variables))
            found = at_path(actual_path, self._exchange.json())
        except (Missing, ValueError) as error:
            yield Assertion(name=path, passed=False, message=str(error))
        else:
            yield from self._check(actual_path, checks, found)

    def _against_schema(self, schema: JsonSchema) -> Assertion:
        try:
            problems = schema.problems(self._exchange.json())
        except ValueError as error:
            problems = [str(error)]
        return Assertion(name="schema", passed=not problems, message="\n".join(problems))

    def _graphql(self) -> Iterator[Assertion]:
        """Errors are none of a response that says nothing of them, and must be expected."""
        try:
            body = self._exchange.json()
        except ValueError as error:
            yield Assertion(name="response", passed=False, message=str(error))
            return
        if self._step.subscribe is not None:
            data: Any = [each.get("data") for each in body if isinstance(each, dict)]
            errors: Any = [one for each in body if isinstance(each, dict) for one in each.get("errors") or ()] or ABSENT
        elif isinstance(body, dict):
            data, errors = body.get("data", ABSENT), body.get("errors", ABSENT)
        else:
            yield Assertion(name="response", passed=False, message=f"expected a mapping, found {shown(body)[:500]}")
            return
        if self._expect.errors:
            yield from self._check("errors", self._expect.errors, errors)
        else:
            message = "" if errors is ABSENT else f"expected none, found {shown(errors, indent=2)}"
            yield Assertion(name="errors", passed=errors is ABSENT, message=message)
        if self._expect.data:
            yield from self._check("data", self._expect.data, data)


def _status(expected: Sequence[str], exchange: Exchange) -> Assertion:
    found = str(exchange.status)
    passed = any(each in {found, "any", f"{found[0]}xx"} for each in expected)
    message = "" if passed else f"expected {' or '.join(expected)}, found {found} {exchange.reason}".rstrip()
    return Assertion(name="status", passed=passed, message=message)


def _latency(exchange: Exchange, expect: ExpectModel) -> Assertion:
    assert expect.latency is not None
    passed = exchange.elapsed <= expect.latency
    found = f"{exchange.elapsed.total_seconds() * 1000:.0f} ms"
    message = "" if passed else f"expected at most {format_duration(expect.latency)}, found {found}"
    return Assertion(name="latency", passed=passed, message=message)


def _of_header(checks: Sequence[Check]) -> list[Check]:
    """A header is a text, also where what it is compared with was written as a number."""
    return [
        Check(operator=check.operator, operand=check.operand.text)
        if check.operator in {"equals", "not_equals"} and isinstance(check.operand, WrittenInt | WrittenFloat)
        else check
        for check in checks
    ]
