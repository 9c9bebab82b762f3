"""Errors as people see them: what is wrong, and what to do."""

from __future__ import annotations

import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

import click

from fleetest.client.cli.exit_codes import FAILED, INFRASTRUCTURE, exit_code_of_error
from fleetest.client.cli.settings import ClientSettings
from fleetest.client.view.harmless import harmless
from fleetest.common.errors import FleetestError
from fleetest.common.ids import new_token

__all__ = ["report"]


def report(error: BaseException, settings: ClientSettings) -> int:
    """Say on standard error what went wrong; answers the exit code."""
    if isinstance(error, FleetestError):
        return _expected(error)
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        click.echo("fleetest: stopped", err=True)
        return FAILED
    if isinstance(error, BrokenPipeError):
        return _reader_left()
    return _unexpected(error, settings)


def _expected(error: FleetestError) -> int:
    if problems := getattr(error, "problems", None):
        for problem in problems:
            click.echo(harmless(str(problem)), err=True)
        count = len(problems)
        click.echo(f"fleetest: {count} problem{'s' * (count > 1)} in the suite; nothing was submitted", err=True)
        return exit_code_of_error(error)
    click.echo(f"fleetest: {harmless(error.message)}", err=True)
    if error.hint:
        click.echo(_sentence(harmless(error.hint)), err=True)
    return exit_code_of_error(error)


def _sentence(hint: str) -> str:
    """A hint is a line of its own here; one that begins with a command stays as it is."""
    return hint if hint.startswith("fleetest ") else hint[:1].upper() + hint[1:]


def _reader_left() -> int:
    """`fleetest ls | head`: nobody reads any more, and the interpreter must not complain of it when it flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def _unexpected(error: BaseException, settings: ClientSettings) -> int:
    text = "".join(traceback.format_exception(error))
    error_id = new_token()[:8]
    click.echo(f"fleetest: an error that should not be ({type(error).__name__}); its id is {error_id}", err=True)
    if settings.debug:
        click.echo(text, err=True)
        return INFRASTRUCTURE
    log = settings.data / "client.log"
    try:
        _append(log, f"{datetime.now(UTC).isoformat()} {error_id}\n{text}\n")
    except OSError:
        click.echo("Set FLEETEST_DEBUG=1 and try again to see where it happened.", err=True)
    else:
        click.echo(f"Please report it with what {log} holds of it, or see it with FLEETEST_DEBUG=1.", err=True)
    return INFRASTRUCTURE


def _append(log: Path, text: str) -> None:
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
        file.write(text)
