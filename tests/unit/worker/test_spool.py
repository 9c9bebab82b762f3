from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from fleetest.common.errors import DependencyUnavailable, WrongState
from fleetest.worker import spool as module
from fleetest.worker.spool import Spool


def waiting(spool, after=0):
    return list(spool.after(after))


def segments(directory):
    return sorted(directory.glob("*.segment"))


@pytest.fixture
def spool(tmp_path):
    made = Spool(tmp_path, segment_bytes=100, memory_bytes=100)
    yield made
    made.close()


@pytest.fixture
def disk(monkeypatch):
    """The disk, as the system call sees it: `error` is what a write gets."""

    class Disk:
        error = None

    def pwrite(descriptor, content, offset, real=os.pwrite):
        if Disk.error is not None:
            raise OSError(Disk.error, os.strerror(Disk.error))
        return real(descriptor, content, offset)

    monkeypatch.setattr(module.os, "pwrite", pwrite)
    return Disk


def reopened(spool, directory):
    spool.close()
    return Spool(directory)


def test_batches_wait_in_order_until_they_are_acknowledged(spool):
    numbers = [spool.append(content) for content in (b"one", b"two", b"three")]

    assert numbers == [1, 2, 3]
    assert waiting(spool) == [(1, b"one"), (2, b"two"), (3, b"three")]
    assert waiting(spool, after=2) == [(3, b"three")]

    spool.acknowledge(2)
    spool.acknowledge(1)

    assert waiting(spool) == [(3, b"three")]
    assert len(spool) == 1


def test_acknowledged_segments_are_deleted(spool, tmp_path):
    for _ in range(10):
        spool.append(b"x" * 60)
    assert len(segments(tmp_path)) == 5

    spool.acknowledge(9)
    assert len(segments(tmp_path)) == 1

    spool.acknowledge(10)
    spool.tidy()
    assert sum(segment.stat().st_size for segment in segments(tmp_path)) == 0


def test_batches_survive_a_killed_agent(tmp_path):
    script = f"""
import os, pathlib
from fleetest.worker.spool import Spool
spool = Spool(pathlib.Path({str(tmp_path)!r}))
spool.append(b"one"); spool.append(b"two"); spool.acknowledge(1)
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False)

    spool = Spool(tmp_path)

    assert killed.returncode == -signal.SIGKILL
    assert waiting(spool, after=1) == [(2, b"two")]
    assert spool.append(b"three") == 3
    spool.close()


def test_numbers_go_on_after_everything_was_acknowledged(spool, tmp_path):
    spool.append(b"one")
    spool.acknowledge(1)

    again = reopened(spool, tmp_path)

    assert waiting(again) == []
    assert again.append(b"two") == 2
    again.close()


@pytest.mark.parametrize("lost", [1, 8, 18])
def test_half_written_record_is_cut_off(spool, tmp_path, lost):
    spool.append(b"one")
    spool.append(b"two")
    (segment,) = segments(tmp_path)
    os.truncate(segment, segment.stat().st_size - lost)

    again = reopened(spool, tmp_path)

    assert waiting(again) == [(1, b"one")]
    assert again.append(b"new") == 2
    assert waiting(reopened(again, tmp_path)) == [(1, b"one"), (2, b"new")]


def test_damaged_segment_is_kept_aside_and_used_up_to_the_damage(spool, tmp_path):
    for _ in range(4):
        spool.append(b"x" * 60)
    first = segments(tmp_path)[0]
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)

    again = reopened(spool, tmp_path)

    assert [number for number, _ in waiting(again)] == [1, 3, 4]
    assert first.with_suffix(".corrupt").read_bytes() == content
    again.acknowledge(4)
    assert again.append(b"new") == 5
    assert waiting(again, after=4) == [(5, b"new")]
    again.close()


def test_garbage_in_the_directory_is_no_obstacle(tmp_path):
    (tmp_path / "00000000000000000001.segment").write_bytes(os.urandom(50))
    (tmp_path / "what.segment").write_bytes(b"")
    (tmp_path / "README").write_text("not ours")

    spool = Spool(tmp_path)

    assert waiting(spool) == []
    assert waiting(spool, after=spool.append(b"one") - 1) == [(spool.last_sequence, b"one")]
    spool.close()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_batches_wait_in_memory_while_the_disk_takes_none(spool, tmp_path, disk, error):
    spool.append(b"one")
    disk.error = error

    spool.append(b"two")
    spool.append(b"x" * 100)

    assert spool.full
    assert spool.overflowing
    assert [number for number, _ in waiting(spool)] == [1, 2, 3]

    disk.error = None
    spool.append(b"four")

    assert not spool.full
    again = reopened(spool, tmp_path)
    assert [content[:4] for _, content in waiting(again)] == [b"one", b"two", b"xxxx", b"four"]
    again.close()


def test_acknowledged_batches_make_room_in_memory(spool, disk):
    disk.error = errno.ENOSPC
    number = spool.append(b"one")

    spool.acknowledge(number)

    assert not spool.full
    assert waiting(spool) == []


def test_segment_that_somebody_cut_short_is_reported(spool, tmp_path):
    for payload in (b"one", b"two"):
        spool.append(payload)
    os.truncate(segments(tmp_path)[0], 5)

    with pytest.raises(DependencyUnavailable, match="cut short"):
        waiting(spool)


def test_directory_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(WrongState, match="cannot use the spool"):
        Spool(tmp_path / "file" / "spool")
