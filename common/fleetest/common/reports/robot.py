"""
Robot Framework's `output.xml`, as versions 2 to 7 write it.

Source: doc/schema of robotframework/robotframework. Before 7.0 a status had `starttime` and `endtime`
(`20260102 03:04:05.678`), since then `start` and `elapsed` (ISO 8601 and seconds).

The file is written while tests run, so what becomes of a test when the teardown of its suite fails is not in it: the
failed teardown is a case of its own here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, Final

from fleetest.common.reports.bounds import (
    BoundedText,
    bounded,
    bounded_case,
    instant,
    milliseconds,
    seconds,
    whole_number,
)
from fleetest.common.reports.places import named_below
from fleetest.common.reports.ports import ReadOptions, Unreadable
from fleetest.common.reports.xml_events import xml_cases
from fleetest.common.results import CaseResult
from fleetest.common.states import Outcome

__all__ = ["read_robot"]

_CONTROLS: Final = frozenset(
    {
        "branch",
        "break",
        "continue",
        "error",
        "for",
        "foritem",
        "group",
        "if",
        "iter",
        "return",
        "try",
        "variable",
        "while",
    }
)
_OUTCOMES: Final = {"PASS": Outcome.PASSED, "FAIL": Outcome.FAILED, "SKIP": Outcome.SKIPPED, "NOT RUN": Outcome.SKIPPED}
_QUIET: Final = frozenset({"TRACE", "DEBUG"})
_AROUND: Final = frozenset({"setup", "teardown"})
_PARENT_SETUP: Final = ("Parent suite setup failed", "Setup failed")
_MOST_FAILURES: Final = 20
_MOST_ARGUMENTS: Final = 5
_MOST_TAGS: Final = 200
_TIMES: Final = ("start", "elapsed", "starttime", "endtime", "elapsedtime")
_LONGEST_TIME: Final = 40
_LONGEST_LABEL: Final = 200
_LONGEST_WAY: Final = 2000


def read_robot(stream: BinaryIO, options: ReadOptions) -> Iterator[CaseResult]:
    """Fulfils `ReportReader`."""
    return xml_cases(stream, _Robot(options))


@dataclass(slots=True)
class _Status:
    """Its times are worked out when they are asked for: most steps are of no interest."""

    status: str = ""
    times: Mapping[str, str] = field(default_factory=dict)
    message: BoundedText = field(default_factory=BoundedText)

    @property
    def started_at(self) -> datetime | None:
        given = self.times
        return instant(given["start"]) if "start" in given else _old_time(given.get("starttime", ""))

    @property
    def duration(self) -> timedelta:
        given = self.times
        if "elapsed" in given:
            return seconds(given["elapsed"])
        if took := milliseconds(whole_number(given.get("elapsedtime", ""))):
            return took
        start, end = self.started_at, _old_time(given.get("endtime", ""))
        return max(timedelta(), end - start) if start is not None and end is not None else timedelta()


@dataclass(slots=True)
class _Step:
    """A keyword or a control structure; `failures` are the ways down to what failed in it."""

    kind: str
    label: str
    arguments: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    status: _Status = field(default_factory=_Status)


@dataclass(slots=True)
class _Suite:
    """`name` has the names of those around it."""

    name: str
    source: str
    status: _Status = field(default_factory=_Status)


@dataclass(slots=True)
class _Test:
    name: str
    line: int
    status: _Status = field(default_factory=_Status)
    tags: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    failed_kinds: set[str] = field(default_factory=set)
    log: BoundedText = field(default_factory=BoundedText)


class _Robot:
    """Fulfils `XmlHandler`."""

    def __init__(self, options: ReadOptions) -> None:
        self._options = options
        self._path: list[str] = []
        self._suites: list[_Suite] = []
        self._test: _Test | None = None
        self._steps: list[_Step] = []
        self._sink: BoundedText | None = None
        self._done: list[CaseResult] = []

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if not self._path and tag != "robot":
            raise Unreadable(f"not a Robot Framework output: its root is <{tag}>")
        self._path.append(tag)
        if len(self._path) > 1 and self._path[1] in {"statistics", "errors"}:
            return
        self._sink = None
        if tag == "kw" or tag in _CONTROLS:
            self._steps.append(_Step(_kind(tag, attributes), _label(tag, attributes)))
        elif tag == "suite":
            above = self._suites[-1].name if self._suites else ""
            name = ".".join(filter(None, (above, attributes.get("name", ""))))
            self._suites.append(
                _Suite(bounded(name, _LONGEST_WAY), bounded(attributes.get("source", ""), _LONGEST_WAY))
            )
        elif tag == "test":
            self._test = _Test(bounded(attributes.get("name", "")), whole_number(attributes.get("line", "")))
        elif tag == "status":
            self._start_status(attributes)
        else:
            self._start_text(tag, attributes)

    def text(self, text: str) -> None:
        if self._sink is not None:
            self._sink.add(text)

    def end(self, tag: str) -> None:
        self._path.pop()
        if len(self._path) > 1 and self._path[1] in {"statistics", "errors"}:
            return
        sink, self._sink = self._sink, None
        if tag == "arg" and sink and self._steps:
            self._steps[-1].arguments.append(str(sink)[:_LONGEST_LABEL])
        elif tag == "tag" and sink and self._test is not None:
            self._test.tags.append(str(sink)[:_LONGEST_LABEL])
        elif tag == "msg" and sink is not None and self._test is not None:
            sink.add("\n")
        elif self._steps and (tag == "kw" or tag in _CONTROLS):
            self._end_step(self._steps.pop())
        elif tag == "test" and self._test is not None:
            self._end_test(self._test)
            self._test = None
        elif tag == "suite" and self._suites:
            self._suites.pop()

    def take(self) -> Iterable[CaseResult]:
        done, self._done = self._done, []
        return done

    # -- what begins

    def _start_status(self, attributes: Mapping[str, str]) -> None:
        holder: _Step | _Test | _Suite | None = self._steps[-1] if self._steps else self._test
        if holder is None and self._suites:
            holder = self._suites[-1]
        if holder is not None:
            times = {name: attributes[name][:_LONGEST_TIME] for name in _TIMES if name in attributes}
            holder.status = _Status(attributes.get("status", "")[:20], times)
            self._sink = holder.status.message

    def _start_text(self, tag: str, attributes: Mapping[str, str]) -> None:
        if (tag == "arg" and self._steps and len(self._steps[-1].arguments) < _MOST_ARGUMENTS) or (
            tag == "tag" and self._test is not None and not self._steps and len(self._test.tags) < _MOST_TAGS
        ):
            self._sink = BoundedText()
        elif tag == "msg" and self._test is not None and attributes.get("level", "INFO") not in _QUIET:
            self._sink = self._test.log
            self._sink.add(f"{attributes.get('level', 'INFO')[:20]}: ")

    # -- what has ended

    def _end_step(self, step: _Step) -> None:
        if step.status.status != "FAIL":  # what failed in it was caught
            return
        label = "    ".join([step.label, *step.arguments])[:_LONGEST_LABEL]
        ways = [_further(step.label, way) for way in step.failures] if step.failures else [label]
        if self._steps:
            _add_failures(self._steps[-1].failures, ways)
        elif self._test is not None:
            _add_failures(self._test.failures, ways)
            self._test.failed_kinds.add(step.kind)
        elif step.kind == "teardown":
            self._end_suite_teardown(step, ways)

    def _end_suite_teardown(self, step: _Step, ways: list[str]) -> None:
        message = str(step.status.message)
        self._done.append(
            bounded_case(
                case_id=f"{self._suite_name}::(suite teardown)",
                outcome=Outcome.ERROR,
                duration=step.status.duration,
                started_at=step.status.started_at,
                file=self._file,
                message=message or "the suite's teardown failed",
                details=_details(message, ways),
            )
        )

    def _end_test(self, test: _Test) -> None:
        outcome = _OUTCOMES.get(test.status.status, Outcome.ERROR)
        message = str(test.status.message)
        if test.status.status not in _OUTCOMES:
            message = message or "the test has no status: its run was cut short"
        elif outcome is Outcome.FAILED and (
            (test.failed_kinds and test.failed_kinds <= _AROUND) or message.startswith(_PARENT_SETUP)
        ):
            outcome = Outcome.ERROR
        self._done.append(
            bounded_case(
                case_id="::".join(filter(None, (self._suite_name, test.name))),
                outcome=outcome,
                duration=test.status.duration,
                started_at=test.status.started_at,
                file=self._file,
                line=test.line,
                properties={"tags": ", ".join(test.tags)} if test.tags else {},
                message=message.replace(":\n", ": ", 1),  # as in `Setup failed:`
                details=_details(message, test.failures) if outcome.bad else "",
                log=str(test.log) if outcome.bad else "",
            )
        )

    @property
    def _suite_name(self) -> str:
        return self._suites[-1].name if self._suites else ""

    @property
    def _file(self) -> str:
        source = next((suite.source for suite in reversed(self._suites) if suite.source), "")
        return named_below(source, self._options.root)


def _kind(tag: str, attributes: Mapping[str, str]) -> str:
    return attributes.get("type", "kw").lower() if tag == "kw" else tag


def _label(tag: str, attributes: Mapping[str, str]) -> str:
    """As in Robot's log: a keyword by the name it is called by, a control structure by its word."""
    if tag != "kw":
        return " ".join(filter(None, (tag.upper(), attributes.get("type", ""), attributes.get("condition", ""))))[
            :_LONGEST_LABEL
        ]
    owner = attributes.get("owner") or attributes.get("library", "")
    kind = attributes.get("type", "").lower()
    label = ".".join(filter(None, (owner, attributes.get("name", ""))))[:_LONGEST_LABEL]
    return f"{kind.capitalize()}: {label}" if kind in _AROUND else label


def _old_time(text: str) -> datetime | None:
    try:
        return instant(datetime.strptime(text, "%Y%m%d %H:%M:%S.%f").astimezone(UTC).isoformat())
    except (ValueError, OverflowError, OSError):
        return None


def _further(label: str, way: str) -> str:
    return f"{label} > {way}" if len(way) < _LONGEST_WAY else way


def _add_failures(failures: list[str], ways: Iterable[str]) -> None:
    failures.extend(list(ways)[: max(0, _MOST_FAILURES - len(failures))])


def _details(message: str, ways: Iterable[str]) -> str:
    return "\n".join([message, *(f"in: {way}" for way in ways)])
