"""
A pytest plugin (`-p parity_recorder`) that writes down what plain pytest itself counted each case as.

It reads the terminal reporter's own statistics, so it shares no code with the resident session that it judges.
Python 3.8 syntax: it runs in any interpreter.
"""

from __future__ import annotations

import json
import os
from typing import Any

__all__ = ["pytest_sessionfinish"]

_ORDER = ("failed", "error", "xfailed", "xpassed", "skipped", "passed")


def _reason(report: Any) -> str:
    if hasattr(report, "wasxfail"):
        reason = str(report.wasxfail)
        return reason[len("reason: ") :] if reason.startswith("reason: ") else reason  # noqa: FURB188 - Python 3.8
    reason = str(report.longrepr[2])
    if reason.startswith("Skipped: "):
        return reason[len("Skipped: ") :]
    return "" if reason == "Skipped" else reason


def pytest_sessionfinish(session: Any) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    cases = {}
    for outcome in reversed(_ORDER):
        for report in reporter.stats.get(outcome, []):
            reason = _reason(report) if outcome in ("skipped", "xfailed") else ""
            # A skipped subtest is counted, but the case that it belongs to is counted too.
            if not (hasattr(report, "context") and outcome == "skipped"):
                cases[report.nodeid] = [outcome, reason]
    with open(os.environ["PARITY_FILE"], "w", encoding="utf-8") as file:  # noqa: PTH123 - tests may have patched pathlib
        json.dump(cases, file)
