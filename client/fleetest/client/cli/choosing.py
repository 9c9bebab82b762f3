"""Which renderer fits where the output goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fleetest.client.view.lines import detailed_failure_lines, failure_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from fleetest.client.view.news import CaseFailed
    from fleetest.client.view.renderer import Renderer

__all__ = ["choose_renderer"]


def choose_renderer(console: Console, environment: Mapping[str, str], *, verbosity: int) -> Renderer:
    """
    Loads no more than what is chosen: the run has begun, and its first cases want the same processors.

    Args:
        verbosity: below zero only failures are told, above zero their tracebacks at once.
    """
    explain: Callable[[CaseFailed], list[Text]] = detailed_failure_lines if verbosity > 0 else failure_lines
    if environment.get("GITHUB_ACTIONS") == "true":
        return _for_github(console, environment, explain, verbosity=verbosity)
    if verbosity < 0:
        from fleetest.client.view.quiet import QuietRenderer

        return QuietRenderer(console)
    is_gitlab = environment.get("GITLAB_CI") == "true"
    if console.is_terminal and not console.is_dumb_terminal and not is_gitlab:
        from fleetest.client.view.live import LiveRenderer

        return LiveRenderer(console, explain=explain)
    from fleetest.client.view.plain import PlainRenderer
    from fleetest.client.view.sections import GitLabSections, NoSections

    return PlainRenderer(console, sections=GitLabSections() if is_gitlab else NoSections(), explain=explain)


def _for_github(
    console: Console, environment: Mapping[str, str], explain: Callable[[CaseFailed], list[Text]], *, verbosity: int
) -> Renderer:
    from fleetest.client.view.github import GitHubRenderer
    from fleetest.client.view.plain import PlainRenderer
    from fleetest.client.view.quiet import QuietRenderer
    from fleetest.client.view.sections import GitHubSections

    quiet = verbosity < 0
    shown = QuietRenderer(console) if quiet else PlainRenderer(console, sections=GitHubSections(), explain=explain)
    summary = environment.get("GITHUB_STEP_SUMMARY", "")
    return GitHubRenderer(shown, console.file, Path(summary) if summary else None)
