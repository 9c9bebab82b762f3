"""Which Fleetest this is."""

from __future__ import annotations

from importlib import metadata

__all__ = ["version"]


def version() -> str:
    """The installed version."""
    return metadata.version("fleetest")
