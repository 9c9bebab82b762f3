"""
Stands between the agent and a test process, so that neither can leave anything behind for the other.

Started as ``python shim.py CONTROL ARGV...`` in a session of its own, where CONTROL is the number of
an inherited Unix socket. Line by line, the agent says ``signal N`` (to the main process), ``group N`` (to its process
group) or ``kill`` (everything); the shim says ``started PID`` and, once the whole tree is gone, ``exited STATUS
CPU_SECONDS READ_BYTES WRITTEN_BYTES PEAK_BYTES``, STATUS being minus the signal's number when a signal ended the main
process, and PEAK_BYTES the most memory that one process of the tree had.

- When the agent goes away, its end of the socket closes and the tree is killed.
- On Linux the shim is the reaper of the tree's orphans (`PR_SET_CHILD_SUBREAPER`), so daemons that tests start are
  found and killed too; and the main process dies with the shim (`PR_SET_PDEATHSIG`). Elsewhere the process group of
  the main process is what is killed.

Standard library only, and quick to start: it runs once per process. `contextlib` and `socket` alone would take a
quarter of that.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
from collections.abc import Sequence

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_BLOCK_BYTES = 512
_PEAK_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024  # of `ru_maxrss`
_NOT_EXECUTABLE = 126
_NOT_FOUND = 127
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class _OrGone:
    """Around what fails when the other side has ended, which is told elsewhere."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, OSError)


_OR_GONE = _OrGone()


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _run_main(argv: Sequence[str], shim: int) -> None:
    """In the child: become the main process. Does not return."""
    os.setsid()
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != shim:  # it died before the line above took effect
        os._exit(1)
    try:
        os.execvp(argv[0], list(argv))  # noqa: S606 - an argument list, as the agent gave it
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(_NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE)


def _children() -> list[int]:
    """The direct children of this process, zombies included."""
    me, found = os.getpid(), []
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib would cost every process its import
        if name.isdigit():
            with _OR_GONE:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - as above
                    # The command's name stands in brackets and may contain anything; the parent is the second after.
                    fields = file.read().rpartition(b")")[2].split()
                if int(fields[1]) == me:
                    found.append(int(name))
    return found


class _Shim:
    def __init__(self, control: int, argv: Sequence[str]) -> None:
        self._control = control
        self._unread = b""
        shim = os.getpid()
        self._main = os.fork()
        if self._main == 0:
            _run_main(argv, shim)
        self._status: int | None = None
        self._say(f"started {self._main}")

    def _say(self, line: str) -> None:
        with _OR_GONE:
            os.write(self._control, line.encode() + b"\n")

    def serve(self, wakeup: int) -> None:
        while self._status is None:
            ready, _, _ = select.select([self._control, wakeup], [], [])
            if wakeup in ready:
                os.read(wakeup, 4096)
                self._reap()
            if self._control in ready and not self._obey():
                break
        self._kill_tree()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        read, written = used.ru_inblock * _BLOCK_BYTES, used.ru_oublock * _BLOCK_BYTES
        peak = used.ru_maxrss * _PEAK_UNIT_BYTES
        self._say(f"exited {self._status} {used.ru_utime + used.ru_stime:.6f} {read} {written} {peak}")

    def _obey(self) -> bool:
        """Do what the agent says; false when all is to end."""
        try:
            content = os.read(self._control, 4096)
        except OSError:
            content = b""
        *lines, self._unread = (self._unread + content).split(b"\n")
        for line in lines:
            word, _, number = line.partition(b" ")
            if word == b"kill":
                return False
            if self._status is None:
                with _OR_GONE:
                    (os.kill if word == b"signal" else os.killpg)(self._main, int(number))
        return bool(content)

    def _reap(self) -> bool:
        """Collect what has ended; answers whether anything is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self._note(pid, status)

    def _note(self, pid: int, status: int) -> None:
        if pid == self._main:
            self._status = os.waitstatus_to_exitcode(status)

    def _kill_tree(self) -> None:
        """
        Kill every descendant.

        Whoever loses its parent becomes our child, and a dead child stays until it is collected, so this ends with no
        descendant left, whatever they fork meanwhile.
        """
        if self._status is None or sys.platform != "linux":
            with _OR_GONE:
                os.killpg(self._main, signal.SIGKILL)
        while self._reap():
            if sys.platform == "linux":
                for pid in _children():
                    with _OR_GONE:
                        os.kill(pid, signal.SIGKILL)
            self._note(*os.waitpid(-1, 0))


def main() -> None:
    """Run until the tree is gone."""
    control = int(sys.argv[1])
    os.set_inheritable(control, False)  # noqa: FBT003 - the standard library's own signature
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wakeup, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in _IGNORED:
        # Not SIG_IGN, which the main process would inherit between fork and exec.
        signal.signal(number, lambda *_: None)
    _Shim(control, sys.argv[2:]).serve(wakeup)


if __name__ == "__main__":
    main()
