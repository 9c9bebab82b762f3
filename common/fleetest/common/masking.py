"""Takes the values of secrets out of texts and output."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Final

__all__ = ["MASK", "Masker", "OutputMasker"]

MASK: Final = "***"

_SHORTEST_CHARACTERS: Final = 4
"""Shorter values would mask innocent text everywhere."""


class Masker:
    """
    Replaces secrets: as they are, line by line, and within Base64 at each of its three alignments.

    The alignments matter because a secret is often encoded behind something else, as in HTTP's `user:password`.
    """

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values for form in _forms(value)}
        self._forms = tuple(sorted(forms))

    @property
    def masks(self) -> bool:
        """Whether there is anything to be masked."""
        return bool(self._forms)

    def text(self, value: str) -> str:
        if not self._forms:
            return value
        encoded = value.encode("utf-8", "surrogatepass")
        if not any(form in encoded for form in self._forms):
            return value
        stream = self.stream()
        return (stream.feed(encoded) + stream.close()).decode("utf-8", "surrogatepass")

    def stream(self) -> OutputMasker:
        """For output that comes in pieces."""
        return OutputMasker(self._forms)


class OutputMasker:
    """
    Masks a stream of bytes, also where a secret lies across the border of two pieces.

    It holds back no more than what may be the beginning of a secret. Bytes that several secrets cover, overlapping
    ones included, become one mask.
    """

    def __init__(self, forms: tuple[bytes, ...]) -> None:
        self._forms = forms
        self._first_bytes = frozenset(form[0] for form in forms)
        self._held = b""
        self._masked = 0  # so many of the first held bytes belong to a mask that has been given out

    def feed(self, content: bytes) -> bytes:
        """What may be shown of all that came so far, and has not been given out yet."""
        if not self._forms:
            return content
        self._held += content
        return self._give_out(self._safe_length())

    def close(self) -> bytes:
        """The rest."""
        if not self._forms:
            return b""
        return self._give_out(len(self._held))

    def _safe_length(self) -> int:
        """Up to the first byte from which on the held bytes may be an unfinished secret."""
        longest = max(map(len, self._forms))
        for start in range(max(0, len(self._held) - longest + 1), len(self._held)):
            if self._held[start] not in self._first_bytes:
                continue
            tail = self._held[start:]
            if any(len(form) > len(tail) and form.startswith(tail) for form in self._forms):
                return start
        return len(self._held)

    def _give_out(self, length: int) -> bytes:
        shown = bytearray()
        position, masked = 0, self._masked
        for start, end in self._covered():
            if start >= length:
                break
            if start > masked:
                shown += self._held[max(position, masked) : start]
                shown += MASK.encode()
            elif not masked:
                shown += MASK.encode()
            position = masked = max(masked, end)
        shown += self._held[max(position, masked) : length]
        self._held = self._held[length:]
        self._masked = max(0, masked - length)
        return bytes(shown)

    def _covered(self) -> list[tuple[int, int]]:
        """Where secrets lie in the held bytes; touching and overlapping ones are one."""
        found = []
        for form in self._forms:
            start = self._held.find(form)
            while start >= 0:
                found.append((start, start + len(form)))
                start = self._held.find(form, start + 1)
        merged: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            else:
                merged.append((start, end))
        return merged


def _forms(value: str) -> Iterable[bytes]:
    for text in {value, *value.splitlines()}:
        if len(text.strip()) >= _SHORTEST_CHARACTERS:
            yield text.strip().encode("utf-8", "surrogatepass")
    if len(value) >= _SHORTEST_CHARACTERS:
        raw = value.encode("utf-8", "surrogatepass")
        for bytes_before in range(3):
            yield from _base64_forms(raw, bytes_before)


def _base64_forms(raw: bytes, bytes_before: int) -> Iterable[bytes]:
    """The characters that `raw` alone decides when so many bytes (modulo three) stand before it."""
    encoded = base64.b64encode(b"\0" * bytes_before + raw)
    first = -(-bytes_before * 8 // 6)
    last = (bytes_before + len(raw)) * 8 // 6
    form = encoded[first:last]
    yield form
    yield form.translate(bytes.maketrans(b"+/", b"-_"))
