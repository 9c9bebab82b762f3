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

_NO_LIMIT: Final = 1_000_000
_GAP: Final = 2
_LEAST: Final = 10  # what a column keeps when the terminal is too narrow


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
    if names := _field_names(value):
        return {_key(name, each := getattr(value, name)): json_form(each) for name in names}
    match value:
        case Mapping():
            return {str(key): json_form(each) for key, each in value.items()}
        case list() | tuple():
            return [json_form(each) for each in value]
        case set() | frozenset():
            return sorted(json_form(each) for each in value)
        case _:
            return _plain(value)


def _field_names(value: object) -> Sequence[str]:
    """Of a record; there are none of anything else."""
    if (names := getattr(type(value), "__struct_fields__", None)) is not None:  # of msgspec, which takes long to load
        return tuple(names)
    if is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in fields(value)]
    return ()


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
_DURATIONS = frozenset({"duration", "predicted", "cpu_time", "wall_time"})


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
    headings: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    prose: Collection[str] = (),
    cut: Collection[str] = (),
    empty: str,
) -> None:
    """
    A table: on a terminal no wider than that where it can be, in a pipe as wide as its content.

    Args:
        prose: headings of the columns whose words go on in the next line when there is not enough room.
        cut: of those whose ends are left out then. All others, names and ids among them, stay whole whatever happens.
        empty: said on standard error when there are no rows.
    """
    from rich.table import Table
    from rich.text import Text

    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    if not cells:
        click.echo(empty, err=True)
        return
    columns = {
        heading: [Text(heading, "dim"), *column]
        for heading, column in zip(headings, zip(*cells, strict=True), strict=True)
    }
    console = _console(sys.stdout)
    console.width = _fit(columns, console.width if console.is_terminal else _NO_LIMIT, prose, cut)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, _GAP, 0, 0))
    for heading in headings:
        table.add_column(overflow="fold", no_wrap=heading not in prose)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()), color=True)


def _fit(columns: Mapping[str, Sequence[Text]], room: int, prose: Collection[str], cut: Collection[str]) -> int:
    """Cut what may be cut to fit into the room; answers the width that the table needs."""
    widths = {heading: max(cell.cell_len for cell in cells) for heading, cells in columns.items()}
    gaps = _GAP * (len(columns) - 1)
    least = gaps + sum(
        min(width, _LEAST) if name in prose else width for name, width in widths.items() if name not in cut
    )
    spare = room - least
    for number, name in enumerate(sorted(cut, key=widths.__getitem__)):
        width = min(widths[name], max(_LEAST, spare // (len(cut) - number)))
        for cell in columns[name]:
            cell.truncate(width, overflow="ellipsis")
        spare -= width
        least += width
        widths[name] = width
    return max(least, min(room, gaps + sum(widths.values())))


def stderr_console() -> Console:
    """Where progress goes."""
    return _console(sys.stderr)


def _console(stream: Any) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False)
