"""Whole commands, timed from outside, as whoever types them waits for them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Done", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A command that has ended."""

    seconds: float
    exit_code: int
    output: str


def run(
    *command: str | Path, cwd: Path, environment: Mapping[str, str] | None = None, exit_codes: Sequence[int] = (0,)
) -> Done:
    """
    Run a command to its end. The event loop waits too: nothing else is to happen meanwhile.

    Raises:
        RuntimeError: it ended otherwise than it should.
    """
    start = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode not in exit_codes:
        raise RuntimeError(f"{command[0]} ended with exit code {done.returncode}: {done.stdout[-4000:]}")
    return Done(seconds=seconds, exit_code=done.returncode, output=done.stdout)
