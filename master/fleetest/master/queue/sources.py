"""The Lua scripts, which lie beside the modules that run them."""

from __future__ import annotations

from importlib import resources

__all__ = ["lua"]


def lua(name: str) -> str:
    """The text of the script `name`, without its ending."""
    return resources.files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
