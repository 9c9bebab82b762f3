"""
Batches of reports on the worker's disk until the master has acknowledged them.

The spool is a directory of segments, each named by its first sequence number and holding records one after the
other: length (4 bytes), CRC-32 (4), sequence number (8), payload; big-endian. The checksum covers number and
payload. Nothing is flushed to the platter: what has been written survives the death of the agent, and the death of
the machine loses its attempts anyway.
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
import zlib
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import structlog

from fleetest.common.errors import DependencyUnavailable, WrongState

__all__ = ["Spool"]

_HEADER: Final = struct.Struct(">IIQ")
_SEGMENT_BYTES: Final = 8 << 20
_MEMORY_BYTES: Final = 32 << 20
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_log = structlog.stdlib.get_logger()


@dataclass(slots=True, kw_only=True)
class _Segment:
    path: Path
    descriptor: int
    size_bytes: int
    last_sequence: int


class _Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A batch that waits: where it lies on the disk, or its payload when it could not be written."""

    sequence: int
    segment: _Segment | None
    offset: int = 0
    size_bytes: int = 0
    payload: bytes = b""


class Spool:
    """
    A queue of byte strings with growing sequence numbers. One agent at a time uses a directory; nothing blocks but
    the disk itself.

    A record that a killed agent left half-written is cut off. Of a damaged segment, a copy is kept as `*.corrupt`,
    and the records before the damage are used. While the disk is full, batches wait in memory and are written when
    there is room again.

    Raises:
        WrongState: the directory cannot be used.
    """

    def __init__(
        self, directory: Path, *, segment_bytes: int = _SEGMENT_BYTES, memory_bytes: int = _MEMORY_BYTES
    ) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._memory_bytes = memory_bytes
        self._segments: deque[_Segment] = deque()
        self._records: OrderedDict[int, _Record] = (
            OrderedDict()
        )  # by sequence, in order; there may be gaps after damage
        self._unwritten_bytes = 0
        self._last_sequence = 0
        self._newest = b""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for path in sorted(directory.glob("*.segment")):
                self._recover(path)
        except OSError as error:
            raise WrongState(
                f"cannot use the spool {directory}: {error.strerror}",
                hint="Give the worker a directory that it may write to (FLEETEST_DATA_DIR).",
            ) from error

    @property
    def last_sequence(self) -> int:
        """Of the newest batch; 0 before the first."""
        return self._last_sequence

    @property
    def full(self) -> bool:
        """Whether the disk has no room: the worker should take no new work."""
        return self._unwritten_bytes > 0

    @property
    def overflowing(self) -> bool:
        """Whether memory has no room either: only what must not be lost may still be appended."""
        return self._unwritten_bytes >= self._memory_bytes

    def __len__(self) -> int:
        """How many batches wait for their acknowledgement."""
        return len(self._records)

    def append(self, payload: bytes) -> int:
        """Keep a batch; answers its sequence number."""
        self._write_what_waits_in_memory()
        self._last_sequence += 1
        self._newest = payload
        self._add(self._last_sequence, payload)
        return self._last_sequence

    def after(self, sequence: int) -> Iterator[tuple[int, bytes]]:
        """
        The batches behind `sequence`, oldest first. Batches may be appended and acknowledged meanwhile.

        Raises:
            DependencyUnavailable: the disk does not give back what it took.
        """
        while (record := self._next_after(sequence)) is not None:
            sequence = record.sequence
            yield sequence, self._read(record)

    def acknowledge(self, sequence: int) -> None:
        """Forget every batch up to this one; harmless when they are forgotten already."""
        while self._records and next(iter(self._records)) <= sequence:
            _, record = self._records.popitem(last=False)
            if record.segment is None:
                self._unwritten_bytes -= len(record.payload)
        while len(self._segments) > 1 and self._segments[0].last_sequence <= sequence:
            segment = self._segments.popleft()
            os.close(segment.descriptor)
            segment.path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """
        Take what has been acknowledged off the disk, if that is all there is. It costs more than to write a batch, so
        it is for a quiet moment: who dies before sends the last batches again.
        """
        if self._segments and not self._records:
            self._empty(self._segments[0])

    def close(self) -> None:
        """Let go of the files; what waits stays on the disk."""
        self.tidy()
        for segment in self._segments:
            os.close(segment.descriptor)
        self._segments.clear()
        self._records.clear()

    def _next_after(self, sequence: int) -> _Record | None:
        if sequence >= self._last_sequence:
            return None
        following = self._records.get(sequence + 1)
        if following is not None:
            return following
        return next((record for known, record in self._records.items() if known > sequence), None)

    def _add(self, sequence: int, payload: bytes) -> None:
        if not self._unwritten_bytes:
            try:
                self._records[sequence] = self._write(sequence, payload)
            except OSError as error:
                if error.errno not in _FULL:
                    _log.exception("spool_write_failed", directory=str(self._directory))
            else:
                return
        self._records[sequence] = _Record(sequence=sequence, segment=None, payload=payload)
        self._unwritten_bytes += len(payload)

    def _write_what_waits_in_memory(self) -> None:
        if not self._unwritten_bytes:
            return
        waiting = [record for record in self._records.values() if record.segment is None]
        self._unwritten_bytes = 0
        for record in waiting:
            self._add(record.sequence, record.payload)

    def _write(self, sequence: int, payload: bytes) -> _Record:
        segment = self._segments[-1] if self._segments else None
        if segment is None or segment.size_bytes >= self._segment_bytes:
            segment = self._open(self._directory / _name(sequence), sequence)
            self._segments.append(segment)
        content = _HEADER.pack(len(payload), _checksum(sequence, payload), sequence) + payload
        offset = segment.size_bytes
        try:
            _write_whole(segment.descriptor, content, offset)
        except OSError:
            os.ftruncate(segment.descriptor, offset)
            raise
        segment.size_bytes += len(content)
        segment.last_sequence = sequence
        return _Record(sequence=sequence, segment=segment, offset=offset + _HEADER.size, size_bytes=len(payload))

    def _read(self, record: _Record) -> bytes:
        if record.segment is None:
            return record.payload
        if record.sequence == self._last_sequence and self._newest:
            return self._newest  # as a rule, a batch is sent when it has been appended
        try:
            payload = os.pread(record.segment.descriptor, record.size_bytes, record.offset)
        except OSError as error:
            raise DependencyUnavailable(f"cannot read {record.segment.path}: {error.strerror}") from error
        if len(payload) < record.size_bytes:
            raise DependencyUnavailable(f"{record.segment.path} has been cut short by somebody else")
        return payload

    def _recover(self, path: Path) -> None:
        segment = self._open(path, int(path.stem) if path.stem.isdigit() else 0)
        self._segments.append(segment)
        size_bytes = os.fstat(segment.descriptor).st_size
        while size_bytes - segment.size_bytes >= _HEADER.size:
            offset = segment.size_bytes + _HEADER.size
            header = os.pread(segment.descriptor, _HEADER.size, segment.size_bytes)
            length, checksum, sequence = _HEADER.unpack(header)
            if offset + length > size_bytes:
                break
            payload = os.pread(segment.descriptor, length, offset)
            if _checksum(sequence, payload) != checksum or sequence <= self._last_sequence:
                self._set_aside(segment)
                return
            self._records[sequence] = _Record(sequence=sequence, segment=segment, offset=offset, size_bytes=length)
            self._last_sequence = segment.last_sequence = sequence
            segment.size_bytes = offset + length
        if segment.size_bytes < size_bytes:
            _log.warning("spool_tail_cut_off", path=str(path), lost_bytes=size_bytes - segment.size_bytes)
            os.ftruncate(segment.descriptor, segment.size_bytes)

    def _set_aside(self, segment: _Segment) -> None:
        corrupt = segment.path.with_suffix(".corrupt")
        shutil.copyfile(segment.path, corrupt)
        os.ftruncate(segment.descriptor, segment.size_bytes)
        _log.error("spool_segment_corrupt", kept_as=str(corrupt), usable_bytes=segment.size_bytes)

    def _open(self, path: Path, first_sequence: int) -> _Segment:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Until it has a record of its own, a segment ends where the one before it ends.
        self._last_sequence = max(self._last_sequence, first_sequence - 1)
        return _Segment(path=path, descriptor=descriptor, size_bytes=0, last_sequence=first_sequence - 1)

    def _empty(self, segment: _Segment) -> None:
        """Use the last segment again, under a name that carries the sequence on."""
        if not segment.size_bytes:
            return
        path = self._directory / _name(self._last_sequence + 1)
        os.ftruncate(segment.descriptor, 0)
        segment.path.rename(path)
        segment.path, segment.size_bytes = path, 0


def _name(first_sequence: int) -> str:
    return f"{first_sequence:020}.segment"


def _checksum(sequence: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(sequence.to_bytes(8, "big")))


def _write_whole(descriptor: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]
