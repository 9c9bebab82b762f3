"""The tree of errors is as its docstring draws it."""

from __future__ import annotations

import re

import fleetest.common.client_blobs
import fleetest.common.suite  # noqa: F401 - their errors are in the picture
from fleetest.common import errors
from fleetest.common.errors import FleetestError, NotFound


def test_the_picture_shows_every_class_of_this_package_and_no_other() -> None:
    drawn = set(re.findall(r"\+-- (\w+)", errors.__doc__ or ""))
    ours = {each.__name__ for each in _below(FleetestError) if each.__module__.startswith("fleetest.common.")}

    assert drawn == ours


def test_the_public_names_are_the_classes_of_the_module() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}

    assert set(errors.__all__) == classes


def test_an_error_reads_as_message_and_hint() -> None:
    assert str(NotFound("no run 7", hint="list runs: fleetest ls")) == "no run 7\nlist runs: fleetest ls"
    assert str(NotFound("no run 7")) == "no run 7"


def _below(root: type[FleetestError]) -> list[type[FleetestError]]:
    return [each for child in root.__subclasses__() for each in (child, *_below(child))]
