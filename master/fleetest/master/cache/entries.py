"""
What is kept of a test file, and under which name.

An entry holds the cases of one file that passed while everything that its fingerprint covers was as it was. Its key
says so, and where it belongs: `project/task/file/digest`, each word a digest, so that what is below a project, a task
or a file can be found and dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import msgspec

from fleetest.common.results import CacheOrigin
from fleetest.common.tasks import Task

__all__ = ["CachedCase", "Cases", "decode_entry", "encode_entry", "entry_key", "scope_of"]

_FORMAT: Final = 1
_MAGIC: Final = b"fleetest-cache-1\n"
_CHECK_BYTES: Final = 16
_WORD_DIGITS: Final = 24


class CachedCase(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A case that passed.

    Args:
        run_id: the run in which it did.
        at: when.
        whole: the result as its worker put it; see `KeptResult`.
    """

    run_id: str
    at: datetime
    duration: timedelta = timedelta()
    whole: bytes = b""

    @property
    def origin(self) -> CacheOrigin:
        return CacheOrigin(run_id=self.run_id, at=self.at)


Cases = Mapping[str, CachedCase]
"""By their ids."""


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The key is in it, too: a value that got under another key is as good as broken."""

    key: str
    cases: Cases


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Entry)


def scope_of(project: str, task: str = "", file: str = "") -> str:
    """What is above the keys of a project, of a task of it, or of a file of that."""
    return "/".join(_word(each) for each in (project, task, file) if each)


def entry_key(project: str, task: Task, file: str, fingerprint: str) -> str:
    """
    The key of a file's results.

    Args:
        fingerprint: of all that they depend on at the worker; what the suite says is added here.
    """
    assert task.cache is not None  # who asks for keys has a cache
    declared = [
        _FORMAT,
        fingerprint,
        task.args,
        sorted(task.env.items()),
        (task.image, task.network, task.executor, task.python, task.working_directory),
        task.setup_digest,
        (task.cache.inputs, task.cache.inputs_digest),
        sorted(task.requirements.items()),
        task.timeouts,
        task.resources.memory_bytes,
    ]
    digest = hashlib.sha256(msgspec.json.encode(declared)).hexdigest()
    return f"{scope_of(project, task.name, file)}/{digest}"


def encode_entry(key: str, cases: Cases) -> bytes:
    """The stored form."""
    content = _ENCODER.encode(_Entry(key=key, cases=cases))
    return _MAGIC + _check(content) + content


def decode_entry(key: str, value: bytes) -> Cases:
    """
    Raises:
        ValueError: this is no entry, not this one, or not whole.
    """
    head, check, content = (
        value[: len(_MAGIC)],
        value[len(_MAGIC) :][:_CHECK_BYTES],
        value[len(_MAGIC) + _CHECK_BYTES :],
    )
    if head != _MAGIC or check != _check(content):
        raise ValueError("not an entry, or a broken one")
    entry = _DECODER.decode(content)
    if entry.key != key:
        raise ValueError(f"the entry of {entry.key}")
    return entry.cases


def _check(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECK_BYTES).digest()


def _word(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_WORD_DIGITS]
