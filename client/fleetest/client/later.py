"""
Modules that are loaded when they are first used.

To make the classes of a run's events takes as long as to hand the run in. Nobody needs them until the master has
answered, and then the cluster works meanwhile.
"""

from __future__ import annotations

from importlib import import_module

__all__ = ["Later"]


class Later:
    """
    Stands for a module.

    Args:
        name: of the module, in full.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> object:
        found = getattr(import_module(self._name), attribute)
        setattr(self, attribute, found)  # to look for it each time takes longer than what it does
        return found
