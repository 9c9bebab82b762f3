"""What one pytest process has measured of coverage, on its way to the master."""

from __future__ import annotations

import asyncio
import base64
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fleetest.common.coverage import FileCoverage, merged
from fleetest.common.errors import FleetestError
from fleetest.common.limits import MAX_ARTIFACT_BYTES
from fleetest.common.suite.combining import MEASURED
from fleetest.common.tasks import Coverage
from fleetest.worker.artifacts import matching_files
from fleetest.worker.assignments import Reporter
from fleetest.worker.ports import Blobs, Environment

__all__ = ["Measured"]

_INTERVAL_SECONDS: Final = 5.0
_OPEN_DIRECTORY: Final = 0o777
_OWN_DATA: Final = ".coverage"
_ROOT: Final = "root"


class Measured:
    """
    The data files of one process, and what it says of them while it runs.

    Each file that it hands in holds all that those before it held. When it has ended, files of other processes that
    coverage.py measured because its configuration says so are there, too.

    Args:
        environment: that the process runs in. Processes there may be another user's, who writes into the directory.
    """

    def __init__(self, environment: Environment, coverage: Coverage) -> None:
        self._top = environment.host_channel_directory
        self._seen_top = environment.channel_directory
        self._source = environment.source
        self._coverage = coverage
        self._name = f"{MEASURED}/{secrets.token_hex(8)}"
        self._directory = self._top / self._name
        self._news: dict[str, FileCoverage] = {}
        self._problem = ""
        self._whole = self._over = False
        self._stored: set[Path] = set()
        self._lock = asyncio.Lock()

    def prepare(self) -> None:
        """Make its directory; blocks."""
        for directory in (self._directory.parent, self._directory, self._directory / "work"):
            directory.mkdir(exist_ok=True)
            directory.chmod(_OPEN_DIRECTORY)
        (self._directory / _ROOT).write_text(str(self._source), encoding="utf-8")

    def config(self) -> Mapping[str, Any]:
        """What the session must know; see `coverage` in `channel.py`."""
        return {
            "directory": str(self._seen_top / self._name),
            "interval_seconds": _INTERVAL_SECONDS,
            "source": list(self._coverage.source),
            "branch": self._coverage.branch,
            "config": self._coverage.config,
        }

    def take(self, message: Mapping[str, Any]) -> None:
        """
        Take what the process says.

        Raises:
            ValueError: the message is malformed.
        """
        try:
            files = {
                str(path): FileCoverage(lines=base64.b64decode(lines), covered=base64.b64decode(covered))
                for path, lines, covered in message["files"]
            }
        except (KeyError, TypeError) as error:
            raise ValueError(f"not what tests have executed: {error}") from error
        for path, file in files.items():
            self._news[path] = merged(self._news.get(path, FileCoverage()), file)
        self._problem = str(message["problem"]) or self._problem
        self._whole = bool(message["last"])

    def end(self) -> None:
        """The process has ended, and has said all."""
        self._over = True
        if not self._whole:
            self._problem = self._problem or "the process of the tests was ended before it had handed in all"

    async def hand_in(self, blobs: Blobs, reporter: Reporter) -> bool:
        """
        Store what is new, and report it as an attempt's. Answers whether there will be nothing more. Never raises.
        """
        async with self._lock:
            news, self._news = self._news, {}
            if news:
                reporter.coverage_measured(news)
            over = self._over  # before looking: what comes meanwhile is for the next time
            paths, problems = await asyncio.to_thread(self._look, self._others() if over else ())
            try:
                artifacts, unstored = await blobs.store(self._top, paths) if paths else ((), ())
            except FleetestError as error:
                artifacts, unstored = (), (f"coverage data could not be stored: {error.message}",)
            self._stored |= {self._top / artifact.path for artifact in artifacts}
            if self._problem:
                told, self._problem = f"coverage is not complete: {self._problem.strip().splitlines()[-1]}", ""
                problems = [*problems, told]
                reporter.output(f"\n{told}\n".encode())
            if artifacts or problems or unstored:
                reporter.artifacts(artifacts, [*problems, *unstored])
            return over and not unstored

    def discard(self) -> None:
        """Remove what is left; blocks."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _others(self) -> Sequence[Path]:
        """What other processes left, which is complete once they have ended."""
        return sorted((self._directory / "work").glob(f"{_OWN_DATA}.*"))

    def _look(self, others: Sequence[Path]) -> tuple[Sequence[Path], list[str]]:
        """What of this is to be stored, the newest data file, and where it is from; with what is wrong with them."""
        own = sorted(self._directory.glob(".coverage.[0-9]*"), key=_number)
        names = [self._relative(path) for path in (*own[-1:], *others) if path not in self._stored]
        if names and self._directory / _ROOT not in self._stored:
            names.append(self._relative(self._directory / _ROOT))
        # No pattern is in these names, but for what a test may have put there.
        paths, problems = matching_files(self._top, [name for name in names if "*" not in name], MAX_ARTIFACT_BYTES)
        return paths, problems

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._top).as_posix()


def _number(path: Path) -> int:
    digits = path.suffix[1:]
    return int(digits) if digits.isdecimal() else -1
