"""When a worker says what it would take."""

from __future__ import annotations

import msgspec

from fleetest.common.states import ShardKind
from fleetest.common.tasks import Resources
from fleetest.worker.assignments import Assignment, AttemptRef, TaskSpec
from fleetest.worker.messages import Assign
from fleetest.worker.slots import Credit
from fleetest.worker.wants import Wants

_ROOM = Resources(cpu_millis=4000)
_SPEC = TaskSpec(spec_id="r/unit", environment_key="e", task_id="unit", type="pytest", project="p")


def _credit(shards: int, free: Resources = _ROOM) -> Credit:
    return Credit(shards=shards, free=free)


def test_what_follows_another_leaves_as_much_to_be_wanted() -> None:
    wants, ref = Wants(), AttemptRef(run_id="r", shard_id="unit#0", token=1)
    want = wants.ask(msgspec.structs.replace(_credit(2), ahead=5), hungry=True)
    first = Assignment(ref=ref, spec=_SPEC, kind=ShardKind.EXECUTE, reserve=Resources(cpu_millis=1000))

    given = (first, *[msgspec.structs.replace(first, follows=True)] * 5)
    wants.take(Assign(want_number=1, assignments=given, unreadable={}))

    assert want is not None
    assert want.ahead == 5
    assert wants.says(_credit(1, free=Resources(cpu_millis=3000)))


def test_who_is_not_hungry_needs_no_answer() -> None:
    wants = Wants()

    want = wants.ask(Credit(shards=4, free=Resources(cpu_millis=4000)), hungry=False)

    assert want is not None
    assert (want.unhurried, wants.answered) == (True, True)
