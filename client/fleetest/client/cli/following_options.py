"""Options of the commands that follow a run, and what they do with them."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fleetest.client.cli.exit_codes import exit_code_of_run
from fleetest.client.cli.output import output_option

if TYPE_CHECKING:
    from fleetest.client.async_client import AsyncClient
    from fleetest.client.cli.following import Follower
    from fleetest.client.cli.interrupts import Signals
    from fleetest.client.view.fold import RunView

__all__ = ["FollowingOptions", "following_options", "present_user"]

_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_DIRECTORY: Final = click.Path(file_okay=False, path_type=Path)

_PATIENCE: Final = timedelta(seconds=0.3)
"""For so long a run need not be shown when nothing has become of it: its first tests want the same processors."""

_OPTIONS: Final = (
    click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML there."),
    click.option("--json", "ctrf", type=_FILE, metavar="FILE", help="Write CTRF JSON there."),
    click.option("--artifacts", type=_DIRECTORY, metavar="DIRECTORY", help="Save the artifacts there at the end."),
    click.option("-q", "--quiet", count=True, help="Tell only failures and the end."),
    click.option("-v", "--verbose", count=True, help="Tell tracebacks at once."),
    output_option,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowingOptions:
    """
    What a command that follows a run was asked for.

    Args:
        output: `json` prints the ended run on standard output.
        junit: where to write JUnit XML.
        ctrf: where to write CTRF JSON.
        artifacts: where to save artifacts.
        verbosity: below zero less is told, above more.
    """

    output: str
    junit: Path | None
    ctrf: Path | None
    artifacts: Path | None
    verbosity: int

    def check(self) -> None:
        """
        Before anything is submitted: can the reports be written?

        Raises:
            InvalidRequest: one cannot.
        """
        if self.junit is not None or self.ctrf is not None:
            from fleetest.client.cli.reporting import checked_reports

            checked_reports(self.junit, self.ctrf)

    async def _write_reports(self, client: AsyncClient, view: RunView) -> None:
        if self.junit is not None or self.ctrf is not None:
            from fleetest.client.cli.reporting import checked_reports, write_reports

            await write_reports(client, view, checked_reports(self.junit, self.ctrf))

    async def follow(self, client: AsyncClient, run_id: str, environment: Mapping[str, str]) -> int:
        """Show the run to its end, leave reports and artifacts; answers the exit code."""
        from fleetest.client.cli.interrupts import Signals
        from fleetest.client.cli.output import print_json

        self.check()
        signals = Signals()
        with signals.caught():
            await client.wait_for_news(run_id, at_most=_PATIENCE)
            view = await self._follower(client, environment, signals).follow(run_id)
        if view.state.ended:
            await self._write_reports(client, view)
            if self.artifacts is not None:
                for artifact in await client.artifacts(run_id):
                    await client.download(artifact, self.artifacts)
        if self.output == "json":
            print_json(await client.get_run(run_id))
        return exit_code_of_run(view.state)

    def _follower(self, client: AsyncClient, environment: Mapping[str, str], signals: Signals) -> Follower:
        """Loads what shows runs: a quarter of all that a command loads."""
        from fleetest.client.cli.choosing import choose_renderer
        from fleetest.client.cli.following import Follower
        from fleetest.client.cli.interrupts import AskAtTerminal, CancelAtOnce
        from fleetest.client.cli.output import stderr_console
        from fleetest.common.clock import SystemClock

        asks = sys.stdin.isatty() and sys.stderr.isatty()
        return Follower(
            client=client,
            renderer=choose_renderer(stderr_console(), environment, verbosity=self.verbosity),
            chooser=AskAtTerminal(sys.stdin, sys.stderr) if asks else CancelAtOnce(),
            signals=signals,
            clock=SystemClock(),
            user=present_user(),
        )


def following_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command gets them together, as `following`."""

    @wraps(command)
    def with_options(*args: Any, quiet: int, verbose: int, **options: Any) -> Any:
        own = {name: options.pop(name) for name in ("output", "junit", "ctrf", "artifacts")}
        return command(*args, following=FollowingOptions(**own, verbosity=verbose - quiet), **options)

    decorated: Callable[..., Any] = with_options
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def present_user() -> str:
    """Who runs this process, as the system knows it; empty when it does not."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""
