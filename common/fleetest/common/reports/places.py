"""Names files as the workspace does."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

__all__ = ["named_below"]


def named_below(file: str, root: str) -> str:
    """A path or a `file:` URL relative to `root`; one that is not below it stays as it is."""
    if file.startswith("file:"):
        file = unquote(urlsplit(file).path) if len(file) < 10_000 else ""  # noqa: PLR2004 - longer than any path
    file = file.removeprefix("./")
    below = root.rstrip("/") + "/"
    return file.removeprefix(below) if root else file
