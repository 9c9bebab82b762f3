"""
What a tree looked like the last time, so that what is unchanged need be neither read nor judged again.

A file's digest is believed while the file's identity is the recorded one. As in Git's index ("racy-git.txt" of its
documentation), a file that changed at about the time of the scan, or later, is not recorded: it could change once
more within the same tick of the file system's clock.

What is ignored is believed of a directory that holds the same names of the same kinds, as long as no ignore file has
changed. Names are listed each time: not every file system changes a directory's time when one is added.
"""

from __future__ import annotations

import marshal
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Final, NamedTuple

from fleetest.common.digest import digest_of

__all__ = ["Identity", "Listing", "TreeMemory", "identity_of", "packed", "trusted"]

_HEADER: Final = f"tree 3, marshal {marshal.version} of Python {sys.hexversion}\n".encode()
_TICK_NS: Final = 2_000_000_000  # FAT's, the coarsest of the file systems in use; also allows for a server's clock
_CHECKSUM_BYTES: Final = 4
_PLAIN: Final = 2
"""The last version of marshal that writes equal values as equal bytes, whoever else refers to them."""

Identity = tuple[int, ...]
"""Of a file: empty when it proves nothing, since the file has not been read, or was too young when it was."""

identity_of: Final[Callable[[os.stat_result], Identity]] = attrgetter("st_size", "st_mtime_ns", "st_ino", "st_ctime_ns")
"""Size, time, inode and time of change, as `FileIdentity` has them; a tuple, since there are so many."""


class Listing(NamedTuple):
    """
    A directory.

    Args:
        names: all names in it, in the order in which the system lists them.
        files: those that belong to the workspace.
        identities: of the files, `packed`. There are thousands, and mostly all that is asked is whether they are equal.
        directories: those that belong to the workspace.
        links: with their targets.
        ignored: those that do not, and whether they are directories; a virtual environment counts as its `pyvenv.cfg`.
    """

    names: list[str]
    files: list[str]
    identities: bytes
    directories: list[str]
    links: dict[str, str]
    ignored: dict[str, bool]

    @property
    def by_file(self) -> dict[str, Identity]:
        """Each file's identity: a new dictionary each time."""
        identities: list[Identity] = marshal.loads(self.identities)  # noqa: S302 - written by ourselves
        return dict(zip(self.files, identities, strict=True))


@dataclass(slots=True)
class TreeMemory:
    """
    Args:
        rules: names the ignore rules outside of the tree by which the listings were made.
        listings: by directory, as `walk` names them.
        rule_files: the ignore files in the tree, absolute, with their identities.
        digest: of the manifest.
        index: Git's, as `rule_files`.
        tracked: what Git tracks although ignore files name it, as long as `index` is the same.
        packed_entries: those of the files in the manifest, by path. They are unpacked only when something has changed.
    """

    rules: str = ""
    listings: dict[str, Listing] = field(default_factory=dict)
    rule_files: dict[str, Identity] = field(default_factory=dict)
    digest: str = ""
    index: dict[str, Identity] = field(default_factory=dict)
    tracked: frozenset[str] = frozenset()
    packed_entries: bytes = marshal.dumps({})

    @property
    def entries(self) -> dict[str, bytes]:
        """Unpacked: a new dictionary each time."""
        entries: dict[str, bytes] = marshal.loads(self.packed_entries)  # noqa: S302 - written by ourselves
        return entries

    def pack(self, entries: Mapping[str, bytes]) -> None:
        """Keep those of the files that are listed. They must all be there."""
        files = (directory + name for directory, each in self.listings.items() for name in each.files)
        self.packed_entries = marshal.dumps({path: entries[path] for path in files})

    @classmethod
    def load(cls, directory: Path, root: Path) -> TreeMemory:
        """What is remembered of `root`: nothing, when that is absent or damaged."""
        try:
            content = _file(directory, root).read_bytes()
        except OSError:
            return cls()
        start = len(_HEADER) + _CHECKSUM_BYTES
        if not content.startswith(_HEADER) or content[len(_HEADER) : start] != _checksum(content[start:]):
            return cls()
        rules, listings, *rest = marshal.loads(memoryview(content)[start:])  # noqa: S302 - written by ourselves
        return cls(rules, {path: Listing(*fields) for path, fields in listings.items()}, *rest)

    def save(self, directory: Path, root: Path) -> None:
        """Replace what is remembered. A memory that cannot be written is none."""
        listings = {path: tuple(listing) for path, listing in self.listings.items()}
        rest = (self.rule_files, self.digest, self.index, self.tracked, self.packed_entries)
        payload = marshal.dumps((self.rules, listings, *rest))
        with suppress(OSError):
            _write(_file(directory, root), _HEADER + _checksum(payload) + payload)

    def rules_hold(self, rules: str) -> bool:
        """Whether the listings are what these rules, and those in the tree, lead to now."""
        return rules == self.rules and all(_is(path, identity) for path, identity in self.rule_files.items())


def packed(identities: Iterable[Identity]) -> bytes:
    """Equal identities in equal order give equal bytes."""
    return marshal.dumps(list(identities), _PLAIN)


def trusted(identities: Mapping[str, Identity], *, scan_started_ns: int) -> dict[str, Identity]:
    """Without those that are as young as the scan."""
    oldest_ns = scan_started_ns - _TICK_NS
    return {
        path: identity if identity and identity[1] < oldest_ns and identity[3] < oldest_ns else ()
        for path, identity in identities.items()
    }


def _is(path: str, identity: Identity) -> bool:
    try:
        return identity_of(os.lstat(path)) == identity
    except OSError:
        return False


def _file(directory: Path, root: Path) -> Path:
    return directory / f"{digest_of(os.fsencode(root.resolve()))}.tree"


def _checksum(payload: bytes) -> bytes:
    return zlib.crc32(payload).to_bytes(_CHECKSUM_BYTES, "big")


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        Path(temporary).replace(file)
    except OSError:
        Path(temporary).unlink()
        raise
