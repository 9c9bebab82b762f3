"""Finds kinds by name: ours, and those that other packages registered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from fleetest.common.errors import DependencyUnavailable
from fleetest.common.kinds.kind import Kind

__all__ = ["IMPLIED", "all_kinds", "kind_names", "kind_of"]

_GROUP: Final = "fleetest.kinds"
_OURS: Final = {
    "pytest": "fleetest.common.kinds.pytest:Pytest",
    "command": "fleetest.common.kinds.command:Command",
    "rest": "fleetest.common.kinds.checks:Rest",
    "graphql": "fleetest.common.kinds.checks:Graphql",
    "robot": "fleetest.common.kinds.robot:Robot",
    "k6": "fleetest.common.kinds.k6:K6",
    "zap": "fleetest.common.kinds.zap:Zap",
    "playwright": "fleetest.common.kinds.playwright:Playwright",
    "performance": "fleetest.common.kinds.performance:Performance",
    "service": "fleetest.common.kinds.service:ServiceKind",
}
IMPLIED: Final = ("command", "pytest")
"""The kinds that a task need not name: one of their keys tells."""


@cache
def kind_of(name: str) -> Kind | None:
    """
    The kind of this name; `None` when nobody registered one.

    Raises:
        DependencyUnavailable: the package that registered it is broken.
    """
    # Ours come first, and without a look at every installed package.
    point = EntryPoint(name, _OURS[name], _GROUP) if name in _OURS else _others().get(name)
    if point is None:
        return None
    try:
        kind: Kind = point.load()()
    except Exception as error:
        package = point.dist.name if point.dist is not None else point.value
        raise DependencyUnavailable(
            f"the kind of test '{name}' cannot be loaded: {error}", hint=f"Mend or remove the package {package}."
        ) from error
    return kind


def kind_names() -> tuple[str, ...]:
    """Of all kinds, ours first."""
    return *_OURS, *(name for name in _others() if name not in _OURS)


def all_kinds() -> Iterator[Kind]:
    """All that can be loaded. A broken one is told of when a task asks for it."""
    for name in kind_names():
        with suppress(DependencyUnavailable):
            if kind := kind_of(name):
                yield kind


@cache
def _others() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=_GROUP)}
