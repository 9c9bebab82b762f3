"""How durations, sizes, counts and states read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from fleetest.common.states import RunState, TaskState, WorkerState

if TYPE_CHECKING:
    from fleetest.client.events import PerformanceMeasured
    from fleetest.client.view.fold import Eta
    from fleetest.common.coverage import CoverageTotals
    from fleetest.common.results import Counts

__all__ = [
    "ago",
    "ahead",
    "clock_text",
    "counts_text",
    "coverage_text",
    "duration_text",
    "eta_text",
    "latency_text",
    "load_text",
    "percent_text",
    "plural",
    "rate_text",
    "share_text",
    "short_id",
    "size_text",
    "state_style",
    "verdict_text",
]

_WORTH_WAITING: Final = timedelta(seconds=1)
_SHORT_ID: Final = 13
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400

_STYLES: Final[Mapping[str, str]] = {
    "passed": "green",
    "failed": "red",
    "errored": "red",
    "timed_out": "red",
    "cancelled": "yellow",
    "skipped": "dim",
    "running": "cyan",
    "busy": "cyan",
    "idle": "green",
    "draining": "yellow",
    "offline": "dim",
}


def short_id(run_id: str) -> str:
    """The part of a run id that holds its millisecond: enough to name a run, and accepted by every command."""
    return run_id[:_SHORT_ID]


def plural(count: int, noun: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def duration_text(duration: timedelta) -> str:
    """`0.04s`, `3.2s`, `2m 05s`, `1h 02m`."""
    seconds = max(0.0, duration.total_seconds())
    if seconds < 1:
        return f"{seconds:.2f}s"
    if seconds < _MINUTE:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02}s"
    return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE:02}m"


def clock_text(duration: timedelta) -> str:
    """`0:42`, `12:05`, `1:02:03`: for what changes every second."""
    whole = max(0, round(duration.total_seconds()))
    minutes, seconds = divmod(whole, _MINUTE)
    if whole < _HOUR:
        return f"{minutes}:{seconds:02}"
    return f"{minutes // _MINUTE}:{minutes % _MINUTE:02}:{seconds:02}"


def eta_text(eta: Eta | None) -> str:
    """`about 0:18 left`, `at least 0:18 left`; empty when nothing is known, or next to nothing left."""
    if eta is None or eta.left < _WORTH_WAITING:
        return ""
    return f"{'about' if eta.whole else 'at least'} {clock_text(eta.left)} left"


def latency_text(duration: timedelta) -> str:
    """`0.42 ms`, `12.3 ms`, `148 ms`, `1.27 s`."""
    milliseconds = duration / timedelta(milliseconds=1)
    if milliseconds >= 1000:  # noqa: PLR2004 - from there on seconds
        return f"{milliseconds / 1000:.2f} s"
    return f"{milliseconds:.3g} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"  # noqa: PLR2004 - three digits


def rate_text(rate: float) -> str:
    """`39.9/s`, `1,240/s`."""
    return f"{rate:.1f}/s" if rate < 100 else f"{rate:,.0f}/s"  # noqa: PLR2004 - three digits


def share_text(share: float) -> str:
    """`0%`, `0.25%`, `12%`."""
    return f"{share * 100:.2g}%" if share < 1 else "100%"


def load_text(load: PerformanceMeasured) -> str:
    """`39.9/s, p95 148 ms, 0% errors, 12 users`: over the last seconds."""
    return (
        f"{rate_text(load.throughput)}, p95 {latency_text(load.p95)}, {share_text(load.error_rate)} errors, "
        f"{plural(load.users, 'user')}"
    )


def ago(moment: datetime | None, now: datetime) -> str:
    """`3s ago`, `2h ago`; empty without a moment."""
    return f"{_rough(now - moment)} ago" if moment is not None else ""


def ahead(moment: datetime, now: datetime) -> str:
    """`in 3s`, `in 29d`."""
    return f"in {_rough(moment - now)}"


def _rough(duration: timedelta) -> str:
    seconds = max(0, int(duration.total_seconds()))
    for length, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def size_text(size_bytes: int) -> str:
    """`512 B`, `3.4 MiB`."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:  # noqa: PLR2004 - the step of binary units
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def counts_text(counts: Counts) -> str:
    """`338 passed, 2 failed, 1 flaky`; empty when nothing has ended."""
    shown = (
        (counts.passed, "passed"),
        (counts.failed, "failed"),
        (counts.error, "errors" if counts.error > 1 else "error"),
        (counts.timed_out, "timed out"),
        (counts.skipped, "skipped"),
        (counts.xfailed, "xfailed"),
        (counts.xpassed, "xpassed"),
        (counts.flaky, "flaky"),
        (counts.cached, "cached"),
    )
    return ", ".join(f"{count:,} {word}" for count, word in shown if count)


def percent_text(totals: CoverageTotals) -> str:
    """`87.4 %`; less than all is never shown as all."""
    percent = totals.percent
    return f"{min(percent, 99.9) if percent < 100 else percent:.1f} %"  # noqa: PLR2004 - percent


def coverage_text(totals: CoverageTotals) -> str:
    """`87.4 % of 1,204 lines and 310 branches`."""
    branches = f" and {totals.branches:,} branches" if totals.branches else ""
    return f"{percent_text(totals)} of {plural(totals.lines, 'line')}{branches}"


def verdict_text(counts: Counts) -> str:
    """The shortest word on counts: `4 of 97 failed`, `12 of 97`, `97 cases`."""
    if counts.bad:
        return f"{counts.bad:,} of {counts.planned:,} failed"
    if counts.done < counts.planned:
        return f"{counts.done:,} of {counts.planned:,}"
    return plural(counts.done, "case") if counts.done else ""


def state_style(state: TaskState | RunState | WorkerState) -> str:
    """A colour; none for states that need no eye."""
    return _STYLES.get(state.value, "")
