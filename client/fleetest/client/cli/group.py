"""A group of commands of which only the one that is called gets imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from fleetest.common.errors import DependencyUnavailable

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["Elsewhere", "LazyGroup"]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where a command is, and its line in the overview."""

    module: str
    name: str
    summary: str


class LazyGroup(click.Group):
    """
    Its own commands come from a table; those that other installed parts register, from an entry-point group.

    Args:
        table: its own commands by name, in the order of the overview.
        extension_group: the entry-point group of the others.
        extension_summaries: their lines in the overview, since they are not imported for it.
    """

    def __init__(
        self,
        *args: Any,
        table: Mapping[str, Elsewhere],
        extension_group: str,
        extension_summaries: Mapping[str, str],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._table = table
        self._extension_group = extension_group
        self._extension_summaries = extension_summaries

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [*self._table, *(name for name in self._extensions() if name not in self._table)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name in self._table:
            place = self._table[cmd_name]
            command = getattr(import_module(place.module), place.name)
        elif cmd_name in (extensions := self._extensions()):
            command = _load(extensions[cmd_name])
        else:
            return None
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self._table and args[0] not in self.list_commands(ctx):
            raise click.UsageError(f"There is no command {args[0]!r}.{self._guess(ctx, args[0])}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in self._table.items()])
        if extensions := [name for name in self._extensions() if name not in self._table]:
            with formatter.section("Cluster"):
                formatter.write_dl([(name, self._summary(name)) for name in extensions])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        items = [CompletionItem(name, help=self._summary(name)) for name in names]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def _extensions(self) -> dict[str, EntryPoint]:
        from importlib.metadata import entry_points  # looks at every installed package: not for commands of our own

        return {point.name: point for point in entry_points(group=self._extension_group)}

    def _summary(self, name: str) -> str:
        place = self._table.get(name)
        return place.summary if place else self._extension_summaries.get(name, "")

    def _guess(self, ctx: click.Context, word: str) -> str:
        import difflib

        near = difflib.get_close_matches(word, self.list_commands(ctx), n=1)
        return f" Did you mean {near[0]!r}?" if near else ""


def _load(point: EntryPoint) -> object:
    try:
        return point.load()
    except ImportError as error:
        raise DependencyUnavailable(
            f"`fleetest {point.name}` needs a part that is not installed: {error}",
            hint="Install it: pip install 'fleetest[embedded]'",
        ) from error
