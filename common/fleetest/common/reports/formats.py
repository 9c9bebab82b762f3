"""Which formats there are, how a report's own is recognised, and who reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import BinaryIO, Final

from fleetest.common.reports.ctrf import read_ctrf
from fleetest.common.reports.json_values import json_paths
from fleetest.common.reports.junit import read_junit
from fleetest.common.reports.k6_stream import read_k6_stream
from fleetest.common.reports.k6_summary import read_k6_summary
from fleetest.common.reports.ports import ReportFormat, ReportReader, Unreadable
from fleetest.common.reports.robot import read_robot
from fleetest.common.reports.sarif import read_sarif
from fleetest.common.reports.zap import read_zap

__all__ = ["READERS", "format_of"]

READERS: Final[Mapping[ReportFormat, ReportReader]] = {
    ReportFormat.JUNIT: read_junit,
    ReportFormat.CTRF: read_ctrf,
    ReportFormat.ROBOT: read_robot,
    ReportFormat.K6: read_k6_summary,
    ReportFormat.K6_STREAM: read_k6_stream,
    ReportFormat.ZAP: read_zap,
    ReportFormat.SARIF: read_sarif,
}

_HEAD_BYTES: Final = 256 << 10
_BOMS: Final = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))
# Possessive, so that what does not match is found out at once.
_ROOT: Final = re.compile(r"(?s)(?>\s+|<\?.*?\?>|<!--.*?-->)*+<(?:[\w.-]+:)?([A-Za-z_][\w.-]*)")
_BY_ROOT: Final = {
    "robot": ReportFormat.ROBOT,
    "testsuites": ReportFormat.JUNIT,
    "testsuite": ReportFormat.JUNIT,
    "testcase": ReportFormat.JUNIT,
}

# The first of these keys that a document has, each at its place, says what it is.
_BY_KEY: Final = {
    ("reportFormat",): ReportFormat.CTRF,
    ("results", "tool"): ReportFormat.CTRF,
    ("results", "tests"): ReportFormat.CTRF,
    ("runs",): ReportFormat.SARIF,
    ("site",): ReportFormat.ZAP,
    ("@programName",): ReportFormat.ZAP,
    ("root_group",): ReportFormat.K6,
    ("metrics",): ReportFormat.K6,
    ("results", "checks"): ReportFormat.K6,
    ("results", "metrics"): ReportFormat.K6,
}


def format_of(stream: BinaryIO) -> ReportFormat:
    """
    By what the report begins with; the stream is at its beginning afterwards.

    Raises:
        Unreadable: it is none that we know.
    """
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    text = _decoded(head)
    beginning = text.lstrip()[:1]
    if not beginning:
        raise Unreadable("it is empty")
    if beginning == "<":
        return _format_of_xml(text)
    if beginning == "{":
        return _format_of_json(stream, text)
    raise Unreadable("neither XML nor a JSON object, so no report that can be read", line=1)


def _decoded(head: bytes) -> str:
    encoding = next((name for bom, name in _BOMS if head.startswith(bom)), "utf-8")
    return head.decode(encoding, errors="replace")


def _format_of_xml(text: str) -> ReportFormat:
    match = _ROOT.match(text)
    if match is None:  # it may hold a document type, which the reader refuses, or be no XML at all
        return ReportFormat.JUNIT
    found = _BY_ROOT.get(match[1])
    if found is None:
        known = ", ".join(f"<{root}>" for root in _BY_ROOT)
        raise Unreadable(f"no report that can be read: its root is <{match[1]}>, not one of {known}", line=1)
    return found


def _format_of_json(stream: BinaryIO, text: str) -> ReportFormat:
    if _is_k6_line(text.lstrip().partition("\n")[0]):
        return ReportFormat.K6_STREAM
    try:
        for path in json_paths(stream):
            if path in _BY_KEY:
                return _BY_KEY[path]
    finally:
        stream.seek(0)
    known = ", ".join(ReportFormat)
    raise Unreadable(f"no report that can be read: it is JSON, but of none of the formats {known}", line=1)


def _is_k6_line(line: str) -> bool:
    """Whether the line is a whole document of its own, as k6 writes samples."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.get("type") in ("Metric", "Point") and "metric" in record
