"""Names of ambient queues, and of entries."""

from __future__ import annotations

from fleetest.master.queue.capabilities import KnownQueues, queue_name
from fleetest.master.queue.records import entry_id, first_id_after_run, first_id_of_run


def test_name_depends_on_the_requirements_and_not_on_their_order() -> None:
    name = queue_name({"os": "linux", "gpu": "1"})

    assert name == queue_name({"gpu": "1", "os": "linux"})
    assert len({name, queue_name({"os": "linux"}), queue_name({"os": "linux,gpu=1"}), queue_name({})}) == 4


def test_worker_satisfies_a_queue_when_it_has_every_requirement() -> None:
    known = KnownQueues("7", {"any": {}, "b": {"os": "linux", "gpu": "1"}, "a": {"os": "linux"}})

    assert known.satisfied_by({"os": "linux", "python": "3.12"}) == ("a", "any")
    assert known.satisfied_by({"os": "linux", "gpu": "1"}) == ("a", "any", "b")
    assert known.satisfied_by({"os": "linux", "python": "3.12"}) == ("a", "any")


def test_ids_of_different_shards_differ_whatever_their_names() -> None:
    assert entry_id("a/b", "c") != entry_id("a", "b/c")


def test_ids_of_a_run_lie_between_its_bounds_and_no_others_do() -> None:
    low, high = first_id_of_run("run-1"), first_id_after_run("run-1")

    inside = [low <= entry_id("run-1", shard) < high for shard in ("", "a", "~", "é")]
    outside = [low <= entry_id(run, "a") < high for run in ("run-", "run-10", "run-1.", "run-1~", "run-2")]

    assert (all(inside), any(outside)) == (True, False)
