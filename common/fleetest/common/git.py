"""Asking Git, where there is one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["run_git", "tracked_although_ignored"]

_TIMEOUT_SECONDS: Final = 10.0

# What `git rev-parse --local-env-vars` lists first: in a hook they name another repository than the one asked for.
_OF_ANOTHER_REPOSITORY: Final = frozenset(
    {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR"}
)


def run_git(directory: Path, *arguments: str) -> str | None:
    """
    What Git prints, or nothing: without Git, without a repository, when it fails, or takes longer than ten seconds.

    It changes nothing, not even the index (GIT_OPTIONAL_LOCKS), and asks nobody.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _OF_ANOTHER_REPOSITORY}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        finished = subprocess.run(
            ["git", *arguments],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return os.fsdecode(finished.stdout)


def tracked_although_ignored(root: Path) -> frozenset[str]:
    """The paths below `root` that the repository holds although its ignore files name them (`git add --force`)."""
    listed = run_git(root, "ls-files", "--cached", "--ignored", "--exclude-standard", "-z")
    return frozenset(path for path in (listed or "").split("\0") if path)
