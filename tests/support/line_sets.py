"""Sets of lines, as `fleetest.common.coverage` has them."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["bits_of"]


def bits_of(lines: Iterable[int]) -> bytes:
    """The set of these lines."""
    content = bytearray()
    for line in lines:
        if line // 8 >= len(content):
            content.extend(bytes(line // 8 + 1 - len(content)))
        content[line // 8] |= 1 << line % 8
    return bytes(content)
