"""
The port that a kind of test fulfils.

A worker runs tests in two ways. It feeds cases to resident pytest sessions; or it starts a command, and reads the
reports that this leaves. A kind says which of the two its tests need, and with what: it is a module with a model of its
own keys, and a function from these to `Work`. So a new kind needs nothing of the master and nothing of the worker.

Others register theirs under the entry point group `fleetest.kinds`, by name. The package must be installed where suites
are read: with the client, which checks a suite before it submits it, and with the master.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleetest.common.load import LoadPlan
from fleetest.common.suite.section import Section
from fleetest.common.tasks import CachePolicy, Coverage, OnLost, ReportOptions, RunnerType, Service, Split

__all__ = ["Kind", "Work"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """
    What a worker is to do for a task.

    Args:
        runner: how its tests are run.
        args: pytest's arguments.
        command: argv of a command.
        shell: instead of `command`, a text for `/bin/sh`.
        cases: of a command, a text for `/bin/sh` that prints the names of its cases, one on each line; empty when the
            command is one whole.
        reports: globs of the files that hold the results of a command's cases.
        report_options: how they are read, by glob, where it is not as usual.
        split: what stays together in one shard.
        maxfail: stop the task after so many failures; 0 means never.
        last_failed: run only the cases that failed the last time.
        cache: how results of earlier runs are used; `None`: not at all.
        coverage: how is measured what its tests execute; `None`: not at all.
        gang: of a command without `cases`, or of a load test: its shards start together, and this becomes of them when
            one is lost.
        image: for a task that names none, where it is to run in a container.
        env: variables, beside those of the task, which come first.
        requirements: capabilities that a worker must have, beside those that the task names.
        artifacts: globs of files to keep, beside those that the task names; relative to where its tests start.
        service: of a service, how it serves.
        load: of a load test, what is asked of it.
        shards: how many parts there are, whatever the task says; `None`: as it says.
        cpu: cores that a shard reserves, for a task that does not say; `None`: as many as any other.
    """

    runner: RunnerType
    args: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    shell: str = ""
    cases: str = ""
    reports: tuple[str, ...] = ()
    report_options: Mapping[str, ReportOptions] = field(default_factory=dict)
    split: Split = Split.CASE
    maxfail: int = 0
    last_failed: bool = False
    cache: CachePolicy | None = None
    coverage: Coverage | None = None
    gang: OnLost | None = None
    image: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    requirements: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    service: Service | None = None
    load: LoadPlan | None = None
    shards: int | None = None
    cpu: float | None = None


class Kind(Hashable, Protocol):
    """
    One kind of test. Stateless.

    Attributes:
        name: what stands under `type` in a suite.
        keys: a model, derived from `Section`, of what a task of this kind has beside what every task has.
        one_of: names of keys of which a task has exactly one.
        example: how a task of this kind may look, for whoever wrote one without any of `one_of`.
        implied_by: names of keys each of which tells the kind, without `type`; for kinds of ours.
    """

    @property
    def name(self) -> str: ...

    @property
    def keys(self) -> type[Section]: ...

    @property
    def one_of(self) -> tuple[str, ...]: ...

    @property
    def example(self) -> str: ...

    @property
    def implied_by(self) -> tuple[str, ...]: ...

    def work(self, keys: Any) -> Work:
        """
        What a task is to do.

        Args:
            keys: an instance of the model, checked.
        """
