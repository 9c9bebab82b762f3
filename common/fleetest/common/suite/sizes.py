"""Sizes as people write them: `512MiB`, `2GB`."""

from __future__ import annotations

import re
from typing import Final

from fleetest.common.errors import InvalidRequest

__all__ = ["MAX_SIZE_BYTES", "SIZE_PATTERN", "format_size", "parse_size"]

MAX_SIZE_BYTES: Final = 1 << 50

_BINARY: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_UNITS: Final[dict[str, int]] = {unit.lower(): 1 << 10 * power for power, unit in enumerate(_BINARY)} | {
    unit: 10 ** (3 * power) for power, unit in enumerate(("kb", "mb", "gb", "tb"), start=1)
}

SIZE_PATTERN: Final = r"^\d{1,16}(\.\d{1,6})? ?([KkMmGgTt][Ii]?)?[Bb]$"
"""What `parse_size` reads, for a JSON Schema."""

_WHOLE: Final = re.compile(r"(\d{1,16}(?:\.\d{1,6})?) ?([kmgt]?i?b)", re.ASCII | re.IGNORECASE)


def parse_size(text: str) -> int:
    """
    Read a size; answers bytes, rounded to a whole one.

    `KiB MiB GiB TiB` are powers of 1024, `KB MB GB TB` of 1000. A bare `G` is refused: Docker and Kubernetes
    mean different things by it.

    Raises:
        InvalidRequest: it isn't one, or is larger than `MAX_SIZE_BYTES`.
    """
    match = _WHOLE.fullmatch(text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise InvalidRequest(f"'{text[:100]}' is not a size", hint="Write the unit, as in 512MiB or 2GiB.")
    # Whole numbers stay whole: a float has no more than 53 bits.
    size_bytes = int(match[1]) * unit if match[1].isdecimal() else round(float(match[1]) * unit)
    if size_bytes > MAX_SIZE_BYTES:
        raise InvalidRequest(f"{text} is more than {format_size(MAX_SIZE_BYTES)}")
    return size_bytes


def format_size(size_bytes: int) -> str:
    """
    The text in the largest unit of 1024 that shows the size exactly; `parse_size` reads it as the same size.

    Args:
        size_bytes: not negative.
    """
    power = 0
    while size_bytes and size_bytes % 1024 == 0 and power < len(_BINARY) - 1:
        size_bytes //= 1024
        power += 1
    return f"{size_bytes}{_BINARY[power]}"
