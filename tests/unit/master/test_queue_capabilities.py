"""Names of ambient queues, and of entries."""

from __future__ import annotations

import pytest

from fleetest.master.queue.capabilities import KnownQueues, queue_name
from fleetest.master.queue.records import entry_id, ids_of


def test_name_depends_on_the_requirements_and_not_on_their_order() -> None:
    name = queue_name({"os": "linux", "gpu": "1"}, "p")

    assert name == queue_name({"gpu": "1", "os": "linux"}, "p")
    others = [queue_name(wanted, "p") for wanted in ({"os": "linux"}, {"os": "linux,gpu=1"}, {})]
    assert len({name, *others, queue_name({"os": "linux", "gpu": "1"}, "q")}) == 5


def test_worker_satisfies_a_queue_when_it_has_every_requirement() -> None:
    known = KnownQueues("7", {"any": {}, "b": {"os": "linux", "gpu": "1"}, "a": {"os": "linux"}})

    assert known.satisfied_by({"os": "linux", "python": "3.12"}) == ("a", "any")
    assert known.satisfied_by({"os": "linux", "gpu": "1"}) == ("a", "any", "b")
    assert known.satisfied_by({"os": "linux", "python": "3.12"}) == ("a", "any")


def test_ids_of_different_shards_differ_whatever_their_names() -> None:
    assert entry_id("a/b", "c") != entry_id("a", "b/c")


@pytest.mark.parametrize("shard_id", ["", "a#0", "a%230", "a#0%", "é:/#1", "a\n%2523"])
def test_names_are_read_as_they_were_written(shard_id: str) -> None:
    identifier = entry_id("run/1%", shard_id)

    assert ids_of(identifier.encode()) == ("run/1%", shard_id)
    assert ":" not in identifier
