from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleetest.common.digest import digest_of
from fleetest.worker.blob_cache import BlobCache


def content(number: int) -> bytes:
    return bytes([number]) * 100


def add(cache: BlobCache, number: int, *, used_at: int = 0) -> str:
    digest = digest_of(content(number))
    with cache.create(digest) as writer:
        writer.write(content(number))
        writer.publish()
    cache.added(100)
    descriptor = cache.open(digest)
    assert descriptor is not None
    os.utime(descriptor, (used_at, used_at))
    os.close(descriptor)
    return digest


def held(cache: BlobCache, digests: list[str]) -> list[int]:
    missing = set(cache.missing(digests))
    return [number for number, digest in enumerate(digests) if digest not in missing]


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "cache", max_bytes=1000)


def test_least_recently_used_are_evicted_first(cache: BlobCache) -> None:
    digests = [add(cache, number, used_at=100 - number) for number in range(12)]
    descriptor = cache.open(digests[11])
    assert descriptor is not None
    os.close(descriptor)

    cache.evict()

    assert held(cache, digests) == [0, 1, 2, 3, 4, 5, 6, 7, 11]


def test_blobs_about_to_be_used_stay(cache: BlobCache) -> None:
    digests = [add(cache, number, used_at=number) for number in range(12)]

    cache.evict(keep=digests[:10])

    assert held(cache, digests) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_cache_within_its_bound_keeps_everything(cache: BlobCache) -> None:
    digests = [add(cache, number) for number in range(10)]

    cache.evict()

    assert held(cache, digests) == list(range(10))


def test_directory_is_read_only_when_enough_was_added(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, max_bytes=10_000)
    cache.evict()
    other = BlobCache(tmp_path, max_bytes=10_000)
    others = [add(other, number, used_at=number) for number in range(100, 200)]

    add(cache, 1, used_at=1001)
    cache.evict()
    held_before = held(cache, others)
    for number in range(2, 8):
        add(cache, number, used_at=number + 1000)
    cache.evict()

    assert held_before == list(range(100))
    assert len(held(cache, others)) == 83


def test_what_another_process_left_counts_from_the_start(tmp_path: Path) -> None:
    digests = [add(BlobCache(tmp_path, max_bytes=10_000), number, used_at=number) for number in range(20)]

    cache = BlobCache(tmp_path, max_bytes=1000)
    cache.evict()

    assert held(cache, digests) == list(range(11, 20))


def test_blob_that_is_read_stays_readable_when_it_is_evicted(cache: BlobCache) -> None:
    digest = add(cache, 1)
    descriptor = cache.open(digest)
    assert descriptor is not None

    cache.discard(digest)
    read = os.read(descriptor, 1000)
    os.close(descriptor)

    assert read == content(1)
    assert cache.open(digest) is None
    cache.discard(digest)
