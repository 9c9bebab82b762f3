"""Pytest suites, in resident sessions."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import BeforeValidator, Field, model_validator

from fleetest.common.kinds.kind import Work
from fleetest.common.suite.fields import (
    BY_VALUE,
    PytestArguments,
    RelativePath,
    RelativePaths,
    Share,
    Texts,
    refused,
    switch_as_mapping,
)
from fleetest.common.suite.problems import Fault
from fleetest.common.suite.pytest_args import interpret_pytest_args
from fleetest.common.suite.section import Section
from fleetest.common.tasks import CachePolicy, Coverage, RunnerType, Split

__all__ = ["CacheModel", "CoverageModel", "Pytest", "PytestKeys", "SessionKeys", "session_work"]

_DEFAULT_CACHE: Final = CachePolicy()


class CacheModel(Section):
    """Whether a case that passed before, and of which nothing has changed since, is run again."""

    inputs: RelativePaths = Field(
        [], description="Globs of the files that tests read; what they import is found without being named."
    )
    sample: Share = Field(
        _DEFAULT_CACHE.sample, description="The share of cached cases that is run all the same, as a check: `5%`."
    )


_Cache = Annotated[CacheModel | None, BeforeValidator(switch_as_mapping, json_schema_input_type=bool | CacheModel)]


class CoverageModel(Section):
    """What coverage.py is told; what is not said here, its own configuration says."""

    source: Texts = Field([], description="Directories and packages of which is measured what tests execute.")
    branch: bool | None = Field(None, description="Whether branches are measured, beside lines.")
    fail_under: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = Field(
        None, description="The percentage below which the run fails."
    )
    config: RelativePath = Field(
        "", description="coverage.py's configuration file, relative to where the tests start; else it finds its own."
    )


_Coverage = Annotated[
    CoverageModel | None, BeforeValidator(switch_as_mapping, json_schema_input_type=bool | CoverageModel)
]


class SessionKeys(Section):
    """Keys of whatever is run in pytest sessions."""

    split: Annotated[Split, BY_VALUE] = Field(Split.CASE, description="What must stay together in one shard.")
    maxfail: int = Field(0, ge=0, le=1_000_000, description="Stop the task after so many failures; 0 means never.")
    cache: _Cache = Field(None, description="Take results of earlier runs for cases of which nothing has changed.")
    coverage: _Coverage = Field(
        None, description="Measure with coverage.py what the tests execute, and combine it into reports."
    )

    @model_validator(mode="after")
    def _check_cache_and_coverage(self) -> Self:
        if self.cache is not None and self.coverage is not None:
            message = "a task with a cache cannot measure coverage: cases that are not run execute nothing"
            hint = "Write `cache: false` or `coverage: false`, or two tasks."
            raise refused(Fault(message=message, hint=hint, path=("coverage",)))
        return self


class PytestKeys(SessionKeys):
    """Keys of a pytest task."""

    args: PytestArguments = Field([], description="pytest's arguments: a list, or a text split as a shell does.")


class Pytest:
    """Fulfils `Kind` for pytest suites."""

    name = "pytest"
    keys = PytestKeys
    one_of: tuple[str, ...] = ()
    example = "args: [tests]"
    implied_by = ("args",)

    def work(self, keys: PytestKeys) -> Work:
        return session_work(keys, keys.args)


def session_work(keys: SessionKeys, args: list[str]) -> Work:
    """
    What pytest sessions are to do.

    Args:
        args: as on pytest's command line; some mean something for the task as a whole.
    """
    options = interpret_pytest_args(args)
    return Work(
        runner=RunnerType.PYTEST,
        args=options.args,
        split=keys.split,
        maxfail=keys.maxfail if options.maxfail is None else options.maxfail,
        last_failed=options.last_failed,
        cache=CachePolicy(inputs=tuple(keys.cache.inputs), sample=keys.cache.sample) if keys.cache else None,
        coverage=_coverage(keys.coverage) if keys.coverage else None,
    )


def _coverage(keys: CoverageModel) -> Coverage:
    return Coverage(source=tuple(keys.source), branch=keys.branch, fail_under=keys.fail_under, config=keys.config)
