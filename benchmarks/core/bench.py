"""What every benchmark is given."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

__all__ = ["ROOT", "Bench"]

ROOT: Final = Path(__file__).resolve().parents[2]
"""Of the repository."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """
    Args:
        rounds: how often each side is measured.
        quick: everything small: to see that it works, not to publish it.
        peers: the virtual environment that `make_peers.sh` made.
    """

    rounds: int = 5
    quick: bool = False
    peers: Path = ROOT / ".cache" / "peers"

    @property
    def python(self) -> Path:
        """The interpreter of the peers, in which suites run too: ours and theirs with the same pytest."""
        return self.peers / "bin" / "python"

    def size(self, full: int, quick: int) -> int:
        """How many of something."""
        return quick if self.quick else full

    def say(self, words: str) -> None:
        """Tell whoever waits how it goes."""
        print(words, file=sys.stderr, flush=True)

    @contextmanager
    def directory(self) -> Iterator[Path]:
        """An empty one, for a while. Its path is short, as sockets lie in it."""
        path = Path(mkdtemp(prefix="fb-", dir="/tmp"))  # TMPDIR may be too long for a socket's path
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
