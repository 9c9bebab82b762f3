"""Data on standard output: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["json_form", "output_option", "print_json", "print_lines", "print_table", "stderr_console"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_NO_LIMIT: Final = 10_000


def output_option(command: _Command) -> _Command:
    """`--output`, for every command that prints data."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="A table for people, or JSON whose keys stay (docs/cli.md).",
    )(command)


def json_form(value: object) -> Any:
    """
    A value as JSON's own types: records by their fields, times as ISO 8601, durations as seconds, under a key that
    says so.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {
            _key(field.name, getattr(value, field.name)): json_form(getattr(value, field.name))
            for field in fields(value)
        }
    match value:
        case Mapping():
            return {str(key): json_form(each) for key, each in value.items()}
        case list() | tuple():
            return [json_form(each) for each in value]
        case set() | frozenset():
            return sorted(json_form(each) for each in value)
        case _:
            return _plain(value)


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Enum():
            return value.value
        case _:
            return value


# Absent durations must have the same key as present ones.
_DURATIONS = frozenset({"duration", "predicted", "cpu_time"})


def _key(name: str, value: object) -> str:
    return f"{name}_seconds" if isinstance(value, timedelta) or name in _DURATIONS else name


def print_json(value: object) -> None:
    """One JSON document, escaped to ASCII, so that no locale and no terminal can be hurt by it."""
    click.echo(json.dumps(json_form(value), indent=2))


def print_lines(lines: Iterable[Text]) -> None:
    """Lines with colours where there are any."""
    console = _console(sys.stdout)
    for line in lines:
        console.print(line, soft_wrap=True)


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[str | Text]], *, flexible: Collection[str] = ()
) -> None:
    """
    A table: at most as wide as the terminal, or, for pipes, as wide as its content.

    Args:
        flexible: headings of the columns that are folded when there is not enough room.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading not in flexible)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    console = _console(sys.stdout)
    if not console.is_terminal:
        console.width = _NO_LIMIT
        console.width = console.measure(table).maximum
    console.print(table)


def stderr_console() -> Console:
    """Where progress goes."""
    return _console(sys.stderr)


def _console(stream: Any) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False)
