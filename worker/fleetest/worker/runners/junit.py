"""
Reads JUnit XML reports, in the dialects that test tools write.

There is no standard. What all readers agree on: `testcase` elements, at any depth below `testsuites` and `testsuite`,
each with at most one verdict in `failure`, `error` or `skipped` (https://github.com/testmoapp/junitxml).
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from fleetest.common.limits import MAX_RESULT_TEXT_BYTES
from fleetest.common.results import CaseResult
from fleetest.common.states import Outcome
from fleetest.worker.runners.unique_ids import told_apart

__all__ = ["MAX_REPORT_BYTES", "read_report"]

MAX_REPORT_BYTES: Final = 64 << 20
_LONGEST_SECONDS: Final = 10**9
_CUT: Final = "\n[... cut out ...]\n"
_OUTCOMES: Final = (("error", Outcome.ERROR), ("failure", Outcome.FAILED), ("skipped", Outcome.SKIPPED))


def read_report(path: Path, *, name: str) -> list[CaseResult]:
    """
    The cases of a report, in order. Equal ids are told apart by ` #2` and so on.

    A report that cannot be read is one case with outcome `error`, called `name`, that says why and where.
    """
    try:
        if path.stat().st_size > MAX_REPORT_BYTES:
            return [_broken(name, 0, f"the report is larger than {MAX_REPORT_BYTES >> 20} MiB")]
        root = fromstring(path.read_bytes())
    except ParseError as error:
        line = error.position[0]
        return [_broken(name, line, f"{name}:{line}: not XML: {str(error.msg).partition(': line')[0]}")]
    except (DefusedXmlException, ValueError, LookupError) as error:
        return [_broken(name, 0, f"{name}: not readable as XML: {error}")]
    except OSError as error:
        return [_broken(name, 0, f"{name}: cannot be read: {error.strerror}")]
    if _local(root) not in {"testsuites", "testsuite", "testcase"}:
        return [_broken(name, 1, f"{name}:1: not a JUnit report: its root is <{_local(root)}>")]
    return list(told_apart(_case(element) for element in root.iter() if _local(element) == "testcase"))


def _broken(name: str, line: int, message: str) -> CaseResult:
    return CaseResult(case_id=name, outcome=Outcome.ERROR, message=message, file=name, line=line)


def _local(element: Element) -> str:
    """The tag without its namespace."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _case(element: Element) -> CaseResult:
    outcome, message, details = _verdict(element)
    class_name, name = element.get("classname", ""), element.get("name", "")
    texts = {"message": message, "details": details}
    for key, tag in (("stdout", "system-out"), ("stderr", "system-err")):
        texts[key] = "".join(child.text or "" for child in element if _local(child) == tag)
    bounded = {key: _bounded(text) for key, text in texts.items()}
    return CaseResult(
        case_id="::".join(part for part in (class_name, name) if part) or "unnamed",
        outcome=outcome,
        duration=_duration(element.get("time", "")),
        file=element.get("file", ""),
        line=_line(element.get("line", "")),
        truncated=bounded != texts,
        properties=_properties(element),
        message=bounded["message"],
        details=bounded["details"],
        stdout=bounded["stdout"],
        stderr=bounded["stderr"],
    )


def _verdict(element: Element) -> tuple[Outcome, str, str]:
    for tag, outcome in _OUTCOMES:
        found = [child for child in element if _local(child) == tag]
        if found:
            details = "\n\n".join(filter(None, ((child.text or "").strip() for child in found)))
            said = found[0].get("message") or found[0].get("type") or details
            return outcome, next(iter(said.strip().splitlines()), ""), details
    return Outcome.PASSED, "", ""


def _properties(element: Element) -> dict[str, str]:
    return {
        _bounded(item.get("name", "")): _bounded(item.get("value") or item.text or "")
        for child in element
        if _local(child) == "properties"
        for item in child
        if item.get("name")
    }


def _duration(text: str) -> timedelta:
    """Seconds, as `1.5`, `1,5`, or with separated thousands: `1,234.5`."""
    cleaned = text.strip().replace(" ", "")
    cleaned = cleaned.replace(",", "") if "." in cleaned else cleaned.replace(",", ".")
    if not re.fullmatch(r"\d+(\.\d*)?([eE][-+]?\d+)?|\.\d+", cleaned, re.ASCII):
        return timedelta()
    seconds = float(cleaned)
    return timedelta(seconds=seconds) if seconds < _LONGEST_SECONDS else timedelta()


def _line(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0  # noqa: PLR2004 - fits in 32 bits


def _bounded(text: str) -> str:
    content = text.encode("utf-8", "backslashreplace")
    if len(content) <= MAX_RESULT_TEXT_BYTES:
        return content.decode()
    half = (MAX_RESULT_TEXT_BYTES - len(_CUT)) // 2
    return content[:half].decode(errors="ignore") + _CUT + content[-half:].decode(errors="ignore")
