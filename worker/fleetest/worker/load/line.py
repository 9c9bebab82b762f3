"""
The generator's line to the agent, and the protocol that both speak on it.

One JSON object per line, ASCII, over a Unix socket that the agent listens on.

From the generator, each with an `event`:

- ``hello``: `protocol`, `token`. The first line; another token or protocol ends the connection.
- ``ready``: Locust and the scenario are loaded.
- ``unfit``: `reason`. It cannot be used, or something went wrong with the scenario; it ends.
- ``sample``: what it did in one second: `second`, `length_us` (how much of it the schedule goes on for), `users`,
  `arrivals`, `lag_us`, `last`, and `requests`, a list of ``[name, errors, histogram]``.

From the agent:

- ``{"begin": true}``: the schedule starts now.

When the line ends, nobody listens any more: the generator stops.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import gevent
from gevent.event import Event

__all__ = ["Line"]

_PROTOCOL = 1
_READ_BYTES = 1 << 16


class Line:
    """
    Attributes:
        begun: set when the schedule starts.
        ended: set when the agent is gone.
    """

    def __init__(self, path: str, token: str) -> None:
        self.begun = Event()
        self.ended = Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        self.say({"event": "hello", "protocol": _PROTOCOL, "token": token, "pid": os.getpid()})
        gevent.spawn(self._listen)

    def say(self, message: dict[str, Any]) -> None:
        """Nothing happens when nobody listens any more."""
        try:
            self._socket.sendall(json.dumps(message).encode("ascii") + b"\n")
        except OSError:
            self.ended.set()

    def _listen(self) -> None:
        unread = b""
        while True:
            try:
                content = self._socket.recv(_READ_BYTES)
            except OSError:
                content = b""
            if not content:
                break
            *lines, unread = (unread + content).split(b"\n")
            if any(json.loads(line).get("begin") for line in lines):
                self.begun.set()
        self.ended.set()
