"""How a CI system's log folds: the lines that begin and end a section."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Protocol

from fleetest.client.view.harmless import one_line

__all__ = ["GitHubSections", "GitLabSections", "NoSections", "Sections"]


class Sections(Protocol):
    """Begins and ends sections, which do not nest."""

    def begin(self, title: str) -> str:
        """What to write before a section; ends with a line feed."""

    def end(self) -> str:
        """What to write after it; may be empty."""


class NoSections:
    """A rule before each section, for logs that do not fold."""

    def begin(self, title: str) -> str:
        return f"\n--- {one_line(title)}\n"

    def end(self) -> str:
        return ""


class GitHubSections:
    """GitHub Actions: https://docs.github.com/actions/reference/workflow-commands-for-github-actions."""

    def begin(self, title: str) -> str:
        return f"::group::{one_line(title)}\n"

    def end(self) -> str:
        return "::endgroup::\n"


class GitLabSections:
    """GitLab CI: https://docs.gitlab.com/ci/jobs/job_logs/#custom-collapsible-sections."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._number = 0
        self._name = ""

    def begin(self, title: str) -> str:
        self._number += 1
        self._name = f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', title)[:60]}_{self._number}"
        return f"\x1b[0Ksection_start:{int(self._clock())}:{self._name}[collapsed=true]\r\x1b[0K{one_line(title)}\n"

    def end(self) -> str:
        return f"\x1b[0Ksection_end:{int(self._clock())}:{self._name}\r\x1b[0K\n"
