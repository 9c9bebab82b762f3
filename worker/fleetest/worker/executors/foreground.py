"""A process in the foreground of this one: it has our terminal and our standard streams, as a shell needs them."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import termios
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import psutil

from fleetest.common.errors import DependencyUnavailable
from fleetest.common.threads import in_thread

__all__ = ["keyboard_is_the_childs", "run_in_foreground"]

_PR_SET_CHILD_SUBREAPER: Final = 36
_GRACE_SECONDS: Final = 2.0
_SIGNAL_ENDED: Final = 128
_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126


async def run_in_foreground(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> int:
    """
    Fulfils `Environment.attach` for a process of this machine.

    Raises:
        DependencyUnavailable: it could not be started.
    """
    _adopt_orphans()
    others = {child.pid for child in psutil.Process().children()}
    with _terminal_kept(), keyboard_is_the_childs():
        try:
            process = await asyncio.create_subprocess_exec(*argv, env=env, cwd=cwd)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            sys.stderr.write(f"fleetest: {error.filename}: {error.strerror}\n")
            return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
        except OSError as error:
            raise DependencyUnavailable(f"{argv[0]} could not be started: {error.strerror}") from error
        try:
            exit_code = await process.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGHUP)  # what a shell takes as the end of its terminal
                process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _GRACE_SECONDS)
            raise
        finally:
            await in_thread(_end_descendants, others)
    return exit_code if exit_code >= 0 else _SIGNAL_ENDED - exit_code


@contextlib.contextmanager
def keyboard_is_the_childs() -> Iterator[None]:
    """
    Ctrl-C and its like reach every process in the foreground; this one leaves them to the other. They are not ignored,
    which the other would inherit.
    """
    before = {number: signal.signal(number, _leave) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    del number, frame


def _adopt_orphans() -> None:
    """What loses its parent becomes our child, and is found; elsewhere than on Linux it escapes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_descendants(others: Collection[int]) -> None:
    """Kill all children but the `others`, and theirs, until there is none left: a dead one hands us its own."""
    while left := [child for child in psutil.Process().children() if child.pid not in others]:
        for child in left:
            for process in (*_below(child), child):
                with contextlib.suppress(psutil.Error):
                    process.kill()
        psutil.wait_procs(left, timeout=1)


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


@contextlib.contextmanager
def _terminal_kept() -> Iterator[None]:
    """Have the terminal again, as it was, whatever the process made of it."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        group, modes = os.tcgetpgrp(terminal), termios.tcgetattr(terminal)
        try:
            yield
        finally:
            if group == os.getpgrp():  # else it was never ours
                # Whoever is in the background is stopped when it writes to the terminal; this is how to come back.
                before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
                with contextlib.suppress(OSError, termios.error):
                    os.tcsetpgrp(terminal, group)
                    termios.tcsetattr(terminal, termios.TCSADRAIN, modes)
                signal.signal(signal.SIGTTOU, before)
    finally:
        os.close(terminal)
