"""Which renderer fits where the output goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fleetest.client.view.github import GitHubRenderer
from fleetest.client.view.lines import detailed_failure_lines, failure_lines
from fleetest.client.view.live import LiveRenderer
from fleetest.client.view.plain import PlainRenderer
from fleetest.client.view.quiet import QuietRenderer
from fleetest.client.view.renderer import Renderer
from fleetest.client.view.sections import GitHubSections, GitLabSections

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from fleetest.client.view.news import CaseFailed

__all__ = ["choose_renderer"]


def choose_renderer(console: Console, environment: Mapping[str, str], *, verbosity: int) -> Renderer:
    """
    Args:
        verbosity: below zero only failures are told, above zero their tracebacks at once.
    """
    explain: Callable[[CaseFailed], list[Text]] = detailed_failure_lines if verbosity > 0 else failure_lines
    if environment.get("GITHUB_ACTIONS") == "true":
        shown = QuietRenderer(console) if verbosity < 0 else _plain_github(console, explain)
        summary = environment.get("GITHUB_STEP_SUMMARY", "")
        return GitHubRenderer(shown, console.file, Path(summary) if summary else None)
    if verbosity < 0:
        return QuietRenderer(console)
    if environment.get("GITLAB_CI") == "true":
        return PlainRenderer(console, sections=GitLabSections(), explain=explain)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveRenderer(console, explain=explain)
    return PlainRenderer(console, explain=explain)


def _plain_github(console: Console, explain: Callable[[CaseFailed], list[Text]]) -> Renderer:
    return PlainRenderer(console, sections=GitHubSections(), explain=explain)
