"""Writes files in a text for `/bin/sh`."""

from __future__ import annotations

from typing import Final

__all__ = ["escaped", "written"]

_END: Final = "FLEETEST_END"
_MEANINGFUL: Final = ("\\", "$", "`")


def written(path: str, content: str, *, expand: bool = False) -> str:
    """
    Shell lines that write a file.

    Args:
        path: a plain name, which needs no quotes.
        content: without a line `FLEETEST_END`.
        expand: whether the shell replaces what it does in double quotes, such as `$PWD`.
    """
    return f"cat >{path} <<{_END if expand else repr(_END)}\n{content}\n{_END}\n"


def escaped(text: str) -> str:
    """Text that stays as it is where the shell replaces."""
    for sign in _MEANINGFUL:
        text = text.replace(sign, "\\" + sign)
    return text
