from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from fleetest.client.cli.invocation import invoke
from fleetest.client.connection import Persistence
from fleetest.common.backoff import Backoff
from tests.unit.client.scripted_master import ScriptedMaster


@pytest.fixture
def master() -> Iterator[ScriptedMaster]:
    master = ScriptedMaster()
    with master.serving() as address:
        master.address = address
        yield master


@pytest.fixture
def at_once() -> Persistence:
    """As persistent as always, without the waits."""
    return Persistence(backoff=Backoff(first=timedelta(milliseconds=1), longest=timedelta(milliseconds=1)))


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def fleetest(
    master: ScriptedMaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., Outcome]:
    """The command, run in an empty directory against the scripted master."""
    directory = tmp_path / "shop"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, environment: Mapping[str, str] | None = None) -> Outcome:
        base = {"FLEETEST_MASTER": master.address, "FLEETEST_DATA_DIR": str(tmp_path / "data")}
        code = invoke(arguments, {**base, **(environment or {})})
        out, err = (each.decode(errors="surrogateescape") for each in capfdbinary.readouterr())
        return Outcome(code, out, err)

    return run
