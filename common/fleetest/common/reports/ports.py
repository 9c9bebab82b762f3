"""
What a reader of reports is: bytes in, results of cases out.

A reader is one function. It reads a stream in pieces, yields each case as soon as its part of the report has been read,
and holds no more of the report than that: a report may be larger than the memory. What it meets may have been made to
harm it; whatever it cannot read, it says so with `Unreadable`, and with nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO, Protocol

from fleetest.common.results import CaseResult

__all__ = ["ReadOptions", "ReportFormat", "ReportReader", "Risk", "Unreadable"]


class ReportFormat(StrEnum):
    """The formats that can be read."""

    JUNIT = "junit"
    CTRF = "ctrf"
    ROBOT = "robot"
    K6 = "k6"
    K6_STREAM = "k6-stream"
    ZAP = "zap"
    SARIF = "sarif"


class Risk(StrEnum):
    """How bad a finding is, in ZAP's words. Members are in ascending order."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def rank(self) -> int:
        return tuple(Risk).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """
    Args:
        fail_level: findings of this risk, and of a higher one, are failures; others are noted.
        root: where the tests lay when they ran; files below it are named relative to it.
    """

    fail_level: Risk = Risk.MEDIUM
    root: str = ""


class Unreadable(Exception):
    """
    A report, or the rest of it, is not what it should be.

    Args:
        line: where in the report, 1-based; 0 when not known.
    """

    def __init__(self, message: str, *, line: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


class ReportReader(Protocol):
    """Reads one format."""

    def __call__(self, stream: BinaryIO, options: ReadOptions) -> Iterator[CaseResult]:
        """
        The cases of a report, in its order; ids may be equal.

        Args:
            stream: at its beginning, and seekable.

        Raises:
            Unreadable: after the cases that could be read.
            OSError: the stream cannot be read.
        """
