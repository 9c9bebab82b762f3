"""Suites: what a user writes in `fleetest.yaml`, read, checked and expanded into tasks."""

from __future__ import annotations

from fleetest.common.suite.inference import infer_suite
from fleetest.common.suite.loader import Suite, load_suite
from fleetest.common.suite.problems import Problem, SuiteInvalid
from fleetest.common.suite.schema import suite_schema

__all__ = ["Problem", "Suite", "SuiteInvalid", "infer_suite", "load_suite", "suite_schema"]
