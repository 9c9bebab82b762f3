"""
Text from outside, made fit to be shown.

The name of a test can hold anything: an escape sequence that rewrites the screen, a mark that turns the reading
direction, a workflow command for the CI system that reads the log. Shown, it must be what it looks like.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["first_line", "harmless", "one_line", "without_colours"]

# ECMA-48, 8.3.117 (SGR): colours and the like, which a traceback may legitimately carry.
_COLOURS: Final = re.compile(r"\x1b\[[0-9;:]*m")

_UNFIT: Final = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but for tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they turn the reading direction (UAX #9)
    "\u2028\u2029"  # line separators that few expect
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # unseen
    "\ud800-\udfff"  # halves of characters, which no stream can carry
    "]"
)

# GitHub's runner takes commands from any line of the log: `::` at its start, `##[` anywhere.
_COMMAND: Final = re.compile(r"^(\s*):(?=:)|##(?=\[)", re.MULTILINE)


def without_colours(text: str) -> str:
    """The text without SGR sequences."""
    return _COLOURS.sub("", text)


def harmless(text: str) -> str:
    r"""The text, with colours taken out and everything that could play a trick written as `\x1b` or `\u202e`."""
    shown = _UNFIT.sub(_escaped, without_colours(text).replace("\r\n", "\n"))
    return _COMMAND.sub(lambda match: f"{match[0]} ", shown)


def one_line(text: str, *, limit: int = 300) -> str:
    """The harmless text on one line, cut when it is longer than `limit`."""
    flat = " ".join(harmless(text[: limit * 4]).split())
    return flat if len(flat) <= limit else f"{flat[: limit - 1]}…"


def first_line(text: str) -> str:
    """The first line of the text, harmless and bounded."""
    return one_line(text.strip().partition("\n")[0])


def _escaped(match: re.Match[str]) -> str:
    if match[0].isascii():
        return f"\\x{ord(match[0]):02x}"
    return match[0].encode("ascii", "backslashreplace").decode("ascii")
