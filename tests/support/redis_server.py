"""A real redis-server on a TCP port, with a password, as an operator runs one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import redis

from tests.support.ports import free_port

__all__ = ["RedisServer"]

PASSWORD = "open sesame/1"  # what a URL must quote


class RedisServer:
    """
    Args:
        directory: where it keeps its append-only file, which it reads when it is started again.

    Attributes:
        url: with the password, and a database that is not the first.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://:open%20sesame%2F1@127.0.0.1:{self._port}/3"

    def start(self) -> None:
        """Return when it answers."""
        self._directory.mkdir(parents=True, exist_ok=True)
        program = shutil.which("redis-server") or shutil.which("redis-server", path=str(Path(sys.executable).parent))
        assert program is not None, "needs a redis-server: `make test` installs one"
        options = {"port": self._port, "bind": "127.0.0.1", "dir": self._directory, "appendonly": "yes", "save": ""}
        arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._process = subprocess.Popen(
            [program, *arguments, "--requirepass", PASSWORD], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        limit = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None, "redis-server ended at once"
            assert time.monotonic() < limit, "redis-server does not answer"
            time.sleep(0.02)

    def stop(self) -> None:
        """Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
