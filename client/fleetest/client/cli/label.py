"""The type of `--label`."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["Label"]


class Label(click.ParamType[tuple[str, str]]):
    """`key=value`, as a pair."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        key, equals, text = str(value).partition("=")
        if not equals or not key.strip():
            self.fail(f"{value!r} is not of the form key=value", param, ctx)
        return key.strip(), text
