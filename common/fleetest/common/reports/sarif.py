"""
SARIF 2.1.0, as ZAP and static analysers write it.

Source: https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/sarif-v2.1.0-os.html, §3.27 (results), §3.49 (rules). Each
result is a case, named by its rule and its place without the line, so that it keeps its name when lines move. A run
without results is a case that passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from fleetest.common.reports.bounds import bounded, bounded_case, whole_number
from fleetest.common.reports.json_values import EACH, as_dict, as_list, as_text, json_values
from fleetest.common.reports.places import named_below
from fleetest.common.reports.ports import ReadOptions, Risk, Unreadable
from fleetest.common.results import CaseResult
from fleetest.common.states import Outcome

__all__ = ["read_sarif"]

_RUN: Final = ("runs", EACH)
_TOOL: Final = (*_RUN, "tool", "driver", "name")
_RULE: Final = (*_RUN, "tool", "driver", "rules", EACH)
_RESULT: Final = (*_RUN, "results", EACH)
_FRAME: Final = frozenset({_TOOL, _RULE})
_MOST_RULES: Final = 20_000
_MOST_RUNS: Final = 10_000
_LONGEST_TEXT: Final = 1000

_RISKS: Final = {"error": Risk.HIGH, "warning": Risk.MEDIUM, "note": Risk.LOW, "none": Risk.INFO}
_GOOD_KINDS: Final = frozenset({"pass", "informational"})
_NOT_ACCEPTED: Final = frozenset({"rejected", "underReview"})


@dataclass(frozen=True, slots=True)
class _Rule:
    rule_id: str
    level: str
    text: str


@dataclass(slots=True)
class _Run:
    """What is said once for a run, before its results or after them."""

    tool: str = ""
    rules: list[_Rule] = field(default_factory=list)
    by_id: dict[str, _Rule] = field(default_factory=dict)
    results: int = 0

    def add(self, rule: _Rule) -> None:
        self.rules.append(rule)
        self.by_id.setdefault(rule.rule_id, rule)

    def rule_of(self, result: Mapping[str, Any]) -> _Rule:
        """By its id, or that of the rule it is a kind of (`CA1000/1`), or its place among the rules."""
        reference = as_dict(result.get("rule"))
        rule_id = as_text(result.get("ruleId")) or as_text(reference.get("id"))
        for known in (rule_id, rule_id.rpartition("/")[0]):
            if known in self.by_id:
                return self.by_id[known]
        index = result.get("ruleIndex", reference.get("index"))
        if isinstance(index, int) and 0 <= index < len(self.rules):
            return self.rules[index]
        return _Rule(rule_id, "", "")


def read_sarif(stream: BinaryIO, options: ReadOptions) -> Iterator[CaseResult]:
    """Fulfils `ReportReader`. Reads the report twice."""
    runs: dict[int, _Run] = {}
    broken: Unreadable | None = None
    try:
        _read_frames(stream, runs)
    except Unreadable as error:  # whatever results come before that are read all the same
        broken = error
    stream.seek(0)
    for each in json_values(stream, lambda path: path == _RESULT):
        run = runs.setdefault(each.places[0], _Run())
        run.results += 1
        yield _case(as_dict(each.value), run, options)
    if broken is not None:
        raise broken
    if not runs:
        raise Unreadable("not a SARIF report: it has no `runs` with a `tool` or with `results`")
    for run in runs.values():
        if not run.results:
            yield bounded_case(case_id=f"{run.tool}::(no results)", outcome=Outcome.PASSED)


def _read_frames(stream: BinaryIO, runs: dict[int, _Run]) -> None:
    rules = 0
    for each in json_values(stream, lambda path: path in _FRAME):
        run = runs.setdefault(each.places[0], _Run())
        rules += each.path == _RULE
        if rules > _MOST_RULES or len(runs) > _MOST_RUNS:
            raise Unreadable(f"more than {_MOST_RULES} rules, or {_MOST_RUNS} runs")
        if each.path == _RULE:
            run.add(_rule(as_dict(each.value)))
        else:
            run.tool = as_text(each.value)[:_LONGEST_TEXT]


def _rule(rule: Mapping[str, Any]) -> _Rule:
    text = _message(rule.get("fullDescription")) or _message(rule.get("shortDescription")) or as_text(rule.get("name"))
    return _Rule(
        rule_id=as_text(rule.get("id"))[:_LONGEST_TEXT],
        level=as_text(as_dict(rule.get("defaultConfiguration")).get("level")),
        text=bounded(text, _LONGEST_TEXT),
    )


def _case(result: Mapping[str, Any], run: _Run, options: ReadOptions) -> CaseResult:
    rule = run.rule_of(result)
    kind = as_text(result.get("kind")) or "fail"
    level = as_text(result.get("level")) or (rule.level if kind == "fail" else "none") or "warning"
    risk = _RISKS.get(level, Risk.MEDIUM)
    outcome, message = _outcome(result, kind, risk, options)
    said = _message(result.get("message")) or rule.text
    file, line, region = _place(result)
    file = named_below(file, options.root)
    rule_id = as_text(result.get("ruleId")) or rule.rule_id or run.tool or "result"
    return bounded_case(
        case_id="::".join(filter(None, (rule_id, file))),
        outcome=outcome,
        message=message or said,
        details="\n\n".join(filter(None, (said, rule.text if rule.text != said else "", region))),
        file=file,
        line=line,
        properties={"level": level, "risk": risk.value, **({"tool": run.tool} if run.tool else {})},
    )


def _outcome(result: Mapping[str, Any], kind: str, risk: Risk, options: ReadOptions) -> tuple[Outcome, str]:
    suppressions = [as_dict(each) for each in as_list(result.get("suppressions"))]
    if suppressions and not any(as_text(each.get("status")) in _NOT_ACCEPTED for each in suppressions):
        why = next(filter(None, (as_text(each.get("justification")) for each in suppressions)), "")
        return Outcome.SKIPPED, f"suppressed: {why}" if why else "suppressed"
    if kind == "notApplicable":
        return Outcome.SKIPPED, "does not apply"
    if kind in _GOOD_KINDS or as_text(result.get("baselineState")) == "absent":
        return Outcome.PASSED, ""
    if kind in {"open", "review"}:  # no level is given for what nobody has judged yet
        return Outcome.FAILED, ""
    return Outcome.FAILED if risk.rank >= options.fail_level.rank else Outcome.PASSED, ""


def _place(result: Mapping[str, Any]) -> tuple[str, int, str]:
    """The file or the URL, the line, and what stands there."""
    places = as_list(result.get("locations"))
    physical = as_dict(as_dict(places[0] if places else None).get("physicalLocation"))
    region = as_dict(physical.get("region"))
    uri = as_text(as_dict(physical.get("artifactLocation")).get("uri"))
    snippet = as_text(as_dict(region.get("snippet")).get("text"))
    return uri, whole_number(region.get("startLine")), snippet


def _message(value: Any) -> str:
    message = as_dict(value)
    return as_text(message.get("text")) or as_text(message.get("markdown"))
