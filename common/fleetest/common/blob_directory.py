"""
Blobs as files of one directory. Blocking.

::

    <root>/blobs/<digest>                   whole and verified, read-only
    <root>/incoming/<digest>.part           what is kept of an upload, locked (flock) by whoever writes it
    <root>/incoming/<digest>.<random>.tmp   gone when its writer is

A blob comes into being by `rename`, so that nobody sees half of one, in this process or another.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fleetest.common.digest import check_digest
from fleetest.common.errors import InvalidRequest, NotFound, WrongState
from fleetest.common.regular_files import open_regular, read_chunks, write_all

__all__ = ["BlobDirectory", "BlobWriter"]

_ABANDONED_AFTER: Final = timedelta(days=7)


class BlobWriter:
    """
    Content on its way to becoming a blob; as a context manager it discards what was not published.

    Args:
        descriptor: of the file that is written, which belongs to the writer from now on.
        path: of that file.
        target: where the blob goes; its name is the digest.

    Attributes:
        size_bytes: how much there is of it.
        dropped_bytes: how much of what an earlier writer had left was not used.
    """

    def __init__(self, descriptor: int, path: Path, target: Path) -> None:
        self._descriptor = descriptor
        self._path = path
        self._target = target
        self._sha256 = hashlib.sha256()
        self._discarded = False
        self._published = False
        self.size_bytes = 0
        self.dropped_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, content: bytes) -> None:
        """Add to the end. Raises OSError."""
        self._sha256.update(content)
        self.size_bytes += len(content)
        write_all(self._descriptor, content)

    def sync(self) -> None:
        """Return when the content is on the disk."""
        os.fsync(self._descriptor)

    @property
    def path(self) -> Path:
        """Of the file with what was written so far."""
        return self._path

    def check(self) -> None:
        """
        Raises:
            InvalidRequest: the content has another digest; it is discarded.
        """
        if self._sha256.hexdigest() != self._target.name:
            self.discard()
            raise self._wrong_digest()

    def publish(self) -> int:
        """
        Make the blob visible. One that is there is replaced by its equal; answers how many bytes that had.

        Raises:
            InvalidRequest: the content has another digest; it is discarded.
        """
        self.check()
        replaced_bytes = self.size_bytes if self._target.exists() else 0
        os.fchmod(self._descriptor, 0o444)
        self._path.rename(self._target)
        self._published = True
        return replaced_bytes

    def discard(self) -> None:
        """Forget what was written."""
        self._discarded = True
        self._path.unlink(missing_ok=True)

    def close(self) -> int:
        """Let go of the file, and answer how many bytes went with it. Must come last, and once."""
        try:
            if not self._published and not self._kept():
                self.discard()
        finally:
            os.close(self._descriptor)
        return self.size_bytes if self._discarded else 0

    def _kept(self) -> bool:
        return False

    def _wrong_digest(self) -> InvalidRequest | WrongState:
        return InvalidRequest(
            f"what was sent as {self._target.name} has the digest {self._sha256.hexdigest()}",
            hint="The file changed while it was sent, or was damaged on its way. Try again.",
        )


class _PartWriter(BlobWriter):
    """Keeps what was not published, to go on from there."""

    def __init__(self, descriptor: int, path: Path, target: Path, *, offset_bytes: int) -> None:
        super().__init__(descriptor, path, target)
        kept_bytes = os.fstat(descriptor).st_size
        if not 0 <= offset_bytes <= kept_bytes:
            raise WrongState(f"of {target.name} {kept_bytes} bytes are kept; cannot go on at {offset_bytes}")
        self.dropped_bytes = kept_bytes - offset_bytes
        os.ftruncate(descriptor, offset_bytes)
        for chunk in read_chunks(descriptor):
            self._sha256.update(chunk)
        self.size_bytes = self._resumed_bytes = offset_bytes

    def _kept(self) -> bool:
        return self.size_bytes > 0 and not self._discarded

    def _wrong_digest(self) -> InvalidRequest | WrongState:
        if self._resumed_bytes:
            return WrongState(
                "what was kept of the earlier upload is damaged, and has been dropped", hint="Start over."
            )
        return super()._wrong_digest()


class BlobDirectory:
    """
    The files below `root`, which is made when it is not there.

    Methods raise InvalidRequest for what is not a digest, and OSError.
    """

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._incoming = root / "incoming"
        for directory in (root, self._blobs, self._incoming):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the blob is, if it is."""
        return self._blobs / check_digest(digest)

    def missing(self, digests: Collection[str]) -> list[str]:
        """Those that are not there, each once, in the order given."""
        return [digest for digest in dict.fromkeys(digests) if not self.path(digest).exists()]

    def open(self, digest: str) -> int:
        """
        A descriptor to read the blob from; it stays readable when the blob is removed.

        Raises:
            NotFound: it is not there.
        """
        try:
            return open_regular(self.path(digest))
        except FileNotFoundError as error:
            raise NotFound(f"no such blob: {digest}") from error

    def remove(self, digest: str) -> int:
        """Remove the blob if it is there; answer how many bytes it had."""
        path = self.path(digest)
        try:
            size_bytes = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size_bytes

    def create(self, digest: str) -> BlobWriter:
        """Begin to write a blob."""
        target = self.path(digest)
        path = self._incoming / f"{digest}.{secrets.token_hex(8)}.tmp"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        return BlobWriter(descriptor, path, target)

    def resume(self, digest: str, *, offset_bytes: int) -> BlobWriter:
        """
        Begin to write a blob whose content is kept if it is not finished, or go on at `offset_bytes`.

        A second writer of the same digest that begins at 0 gets a file of its own, which is not kept.

        Raises:
            WrongState: less than that is kept, or somebody else goes on with it.
        """
        descriptor = self._lock_part(digest)
        if descriptor is None and offset_bytes:
            raise WrongState(f"somebody else uploads {digest} now", hint="Try again in a moment.")
        if descriptor is None:
            return self.create(digest)
        try:
            return _PartWriter(descriptor, self._part(digest), self.path(digest), offset_bytes=offset_bytes)
        except BaseException:
            os.close(descriptor)
            raise

    def kept_bytes(self, digest: str) -> int:
        """How much is kept of an unfinished blob, whoever writes it."""
        try:
            return self._part(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def resumable_bytes(self, digest: str) -> int:
        """How much is kept of an unfinished blob; 0 while somebody writes it."""
        if not self.kept_bytes(digest) or (descriptor := self._lock_part(digest)) is None:
            return 0
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def sync(self) -> None:
        """Return when every blob published so far is still there after a crash of the machine."""
        descriptor = os.open(self._blobs, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def stored(self) -> Iterator[tuple[str, os.stat_result]]:
        """Every blob with its status, in no order."""
        return _statuses(self._blobs)

    def remove_abandoned(self) -> int:
        """Remove unfinished blobs that nobody touched for a week; answer how many bytes of others remain."""
        remaining_bytes = 0
        oldest = time.time() - _ABANDONED_AFTER.total_seconds()
        for name, status in _statuses(self._incoming):
            if status.st_mtime < oldest:
                (self._incoming / name).unlink(missing_ok=True)
            else:
                remaining_bytes += status.st_size
        return remaining_bytes

    def _part(self, digest: str) -> Path:
        return self._incoming / f"{check_digest(digest)}.part"

    def _lock_part(self, digest: str) -> int | None:
        """The locked part file, made if need be; nothing while somebody else holds it."""
        path = self._part(digest)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Between `open` and `flock` its writer may have published or discarded it: then try again.
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return os.dup(descriptor)  # which shares the lock
            except BlockingIOError:
                return None
            except FileNotFoundError:
                continue
            finally:
                os.close(descriptor)


def _statuses(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # removed by another process meanwhile
                yield entry.name, entry.stat(follow_symlinks=False)
