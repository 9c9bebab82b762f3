"""
The version that setuptools-scm, or hatch-vcs on top of it, derives from Git's tags.

A workspace holds no `.git`, so on a worker neither could. Source: the code of setuptools-scm 10 and its documentation
of the default schemes, guess-next-dev and node-and-date, and of no-local-version, which many projects set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from fleetest.common.git import run_git

__all__ = ["described_version"]

_DESCRIBED: Final = re.compile(r"(?P<tag>.+)-(?P<distance>\d+)-g(?P<node>[0-9a-f]+)(?P<dirty>-dirty)?")
_TAG: Final = re.compile(r"(?:[\w-]+-)?[vV]?(?P<version>\d+(?:\.\d+){0,2}[^+]*)(?:\+.*)?")

# PEP 440, "Public version identifiers", with the separators that its normalisation takes away.
_VERSION: Final = re.compile(
    r"""(?P<release>\d+(?:\.\d+)*)
        (?:[._-]?(?P<phase>a|b|c|rc|alpha|beta|pre|preview)[._-]?(?P<phase_number>\d*))?
        (?:[._-]?post[._-]?(?P<post>\d+))?
        (?:[._-]?dev[._-]?(?P<dev>\d+))?""",
    re.VERBOSE | re.IGNORECASE,
)
_PHASES: Final = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}
_NODE_DIGITS: Final = 9  # with the "g" before them ten characters


@dataclass(frozen=True, slots=True)
class _Description:
    tag: str
    distance: int
    node: str
    dirty: bool


def described_version(root: Path, *, today: date) -> str:
    """
    The version, or nothing: the project uses neither tool, it is not the repository's top, or its tag is no version.

    Args:
        root: of the project.
        today: marks a version with uncommitted changes.
    """
    options = _options(root)
    if options is None or run_git(root, "rev-parse", "--show-prefix") != "\n":
        return ""
    described = _describe(root)
    if described is None:
        return ""
    version = _normalised(described.tag)
    if not version or not (described.distance or described.dirty):
        return version
    public = f"{_next(version)}.dev{described.distance}"
    if options.get("local_scheme") == "no-local-version":
        return public
    day = f".d{today:%Y%m%d}" if described.dirty else ""
    return f"{public}+g{described.node[:_NODE_DIGITS]}{day}"


def _options(root: Path) -> Mapping[str, Any] | None:
    """How the project configures either tool; nothing when it uses none."""
    import tomllib  # most trees are asked for nothing of the sort, while their runs are to begin

    try:
        tools = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("tool", {})
        if (options := tools.get("setuptools_scm")) is not None:
            return dict(options)
        hatch = tools.get("hatch", {}).get("version", {})
        if hatch.get("source") == "vcs":
            return dict(hatch.get("raw-options", {}))
    except (OSError, ValueError, AttributeError, TypeError):
        pass  # no such file, or not one that a build could use; setup.py may still say it
    try:
        return {} if "use_scm_version" in (root / "setup.py").read_text(encoding="utf-8") else None
    except (OSError, ValueError):
        return None


def _describe(root: Path) -> _Description | None:
    output = run_git(root, "describe", "--dirty", "--tags", "--long", "--abbrev=40", "--match", "*[0-9]*")
    if output and (found := _DESCRIBED.fullmatch(output.strip())):
        return _Description(found["tag"], int(found["distance"]), found["node"], bool(found["dirty"]))
    node, count = run_git(root, "rev-parse", "HEAD"), run_git(root, "rev-list", "--count", "HEAD")
    if not node or not count:
        return None
    dirty = run_git(root, "status", "--porcelain", "--untracked-files=no")
    return _Description("0.0", int(count), node.strip(), bool(dirty))


def _normalised(tag: str) -> str:
    """The version of a tag, in PEP 440's normal form; empty when it holds none."""
    found = _TAG.fullmatch(tag)
    parts = _VERSION.fullmatch(found["version"]) if found else None
    if not parts:
        return ""
    version = ".".join(str(int(number)) for number in parts["release"].split("."))
    if parts["phase"]:
        phase = parts["phase"].lower()
        version += f"{_PHASES.get(phase, phase)}{int(parts['phase_number'] or 0)}"
    if parts["post"]:
        version += f".post{int(parts['post'])}"
    if parts["dev"]:
        version += f".dev{int(parts['dev'])}"
    return version


def _next(version: str) -> str:
    """What comes after `version`: its last number plus one, or what a `.dev` leads up to."""
    before_dev, dev, _ = version.partition(".dev")
    if dev:
        return before_dev
    return re.sub(r"\d+$", lambda number: str(int(number[0]) + 1), version)
