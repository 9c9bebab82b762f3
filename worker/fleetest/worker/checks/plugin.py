"""
The pytest plugin: collects files of checks.

Files called `*.rest.yaml` or `*.graphql.yaml` (or `.yml`) are found in directories; any other YAML file is one when it
is named on the command line or matches ``--checks-files``. Reports of their items carry `fleetest_assertions`: a list
of mappings with `name`, `passed` and `message`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = [
    "pytest_addoption",
    "pytest_collect_file",
    "pytest_configure",
    "pytest_runtest_makereport",
]

_YAML = (".yaml", ".yml")
_KINDS = (".rest", ".graphql")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Its options."""
    group = parser.getgroup("checks", "REST and GraphQL checks")
    group.addoption(
        "--checks-files",
        action="append",
        default=[],
        metavar="GLOB",
        help="Run the files of checks that this matches, whatever they are called.",
    )
    group.addoption("--checks-base-url", default="", metavar="URL", help="Instead of the `base_url` of the files.")
    group.addoption(
        "--checks-variable",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="Instead of the files' variable NAME; VALUE is JSON, or else a text.",
    )
    group.addoption(
        "--checks-secret",
        action="append",
        default=[],
        metavar="NAME",
        help="The environment variable NAME holds a secret: it is never shown.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """
    Raises:
        UsageError: options make no sense, or a package is missing.
    """
    try:
        from fleetest.worker.checks.items import SURROUNDINGS
        from fleetest.worker.checks.scenario import Surroundings
    except ImportError as error:
        message = f"checks need what is not installed here ({error}); install it: pip install 'fleetest[checks]'"
        raise pytest.UsageError(message) from error
    here = config.invocation_params.dir
    config.stash[SURROUNDINGS] = Surroundings(
        root=here if config.rootpath.is_relative_to(here) else config.rootpath,
        base_url=config.getoption("--checks-base-url"),
        variables=dict(map(_variable, config.getoption("--checks-variable"))),
        env=os.environ,
        secrets=frozenset(config.getoption("--checks-secret")),
    )
    if globs := config.getoption("--checks-files"):
        config.args = [str(path) for glob in globs for path in _matching(glob, here)]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A file of checks, if it is one."""
    if file_path.suffix not in _YAML:
        return None
    if Path(file_path.stem).suffix not in _KINDS and not parent.session.isinitpath(file_path):
        return None
    from fleetest.worker.checks.items import CheckFile

    file: pytest.Collector = CheckFile.from_parent(parent, path=file_path)
    return file


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    """Give the report of a step its assertions."""
    outcome: Any = yield
    told = getattr(item, "told", None)
    if call.when == "call" and told:
        outcome.get_result().fleetest_assertions = told


def _variable(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise pytest.UsageError(f"--checks-variable is NAME=VALUE, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _matching(glob: str, directory: Path) -> list[Path]:
    try:
        found = sorted(path for path in directory.glob(glob) if path.is_file())
    except (ValueError, NotImplementedError) as error:
        raise pytest.UsageError(f"{glob!r} is not a glob for files below the working directory: {error}") from error
    if not found:
        raise pytest.UsageError(f"no file matches {glob!r}")
    return found
