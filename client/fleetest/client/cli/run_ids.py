"""The argument that names a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["optional_run_argument", "run_argument"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


def run_argument(command: _Command) -> _Command:
    """RUN: an id, the beginning of one, or `latest`."""
    return click.argument("run_id", metavar="RUN")(command)


def optional_run_argument(command: _Command) -> _Command:
    """[RUN]: the latest when it is left out."""
    return click.argument("run_id", metavar="[RUN]", default="latest")(command)
