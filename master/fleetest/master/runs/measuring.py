"""
What a load test has measured so far: the samples of its generators, put together.

A second counts once all generators have told of it. So what was measured while one of them was missing counts for
nothing: the load was not the one that was asked for. Histograms are added, percentiles taken of the sum.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from fleetest.common.latencies import Latencies, decode_counts
from fleetest.common.load import LIVE_WINDOW, LoadRow, LoadSample, Threshold
from fleetest.common.tasks import Task

__all__ = ["ALL", "Measured", "Measurement", "measurement_of"]

ALL: Final = ""
"""In place of a request's name: all of them."""

_OTHERS: Final = "(others)"
_MOST_NAMES: Final = 1000
_SHOWN_PERCENTILES: Final = (50.0, 95.0, 99.0)


@dataclass(slots=True)
class _Tally:
    """Requests of one name."""

    latencies: Latencies = field(default_factory=Latencies)
    errors: int = 0
    in_time: int = 0
    """Those that ended while the schedule went on: what ends after it says nothing of throughput."""

    def add(self, counts: Mapping[int, int], errors: int, *, in_time: bool) -> None:
        before = self.latencies.total
        self.latencies.add(counts)
        self.errors += errors
        self.in_time += self.latencies.total - before if in_time else 0

    def include(self, other: _Tally) -> None:
        self.latencies.add(other.latencies.counts)
        self.errors += other.errors
        self.in_time += other.in_time


@dataclass(slots=True)
class Measured:
    """
    What was measured over some time.

    Attributes:
        length: of the schedule that is in it.
        seconds: how many seconds were put together.
        arrivals: how many were begun, in the open model.
        lag: the longest that one of them was begun after it was due.
        users: at the end.
    """

    length: timedelta = timedelta()
    seconds: int = 0
    arrivals: int = 0
    lag: timedelta = timedelta()
    users: int = 0
    tallies: dict[str, _Tally] = field(default_factory=dict)

    @classmethod
    def of_second(cls, samples: Iterable[LoadSample]) -> Measured:
        """What all generators did in one second."""
        whole = cls(seconds=1)
        for sample in samples:
            whole.length = max(whole.length, sample.length)
            whole.arrivals += sample.arrivals
            whole.lag = max(whole.lag, sample.lag)
            whole.users += sample.users
            for request in sample.requests:
                counts = decode_counts(request.histogram)
                whole._tally(request.name or _OTHERS).add(counts, request.errors, in_time=bool(sample.length))
        together = _Tally()
        for tally in whole.tallies.values():
            together.include(tally)
        whole.tallies[ALL] = together
        return whole

    def include(self, other: Measured, requests: Collection[str] | None = None) -> None:
        """Go on with what came after this, with requests of all names or of some."""
        self.length += other.length
        self.seconds += other.seconds
        self.arrivals += other.arrivals
        self.lag = max(self.lag, other.lag)
        self.users = other.users
        for name, tally in other.tallies.items():
            if requests is None or name in requests:
                self._tally(name).include(tally)

    @property
    def requests(self) -> Sequence[str]:
        """The names of those that were made."""
        return sorted(name for name in self.tallies if name != ALL)

    def latencies(self, request: str = ALL) -> Latencies:
        """Of the requests of this name."""
        return self.tallies[request].latencies if request in self.tallies else Latencies()

    def count(self, request: str = ALL) -> int:
        """How many requests of this name there were."""
        return self.latencies(request).total

    def errors(self, request: str = ALL) -> int:
        """How many requests of this name failed."""
        return self.tallies[request].errors if request in self.tallies else 0

    def throughput(self, request: str = ALL) -> float:
        """How many requests of this name ended in a second of the schedule."""
        in_time = self.tallies[request].in_time if request in self.tallies else 0
        return in_time / self.length.total_seconds() if self.length else 0.0

    def value(self, threshold: Threshold) -> float:
        """What a threshold is about, in its unit; 0 of what there was none of."""
        request = threshold.request
        latencies, errors = self.latencies(request), self.errors(request)
        if (percentile := threshold.percentile) is not None:
            return latencies.percentiles([percentile])[0]
        match threshold.metric:
            case "error_rate":
                return errors / latencies.total if latencies.total else 0.0
            case "errors" | "requests" as metric:
                return float(errors if metric == "errors" else latencies.total)
            case "throughput":
                return self.throughput(request)
            case metric:
                return {"mean": latencies.mean, "min": latencies.least, "max": latencies.most}[metric]

    def row(self, request: str = ALL) -> LoadRow:
        """What is shown of the requests of one name."""
        latencies = self.latencies(request)
        p50, p95, p99, most = latencies.percentiles([*_SHOWN_PERCENTILES, 100.0])
        return LoadRow(
            request=request,
            requests=latencies.total,
            errors=self.errors(request),
            throughput=self.throughput(request),
            mean=timedelta(seconds=latencies.mean),
            p50=timedelta(seconds=p50),
            p95=timedelta(seconds=p95),
            p99=timedelta(seconds=p99),
            max=timedelta(seconds=most),
        )

    def rows(self) -> tuple[LoadRow, ...]:
        """Of each name, and last of all together; none before anything was measured."""
        names = [*self.requests, ALL] if self.count() else []
        return tuple(self.row(name) for name in names)

    @property
    def offered(self) -> float:
        """Arrivals in a second, in the open model."""
        return self.arrivals / self.length.total_seconds() if self.length else 0.0

    def _tally(self, name: str) -> _Tally:
        """Of a name; when there are too many, as of a locustfile with a name for each URL, the rest share one."""
        if name not in self.tallies and len(self.tallies) > _MOST_NAMES:
            name = _OTHERS
        return self.tallies.setdefault(name, _Tally())


@dataclass(slots=True)
class Measurement:
    """
    The samples of a task's generators.

    Args:
        generators: how many there are.
        keeps: for how many seconds what was measured in each is kept by itself.

    Attributes:
        whole: all that counts.
        recent: the last seconds that count, the newest last.
    """

    generators: int
    keeps: int = int(LIVE_WINDOW.total_seconds())
    whole: Measured = field(default_factory=Measured)
    recent: list[Measured] = field(default_factory=list)
    _heard: dict[int, int] = field(default_factory=dict)
    _done: set[int] = field(default_factory=set)
    _waiting: dict[int, list[LoadSample]] = field(default_factory=dict)
    _rows: tuple[int, tuple[LoadRow, ...]] = field(default=(0, ()), compare=False)

    def take(self, generator: int, sample: LoadSample) -> None:
        """What a generator did in one second; seconds come in order, and each once."""
        if generator in self._done or sample.second <= self._heard.get(generator, -1):
            return
        self._heard[generator] = sample.second
        if sample.last:
            self._done.add(generator)
        self._waiting.setdefault(sample.second, []).append(sample)
        for second in sorted(self._waiting):
            if not self._is_told(second):
                break
            self._count(Measured.of_second(self._waiting.pop(second)))

    def rows(self) -> tuple[LoadRow, ...]:
        """Of all that counts; made anew when there is more, since a run's summary is asked for all the time."""
        if self._rows[0] != self.whole.seconds:
            self._rows = self.whole.seconds, self.whole.rows()
        return self._rows[1]

    @property
    def complete(self) -> bool:
        """Whether all generators have told all."""
        return len(self._done) == self.generators

    @property
    def told(self) -> int:
        """How many seconds some generator has told of."""
        return max(self._heard.values(), default=-1) + 1

    def forget_seconds(self) -> None:
        """Nothing more comes: keep the whole alone."""
        self.recent.clear()
        self._waiting.clear()

    def over(self, window: timedelta, requests: Collection[str] = (ALL,)) -> Measured:
        """What was measured of these requests in the last seconds, as far as that is kept."""
        found = Measured()
        for each in self.recent[-max(1, round(window.total_seconds())) :]:
            found.include(each, requests)
        return found

    def _is_told(self, second: int) -> bool:
        told = sum(heard >= second or generator in self._done for generator, heard in self._heard.items())
        return told >= self.generators

    def _count(self, second: Measured) -> None:
        self.whole.include(second)
        self.recent = [*self.recent[1 - self.keeps :], second] if self.keeps > 1 else [second]


def measurement_of(task: Task) -> Measurement | None:
    """The empty one of a load test; `None` for any other task."""
    if task.load is None:
        return None
    window = max(task.load.abort_window, LIVE_WINDOW)
    return Measurement(generators=task.shards or 1, keeps=round(window.total_seconds()))
