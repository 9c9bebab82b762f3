"""Which suite `fleetest run` means: a file named, a file found, or a command line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleetest.common.errors import InvalidRequest
from fleetest.common.limits import MAX_SUITE_BYTES

__all__ = ["SuiteText", "default_project", "find_suite"]

_FILE_NAMES: Final = ("fleetest.yaml", "fleetest.yml")


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteText:
    """
    A suite that has not been read yet.

    Args:
        source: what messages call it.
        root: the directory that is the tests' workspace.
        inferred: there is no file; the text was made of a command line.
    """

    text: str
    source: str
    root: Path
    inferred: bool = False


def find_suite(
    file: Path | None, command: Sequence[str], *, directory: Path, environment: Mapping[str, str]
) -> SuiteText:
    """
    The suite of a named file; of a command line; else `fleetest.yaml` of the directory; else one that runs pytest.

    Raises:
        InvalidRequest: a file and a command are both given, or the file cannot be read.
    """
    if file is not None and command:
        raise InvalidRequest(
            "a suite file and a command are given", hint="Leave one of them out: the file says what to run."
        )
    if file is None and not command:
        file = next((directory / name for name in _FILE_NAMES if (directory / name).is_file()), None)
    if file is not None:
        return SuiteText(text=_read(file), source=file.name, root=file.absolute().parent)
    from fleetest.common.suite import infer_suite

    text = infer_suite(command, project=default_project(directory), python=_active_python(environment))
    return SuiteText(text=text, source="the inferred suite", root=directory, inferred=True)


def default_project(directory: Path, remote: Callable[[Path], str] | None = None) -> str:
    """The name of the repository that `origin` leads to, else of the directory."""
    url = (remote or _origin)(directory)
    name = re.split(r"[/:\\]", url.rstrip("/").removesuffix(".git"))[-1] if url else ""
    return name or directory.resolve().name or "project"


def _origin(directory: Path) -> str:
    from fleetest.common.git import run_git

    return (run_git(directory, "config", "--get", "remote.origin.url") or "").strip()


def _active_python(environment: Mapping[str, str]) -> str:
    """The interpreter of the activated virtual environment, which need not be the one that Fleetest runs in."""
    active = environment.get("VIRTUAL_ENV") or environment.get("CONDA_PREFIX")
    candidate = Path(active) / "bin" / "python" if active else None
    return str(candidate) if candidate and os.access(candidate, os.X_OK) else sys.executable


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_SUITE_BYTES + 1)
    except OSError as error:
        raise InvalidRequest(
            f"the suite {str(file)!r} cannot be read: {error.strerror}",
            hint="Name a suite file, or a command after `--`: fleetest run -- pytest tests",
        ) from error
    if len(content) > MAX_SUITE_BYTES:
        raise InvalidRequest(f"the suite {str(file)!r} is larger than {MAX_SUITE_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{file.name}: byte {error.start} is not UTF-8", hint="Save the file as UTF-8.") from error
