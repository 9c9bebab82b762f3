"""With `fail_fast`, what is likely to fail comes first, and the run takes no longer for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from fleetest.common.convert_workspace import workspace_of
from fleetest.common.digest import digest_of
from fleetest.common.states import Outcome, Verdict
from fleetest.common.tasks import Split
from fleetest.common.workspace import Workspace, WorkspaceFile
from fleetest.master.reports import Ended, Planned, Running
from fleetest.master.runs.planner import Fleet, Plan, plan
from fleetest.master.runs.risk import risks
from fleetest.master.store.ports import CaseHistory
from tests.tools.core import Core
from tests.tools.story import cases, pytest_task

TOLERANCE = 1.05


@st.composite
def histories(draw: st.DrawFn) -> list[CaseHistory]:
    files = draw(st.integers(1, 6))
    return [
        CaseHistory(
            case_id=f"f{index % files}.py::{index}",
            duration=timedelta(seconds=draw(st.sampled_from([0.001, 0.02, 0.3, 2.0, 15.0]))),
            outcome=Outcome.PASSED,
            failing=draw(st.sampled_from([0.0, 0.0, 0.0, 0.25, 0.5, 1.0])),
        )
        for index in range(draw(st.integers(1, 80)))
    ]


def takes(made: Plan, seconds: dict[str, float], speeds: Sequence[float]) -> float:
    """Each slot takes the next shard as soon as it is free."""
    ends = [0.0] * len(speeds)
    for shard in made.shards:
        slot = min(range(len(ends)), key=lambda each: (ends[each], -speeds[each]))
        ends[slot] += sum(seconds[made.cases[index].case_id] for index in shard.cases) / speeds[slot]
    return max(ends)


@given(
    known=histories(),
    speeds=st.lists(st.sampled_from([0.5, 1.0, 1.0, 2.0]), min_size=1, max_size=8),
    split=st.sampled_from(Split),
    shards=st.none() | st.integers(1, 10),
)
def test_the_order_lengthens_no_run_by_more_than_a_twentieth(
    known: list[CaseHistory], speeds: list[float], split: Split, shards: int | None
) -> None:
    history = {each.case_id: each for each in known}
    seconds = {each.case_id: each.duration.total_seconds() for each in known}
    collected = list(cases(*history))
    fleet = Fleet(
        slots={f"w{number}": 1 for number in range(len(speeds))},
        speeds={f"w{number}": speed for number, speed in enumerate(speeds)},
    )
    task = pytest_task(shards=shards, split=split)

    usual = plan(task, collected, history, fleet=fleet)
    likely_first = plan(task, collected, history, fleet=fleet, risk=risks(collected, history, ()))

    assert takes(likely_first, seconds, speeds) <= TOLERANCE * takes(usual, seconds, speeds) + 1e-6
    assert sorted(index for shard in likely_first.shards for index in shard.cases) == list(range(len(collected)))


def test_what_failed_of_late_comes_before_what_takes_long() -> None:
    history = {
        f"a.py::{index}": CaseHistory(
            case_id=f"a.py::{index}", duration=timedelta(seconds=0.5), outcome=Outcome.PASSED, failing=0.0
        )
        for index in range(200)
    }
    for index, failing in ((150, 0.5), (70, 0.25), (199, 1.0)):
        case_id = f"a.py::{index}"
        history[case_id] = CaseHistory(
            case_id=case_id, duration=timedelta(seconds=0.5), outcome=Outcome.PASSED, failing=failing
        )
    collected = list(cases(*history))

    made = plan(
        pytest_task(shards=None), collected, history, fleet=Fleet(slots={"w": 2}), risk=risks(collected, history, ())
    )

    first = [made.cases[index].case_id for shard in made.shards for index in shard.cases][:3]
    assert first == ["a.py::199", "a.py::150", "a.py::70"]


def test_a_test_is_at_risk_when_it_or_its_subject_has_changed() -> None:
    collected = cases("tests/test_pricing.py::a", "tests/test_orders.py::b", "tests/test_isbn.py::c")

    found = risks(collected, {}, {"src/pricing.py", "tests/test_isbn.py", "README.md"})

    assert set(found) == {"tests/test_pricing.py::a", "tests/test_isbn.py::c"}
    assert found["tests/test_isbn.py::c"] > found["tests/test_pricing.py::a"]


def test_whose_last_run_failed_is_more_at_risk_than_who_failed_before() -> None:
    history = {
        case_id: CaseHistory(case_id=case_id, duration=timedelta(), outcome=outcome, failing=failing)
        for case_id, outcome, failing in (
            ("new::failure", Outcome.FAILED, 0.5),
            ("old::failure", Outcome.PASSED, 0.25),
            ("fine::always", Outcome.PASSED, 0.0),
        )
    }

    found = risks(cases(*history), history, ())

    assert sorted(found, key=found.__getitem__, reverse=True) == ["new::failure", "old::failure"]


async def test_the_second_run_begins_with_what_has_changed_since_the_first(core: Core) -> None:
    """Through the store: the workspaces of both runs are compared when the second one is planned."""
    task = pytest_task(shards=None)
    case_ids = [f"test_{name}.py::{index}" for name in "abcd" for index in range(40)]
    before, after = (
        workspace_with(**{f"test_{name}.py": b"x" for name in "abcd"} | {"test_c.py": content})
        for content in (b"x", b"changed")
    )
    for workspace in (before, after):
        await core.blobs.put({digest_of(b"x"): b"x", digest_of(b"changed"): b"changed"})
        await core.blobs.put({workspace.digest: workspace.manifest})
    session = await core.connect("w1", shards=8)

    first = await core.submit(task, fail_fast=True, workspace_digest=before.digest)
    [planning] = await core.assigned(session)
    await core.report(planning.ref, Running(), Planned(cases=cases(*case_ids)), Ended(verdict=Verdict.COMPLETED))
    await core.book.keeper(first).ask(lambda decider: decider.cancel(by="ann", reason="enough"))
    second = await core.submit(task, fail_fast=True, workspace_digest=after.digest)
    for assigned in await core.assigned(session):
        await core.report(assigned.ref, Running(), Planned(cases=cases(*case_ids)), Ended(verdict=Verdict.COMPLETED))
    planned = (await core.status(second)).tasks["unit"]

    begins_with = [case_id for shard in list(planned.shards.values())[1:] for case_id in shard.case_ids][:40]
    assert {case_id.partition("::")[0] for case_id in begins_with} == {"test_c.py"}


def workspace_with(**contents: bytes) -> Workspace:
    files = [
        WorkspaceFile(path=path, digest=digest_of(content), size_bytes=len(content))
        for path, content in contents.items()
    ]
    return workspace_of(files)
