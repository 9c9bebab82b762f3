"""Tells cases of equal ids apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from msgspec.structs import replace

from fleetest.common.results import CaseResult

__all__ = ["told_apart"]


def told_apart(cases: Iterable[CaseResult]) -> Iterator[CaseResult]:
    """The cases in order; of equal ids the second is called `id #2`, and so on."""
    taken: set[bytes] = set()
    last: dict[bytes, int] = {}
    for case in cases:
        asked = _digest(case.case_id)
        number = last.get(asked, 0) + 1
        while (digest := _digest(_numbered(case.case_id, number))) in taken:
            number += 1
        taken.add(digest)
        last[asked] = number
        yield case if number == 1 else replace(case, case_id=_numbered(case.case_id, number))


def _numbered(case_id: str, number: int) -> str:
    return case_id if number == 1 else f"{case_id} #{number}"


def _digest(case_id: str) -> bytes:
    """In place of the id, which may be long."""
    return blake2b(case_id.encode("utf-8", "backslashreplace"), digest_size=16).digest()
