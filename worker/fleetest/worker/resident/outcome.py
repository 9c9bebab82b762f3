"""
What pytest's reports of one case come to: one result, in pytest's own words.

A result is a dictionary with `id`, `outcome`, `duration` (seconds), `message` (one line), `details`, `stdout`,
`stderr`, `log`, `file`, `line`, `truncated`, `properties` and, if it ran, `assertions`. All texts are valid Unicode and
bounded. Assertions are those that a plugin put into a report as `fleetest_assertions`, as `[name, passed, message]`.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

__all__ = ["bounded", "collected_result", "combine", "reason_of_skip", "result"]

_KNOWN = ("passed", "failed", "skipped")
_CUT = "\n[... {} bytes cut out ...]\n"
_MOST_ASSERTIONS = 200
_NAME_BYTES = 500
_MESSAGE_BYTES = 4000


def bounded(text: str, limit: int) -> Tuple[str, bool]:
    """`text` as valid Unicode of at most `limit` bytes of UTF-8, its middle cut out; and whether it was."""
    if len(text) <= limit and text.isascii():
        return text, False
    if len(text) > limit:
        content = (text[:limit] + text[-limit:]).encode("utf-8", "backslashreplace")
        dropped = len(text) - limit
    else:
        content = text.encode("utf-8", "backslashreplace")
        dropped = len(content) - limit
    if dropped <= 0:
        return content.decode("utf-8"), False
    notice = _CUT.format(dropped)
    half = max(0, (limit - len(notice)) // 2)
    head = content[:half].decode("utf-8", "ignore")
    return head + notice + content[len(content) - half :].decode("utf-8", "ignore"), True


def reason_of_skip(report: Any) -> str:
    """The reason as pytest's own summary prints it."""
    if hasattr(report, "wasxfail"):
        reason = str(report.wasxfail)
        return reason[len("reason: ") :] if reason.startswith("reason: ") else reason  # noqa: FURB188 - Python 3.8
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
    if reason.startswith("Skipped: "):
        return reason[len("Skipped: ") :]
    return "" if reason == "Skipped" else reason


def _is_subtest(report: Any) -> bool:
    return hasattr(report, "context")


def combine(reports: List[Any]) -> Tuple[str, Optional[Any]]:
    """
    The outcome of a case, and the report that explains it.

    As pytest counts: a failure outside of the call is an error, unless the test itself failed too. Subtests that
    failed make their test fail; other subtests say nothing about it.
    """
    whole = [report for report in reports if report.outcome in _KNOWN and not _is_subtest(report)]
    failed = [report for report in reports if report.outcome == "failed" and report.when == "call"]
    if failed:
        return "failed", failed[0]
    broken = [report for report in whole if report.outcome == "failed"]
    if broken:
        return "error", broken[0]
    for report in whole:
        if report.outcome == "skipped":
            return ("xfailed" if hasattr(report, "wasxfail") else "skipped"), report
    for report in whole:
        if report.when == "call":
            return ("xpassed" if hasattr(report, "wasxfail") else "passed"), report
    if whole:  # --setup-only and the like: no call, nothing wrong
        return "passed", whole[-1]
    return "error", None


def _message(outcome: str, report: Any) -> str:
    if report is None:
        return "pytest reported nothing for this case"
    if outcome in ("skipped", "xfailed", "xpassed"):
        return reason_of_skip(report) if outcome != "xpassed" else str(report.wasxfail)
    if outcome == "passed":
        return ""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message) if crash is not None else str(report.longrepr or "")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    return lines[0] if crash is not None else lines[-1]


def _sections(report: Any, word: str) -> str:
    return "".join(content for name, content in report.sections if name.startswith("Captured " + word))


def _subtest_sections(reports: List[Any], word: str) -> str:
    return "".join(_sections(report, word) for report in reports if _is_subtest(report))


def result(case_id: str, place: Tuple[str, int], reports: List[Any], limit: int) -> Dict[str, Any]:
    """The result of a case that ran."""
    outcome, telling = combine(reports)
    bad = [report for report in reports if report.outcome == "failed"]
    last = reports[-1] if reports else None
    texts = {
        "message": _message(outcome, telling),
        "details": "\n\n".join(str(report.longreprtext) for report in bad),
    }
    for key, word in (("stdout", "stdout"), ("stderr", "stderr"), ("log", "log")):
        texts[key] = _sections(last, word) + _subtest_sections(reports, word) if last is not None else ""
    properties = {str(name): str(value) for name, value in last.user_properties} if last is not None else {}
    duration = sum(report.duration for report in reports if not _is_subtest(report))
    fields = {"id": case_id, "outcome": outcome, "duration": duration, "assertions": _assertions(reports, limit)}
    return _bound(fields, texts, place, properties, limit)


def _assertions(reports: List[Any], limit: int) -> List[List[Any]]:
    """As many as there is room for."""
    told: List[List[Any]] = []
    room = limit
    for assertion in [each for report in reports for each in getattr(report, "fleetest_assertions", None) or ()]:
        try:
            name, message = str(assertion["name"]), str(assertion["message"])
            passed = bool(assertion["passed"])
        except (KeyError, TypeError):
            continue  # another plugin's, and not as it should be
        told.append([bounded(name, _NAME_BYTES)[0], passed, bounded(message, _MESSAGE_BYTES)[0]])
        room -= len(told[-1][0].encode("utf-8")) + len(told[-1][2].encode("utf-8"))
        if room < 0 or len(told) > _MOST_ASSERTIONS:
            return told[:-1]
    return told


def collected_result(case_id: str, file: str, report: Any, limit: int) -> Dict[str, Any]:
    """The result of a collector that failed, or skipped itself."""
    outcome = "error" if report.outcome == "failed" else "skipped"
    texts = {"message": _collect_message(report) if outcome == "error" else reason_of_skip(report)}
    line = 0
    if outcome == "error":
        texts["details"] = str(report.longreprtext)
    elif isinstance(report.longrepr, tuple):
        line = int(report.longrepr[1] or 0)
    return _bound({"id": case_id, "outcome": outcome, "duration": 0.0}, texts, (file, line), {}, limit)


def _collect_message(report: Any) -> str:
    lines = [line.strip() for line in str(report.longreprtext).splitlines() if line.strip()]
    marked = [line[1:].strip() for line in lines if line.startswith("E ")]
    return (marked or lines or ["could not be collected"])[-1]


def _bound(
    fields: Dict[str, Any], texts: Dict[str, str], place: Tuple[str, int], properties: Dict[str, str], limit: int
) -> Dict[str, Any]:
    truncated = False
    for key, text in texts.items():
        fields[key], cut = bounded(text, limit)
        truncated = truncated or cut
    cleaned = {}
    for name, value in properties.items():
        cleaned[bounded(name, limit)[0]], cut = bounded(value, limit)
        truncated = truncated or cut
    fields.update(file=place[0], line=place[1], truncated=truncated, properties=cleaned)
    return fields
