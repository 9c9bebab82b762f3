"""
The session's line to the agent, and the protocol that both speak on it.

One JSON object per line, ASCII, over a Unix socket that the agent listens on. The agent's half is
`fleetest.worker.runners.pytest_channel`.

From the session, each with an `event`:

- ``hello``: `protocol`, `token`, `pid`. The first line; another token or protocol ends the connection.
- ``waiting``: pytest is imported, and no run has begun (only when `waits` is set, see below).
- ``unfit``: `reason`. It cannot be used for the run that it was told to begin, and ends.
- ``collect_error``: a result (see `outcome.py`) with outcome ``error``, for what could not be collected.
- ``collect_skip``: a result with outcome ``skipped``, for a module that skips itself.
- ``collected``: `cases`, a list of ``[id, file, line, group]``; as many such lines as it takes.
- ``fingerprints``: `files`, by file a digest of what its results depend on (see `fingerprint.py`); if the config asks
  for it. `problem` is empty, or why there are none.
- ``ready``: collection is over; `deselected`, `keep_going` (``--continue-on-collection-errors``), `mark`.
- ``start``: `id`. The case begins.
- ``done``: a result, and `mark` (see `marks.py`). The case's teardown is over. `uncacheable`, if there, says why the
  result must not be cached.
- ``measured``: `files`, each ``[path, lines, covered]``, of which more was executed than was said before (see
  `measuring.py`), with both sets of lines in base64; a `problem`, if any; and whether it is the `last` time. A data
  file has been handed in.
- ``cleared``: answers ``clear``; `problem` holds what the teardown that this needed had to say.
- ``untidy``: `problem`, what another teardown between two cases had to say.
- ``stopped``: nothing more will run; `kind` is ``exit``, ``limit``, ``internal`` or ``usage``, `reason` a line.

From the agent:

- ``{"begin": {"config", "environ", "directory"}}``: what was waited for: what to change in the `Config` and in the
  environment variables, and where to be.
- ``{"run": [ids]}``: run these after those that wait already. Ids are those of ``collected``.
- ``{"drop": [numbers]}``: forget these, which the agent has taken back (see `claims.py`); cases are numbered from 0 in
  the order in which ``run`` names them.
- ``{"flush": true}``: nothing more is known to come: run the last that waits without a next one.
- ``{"clear": true}``: forget those that have not begun, and tear down what was kept alive for them.
- ``{"end": true}``: run what waits, then end pytest in order.

Tests may replace anything in the standard library and close any descriptor. So what is needed is looked up at import,
the descriptor lies high, and it is looked at before each use: what is no longer our socket is never written to.

The `Config` that `launch.py` reads has: `socket`, `token`, `claims_file`, `mark` (what marks in the output begin with),
`dump_file` and `dump_signal` (stacks of all threads go there on that signal), `workspace`, `seed`, `own_hash_seed`
(whether the task sets PYTHONHASHSEED itself), `text_limit_bytes`, `arguments`, `fingerprints` (whether they are asked
for), `cache_inputs` (what tests may read and stay cacheable, or null when nothing of them is cached), `coverage` (null
when nothing is measured; else `directory` where to hand in data files, `interval_seconds` between two times while cases
wait, and for coverage.py `source`, `branch` and `config`), `compiled` (where `compiled.py` keeps something; empty when
nothing is kept), and `waits`: whether to wait for ``begin`` when pytest is imported.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import select
import socket
from typing import Any, Dict, List

__all__ = ["DESCRIPTOR_LOST", "PROTOCOL", "Channel"]

PROTOCOL = 1
DESCRIPTOR_LOST = 97  # the exit code that says so
_READ_BYTES = 1 << 16
_LOWEST = 900


class Channel:
    """Blocking, for one thread. Ends the process with `DESCRIPTOR_LOST` when its descriptor is gone."""

    def __init__(self, path: str, token: str) -> None:
        self._write, self._read, self._fstat = os.write, os.read, os.fstat
        self._exit, self._getpid, self._poll = os._exit, os.getpid, select.select
        self._encode, self._decode = json.JSONEncoder().encode, json.JSONDecoder().decode
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(path)
        self._descriptor = self.move_high(connection.detach())
        self._identity = self._look()
        self._unread = self._unsent = b""
        self.pid = self._getpid()
        # A child that a test forks must not keep the line open.
        os.register_at_fork(after_in_child=self._close_in_child)
        self.send({"event": "hello", "protocol": PROTOCOL, "token": token, "pid": self.pid})

    @staticmethod
    def move_high(descriptor: int) -> int:
        """Move a descriptor far up, out of the way of tests that close the low ones; it closes on exec."""
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        lowest = min(_LOWEST, max(3, soft - 16)) if soft > 0 else _LOWEST
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)
        os.close(descriptor)
        return moved

    def in_forked_child(self) -> bool:
        """Whether this process is not the session, but a child that a test forked and let return into pytest."""
        return self._getpid() != self.pid

    def leave(self, code: int) -> None:
        """End this process at once, without anything that pytest or Python would still do."""
        self._exit(code)

    def send_soon(self, message: Dict[str, Any]) -> None:
        """Send it with the next one, or before anything is waited for: each write wakes the agent. No test may run."""
        self._unsent += self._encode(message).encode("ascii") + b"\n"

    def send(self, message: Dict[str, Any]) -> None:
        self.send_soon(message)
        self.flush()

    def flush(self) -> None:
        """Send what waits."""
        content, self._unsent = self._unsent, b""
        if not content:
            return
        self._check()
        while content:
            try:
                content = content[self._write(self._descriptor, content) :]
            except OSError as error:
                self._exit(DESCRIPTOR_LOST if error.errno == errno.EBADF else 1)

    def receive(self, *, wait: bool) -> List[Dict[str, Any]]:
        """The messages that have come. An ended connection says ``end`` and ``clear``."""
        if wait:
            self.flush()
        self._check()
        if not wait and not self._poll([self._descriptor], [], [], 0)[0]:
            return []
        content = self._read(self._descriptor, _READ_BYTES)
        if not content:
            return [{"clear": True}, {"end": True}]
        *lines, self._unread = (self._unread + content).split(b"\n")
        return [self._decode(line.decode("ascii")) for line in lines]

    def _look(self) -> Any:
        status = self._fstat(self._descriptor)
        return status.st_dev, status.st_ino

    def _check(self) -> None:
        try:
            same = self._look() == self._identity
        except OSError:
            same = False
        if not same:
            self._exit(DESCRIPTOR_LOST)

    def _close_in_child(self) -> None:
        self._unsent = b""
        try:
            if self._look() == self._identity:
                os.close(self._descriptor)
        except OSError:
            pass
