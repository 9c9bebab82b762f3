"""What happens to requests, second by second: histograms of their latencies by name."""

from __future__ import annotations

from typing import Any

from hdrh.histogram import HdrHistogram

__all__ = ["Recorder"]

_LOWEST_US = 1
_HIGHEST_US = 3_600_000_000
_DIGITS = 3
_MOST_NAMES = 200
_OTHERS = "(others)"


class Recorder:
    """Keeps what ended since the last cut."""

    def __init__(self) -> None:
        self._histograms: dict[str, Any] = {}
        self._errors: dict[str, int] = {}
        self._names: set[str] = set()

    def record(self, name: str, seconds: float, *, failed: bool) -> None:
        """A request has ended."""
        if name not in self._names:
            if len(self._names) >= _MOST_NAMES:
                name = _OTHERS
            self._names.add(name)
        histogram = self._histograms.get(name)
        if histogram is None:
            histogram = self._histograms[name] = HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)
        histogram.record_value(min(max(round(seconds * 1e6), 0), _HIGHEST_US))
        if failed:
            self._errors[name] = self._errors.get(name, 0) + 1

    def cut(self) -> list[tuple[str, int, str]]:
        """Names, how many of each failed, and the latencies of all; those from now on come with the next cut."""
        histograms, self._histograms = self._histograms, {}
        errors, self._errors = self._errors, {}
        return [
            (name, errors.get(name, 0), histogram.encode().decode("ascii")) for name, histogram in histograms.items()
        ]
