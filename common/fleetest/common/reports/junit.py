"""
JUnit XML, in the dialects that test tools write.

There is no standard. What all readers agree on: `testcase` elements, at any depth below `testsuites` and `testsuite`,
each with at most one verdict in `failure`, `error` or `skipped` (https://github.com/testmoapp/junitxml). Beyond that:

- reruns as Maven Surefire writes them (`flakyFailure`, `flakyError`, `rerunFailure`, `rerunError`;
  https://maven.apache.org/surefire/maven-surefire-plugin/xsd/surefire-test-report.xsd),
- expected failures as pytest writes them (`skipped` of type `pytest.xfail`),
- tests that GoogleTest and CTest did not run (`status="notrun"`, `status="disabled"`),
- attachments as Jenkins reads them (`[[ATTACHMENT|path]]` in the output),
- failures of a suite itself, and suites one after the other without a root.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, Final

from fleetest.common.reports.bounds import BoundedText, bounded, bounded_case, instant, seconds, whole_number
from fleetest.common.reports.places import named_below
from fleetest.common.reports.ports import ReadOptions, Unreadable
from fleetest.common.reports.xml_events import xml_cases
from fleetest.common.results import CaseResult
from fleetest.common.states import Outcome

__all__ = ["read_junit"]

_ROOTS: Final = frozenset({"testsuites", "testsuite", "testcase"})
_VERDICTS: Final = {"error": Outcome.ERROR, "failure": Outcome.FAILED, "skipped": Outcome.SKIPPED}
"""In order of precedence."""

_OF_SUITES: Final = frozenset({"error", "failure"})
_RERUNS: Final = frozenset({"flakyFailure", "flakyError", "rerunFailure", "rerunError"})
_NOT_RUN: Final = frozenset({"notrun", "disabled", "skipped", "ignored", "suppressed"})
_OUTPUT: Final = frozenset({"system-out", "system-err"})
_ATTACHMENT: Final = re.compile(r"\[\[ATTACHMENT\|([^\]\n]+)\]\]")
_LONGEST_NAME: Final = 1000
_MOST_ATTACHMENTS: Final = 50
_MOST_PROPERTIES: Final = 500


def read_junit(stream: BinaryIO, options: ReadOptions) -> Iterator[CaseResult]:
    """Fulfils `ReportReader`."""
    return xml_cases(stream, _JUnit(options))


class _JUnit:
    """Fulfils `XmlHandler`."""

    def __init__(self, options: ReadOptions) -> None:
        self._options = options
        self._path: list[str] = []
        self._suites: list[str] = []  # with the names of those around them
        self._case: _Case | None = None
        self._base = 0  # how much of the path leads to what the case holds
        self._above = 0  # how long the path is when the case has ended
        self._done: list[CaseResult] = []

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if not self._path and tag not in _ROOTS:
            raise Unreadable(f"not a JUnit report: its root is <{tag}>")
        self._path.append(tag)
        if self._case is not None:
            self._case.start(self._path[self._base :], attributes)
        elif tag == "testsuite":
            above = self._suites[-1] if self._suites else ""
            name = ".".join(filter(None, (above, attributes.get("name", ""))))
            self._suites.append(bounded(name, _LONGEST_NAME))
        elif tag == "testcase":
            self._case = _Case(attributes, self._suite)
            self._base, self._above = len(self._path), len(self._path) - 1
        elif tag in _OF_SUITES:  # of the suite itself: it has no cases, or not all of them
            self._case = _Case({"name": "(suite)"}, self._suite)
            self._base = self._above = len(self._path) - 1
            self._case.start([tag], attributes)

    def text(self, text: str) -> None:
        if self._case is not None:
            self._case.text(text)

    def end(self, tag: str) -> None:
        self._path.pop()
        if self._case is None:
            if tag == "testsuite":
                self._suites.pop()
            return
        self._case.end()
        if len(self._path) == self._above:
            self._done.append(self._case.result(self._options))
            self._case = None

    def take(self) -> Iterable[CaseResult]:
        done, self._done = self._done, []
        return done

    @property
    def _suite(self) -> str:
        return self._suites[-1] if self._suites else ""


class _Trouble:
    """The elements of one verdict."""

    def __init__(self, attributes: Mapping[str, str]) -> None:
        self.said = bounded(attributes.get("message") or attributes.get("type") or "")
        self.type = attributes.get("type", "")
        self.text = BoundedText()


class _Case:
    """One `testcase`, while it is being read."""

    def __init__(self, attributes: Mapping[str, str], suite: str) -> None:
        self._attributes = {key: bounded(value) for key, value in attributes.items()}
        self._suite = suite
        self._troubles: dict[str, _Trouble] = {}
        self._reruns = BoundedText()
        self._attempts = 1
        self._flaky = False
        self._output = {tag: BoundedText() for tag in _OUTPUT}
        self._properties: dict[str, str] = {}
        self._sinks: list[BoundedText | None] = []
        self._property: tuple[str, BoundedText] | None = None

    def start(self, path: Sequence[str], attributes: Mapping[str, str]) -> None:
        """An element in it begins; `path` leads there."""
        tag = path[-1]
        above = self._sinks[-1] if self._sinks else None
        if len(path) == 1:
            self._sinks.append(self._sink(tag, attributes))
        elif path[0] == "properties" and tag == "property":
            self._sinks.append(self._start_property(attributes))
        else:
            self._sinks.append(None if tag in _OUTPUT else above)

    def text(self, text: str) -> None:
        if self._sinks and (sink := self._sinks[-1]) is not None:
            sink.add(text)

    def end(self) -> None:
        if self._sinks:
            sink = self._sinks.pop()
            if self._property is not None and sink is self._property[1]:
                name, value = self._property
                self._add_property(name, str(value).strip())
                self._property = None

    def result(self, options: ReadOptions) -> CaseResult:
        outcome, message, details = self._verdict()
        stdout, stderr = (str(self._output[tag]) for tag in ("system-out", "system-err"))
        for number, path in enumerate(_attachments(stdout, stderr), start=1):
            self._add_property("attachment" if number == 1 else f"attachment {number}", path)
        if self._attempts > 1:
            self._properties["attempts"] = str(self._attempts)
        if self._flaky:
            self._properties["flaky"] = "true"
        given = self._attributes
        return bounded_case(
            case_id=self._id(),
            outcome=outcome,
            duration=seconds(given.get("time", "")),
            started_at=instant(given.get("timestamp", "")),
            file=named_below(given.get("file", ""), options.root),
            line=whole_number(given.get("line", "")),
            properties=self._properties,
            message=message,
            details=details,
            stdout=stdout,
            stderr=stderr,
        )

    def _sink(self, tag: str, attributes: Mapping[str, str]) -> BoundedText | None:
        if tag in _VERDICTS:
            if tag in self._troubles:
                self._troubles[tag].text.add("\n\n")
            return self._troubles.setdefault(tag, _Trouble(attributes)).text
        if tag in _RERUNS:
            said = bounded(attributes.get("message") or attributes.get("type") or tag)
            gap = "\n\n" if self._reruns else ""
            self._reruns.add(f"{gap}attempt {self._attempts}: {said}\n")
            self._attempts += 1
            self._flaky = self._flaky or tag.startswith("flaky")
            return self._reruns
        return self._output.get(tag)

    def _start_property(self, attributes: Mapping[str, str]) -> BoundedText | None:
        name, value = attributes.get("name", ""), attributes.get("value", "")
        if name and value:
            self._add_property(name, value)
        elif name:
            self._property = (name, BoundedText())
            return self._property[1]
        return None

    def _add_property(self, name: str, value: str) -> None:
        if len(self._properties) < _MOST_PROPERTIES:
            self._properties[bounded(name)] = bounded(value)

    def _verdict(self) -> tuple[Outcome, str, str]:
        reruns = str(self._reruns)
        for tag, outcome in _VERDICTS.items():
            trouble = self._troubles.get(tag)
            if trouble is not None:
                details = str(trouble.text).strip()
                if trouble.type == "pytest.xfail":
                    outcome = Outcome.XFAILED  # noqa: PLW2901 - in pytest's own words
                return outcome, trouble.said or details, "\n\n".join(filter(None, (details, reruns)))
        given = self._attributes
        if given.get("status", "").lower() in _NOT_RUN or given.get("result", "").lower() in _NOT_RUN:
            return Outcome.SKIPPED, "was not run", ""
        return Outcome.PASSED, "", reruns

    def _id(self) -> str:
        """Its class, else its suite, and its name; not the one twice that some tools repeat in the other."""
        name = self._attributes.get("name", "")
        holder = self._attributes.get("classname", "") or self._suite
        if name and (name == holder or name.startswith((f"{holder}.", f"{holder}::"))):
            return name
        return "::".join(filter(None, (holder, name))) or "unnamed"


def _attachments(*texts: str) -> list[str]:
    found = [match[1].strip() for text in texts for match in _ATTACHMENT.finditer(text)]
    return found[:_MOST_ATTACHMENTS]
