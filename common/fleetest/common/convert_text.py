"""Text on its way into a message."""

from __future__ import annotations

__all__ = ["text_to_proto"]


def text_to_proto(value: str) -> str:
    r"""The text, with what UTF-8 cannot carry written as `\udc80`."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
