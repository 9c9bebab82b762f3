"""When a worker says what it would take."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

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


def _answered(standing: Credit) -> Wants:
    wants = Wants()
    want = wants.ask(standing, hungry=True)
    assert want is not None
    wants.take(Assign(want_number=want.number, unreadable={}))
    return wants


@pytest.mark.parametrize(("standing", "grown"), [(127, 128), (2, 4)])
def test_credit_that_grew_by_little_of_what_stands_can_wait(standing: int, grown: int) -> None:
    assert _answered(_credit(standing)).can_wait(_credit(grown))


@pytest.mark.parametrize(("standing", "grown"), [(1, 4), (0, 1)])
def test_credit_of_which_little_stands_is_said_at_once(standing: int, grown: int) -> None:
    assert not _answered(_credit(standing)).can_wait(_credit(grown))


def test_less_credit_is_said_at_once() -> None:
    wants = _answered(_credit(4))

    assert not wants.can_wait(_credit(3))
    assert not wants.can_wait(_credit(4, free=Resources()))


def test_a_want_that_waits_for_its_answer_is_not_put_off() -> None:
    wants = Wants()
    wants.ask(_credit(4), hungry=True)

    assert not wants.can_wait(_credit(5))
    wants.forget()
    assert not wants.can_wait(_credit(5))


def test_what_follows_another_leaves_as_much_to_be_wanted() -> None:
    wants, ref = Wants(), AttemptRef(run_id="r", shard_id="unit#0", token=1)
    want = wants.ask(replace(_credit(2), ahead=5), hungry=True)
    first = Assignment(ref=ref, spec=_SPEC, kind=ShardKind.EXECUTE, reserve=Resources(cpu_millis=1000))

    given = (first, *[msgspec.structs.replace(first, follows=True)] * 5)
    wants.take(Assign(want_number=1, assignments=given, unreadable={}))

    assert want is not None
    assert want.ahead == 5
    assert wants.says(_credit(1, free=Resources(cpu_millis=3000)))


def test_who_is_not_hungry_needs_no_answer() -> None:
    wants = Wants()

    want = wants.ask(_credit(4), hungry=False)

    assert want is not None
    assert (want.unhurried, wants.answered) == (True, True)
