"""Suites: what a user writes in `fleetest.yaml`, read, checked and expanded into tasks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleetest.common.suite.inference import infer_suite
    from fleetest.common.suite.loader import Suite, load_suite
    from fleetest.common.suite.problems import Problem, SuiteInvalid
    from fleetest.common.suite.schema import suite_schema

__all__ = ["Problem", "Suite", "SuiteInvalid", "infer_suite", "load_suite", "suite_schema"]

_MODULE_OF = {
    "Problem": "problems",
    "Suite": "loader",
    "SuiteInvalid": "problems",
    "infer_suite": "inference",
    "load_suite": "loader",
    "suite_schema": "schema",
}


def __getattr__(name: str) -> object:
    """Imports a public name when it is first asked for: what checks suites takes long to load."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"fleetest.common.suite.{_MODULE_OF[name]}"), name)
