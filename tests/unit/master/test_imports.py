"""Results that were obtained elsewhere become runs like any other, which no worker hears of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from fleetest.common.errors import CapacityExceeded, Forbidden, InvalidRequest, WrongState
from fleetest.common.results import Counts
from fleetest.common.states import Outcome, RunState, TaskState
from fleetest.master import imports
from fleetest.master.imports import ImportBeginning, ImportPart
from fleetest.master.reconciler import IMPORT_PATIENCE
from fleetest.master.runs.events import RunSubmitted
from fleetest.master.runs.importing import begin_import, import_cases
from fleetest.master.store.ports import RunQuery
from tests.tools.core import Core
from tests.tools.story import command_task, result

SECOND = timedelta(seconds=1)


def beginning(*names: str, **settings: Any) -> ImportBeginning:
    return ImportBeginning(
        **({"name": "nightly", "project": "p", "reports": {name: name for name in names}} | settings)
    )


async def parts(*given: ImportPart | Exception) -> AsyncIterator[ImportPart]:
    for each in given:
        if isinstance(each, Exception):
            raise each
        yield each


def part(task_id: str, *results: Any, **settings: Any) -> ImportPart:
    return ImportPart(task_id=task_id, results=results, **settings)


async def runs_of(core: Core) -> list[str]:
    return [row.run_id for row in await core.store.list_runs(RunQuery(limit=50))]


async def test_each_report_becomes_a_task_that_has_ended(core: Core) -> None:
    bad = result("b", "failed")

    taken = await core.imports.take(
        beginning("a.xml", "none.xml", "b.xml"), parts(part("a.xml", result("a")), part("b.xml", bad, result("c")))
    )

    status = await core.status(taken.run_id)
    assert (status.state, status.reason) == (RunState.FAILED, "b.xml failed")
    assert {name: (task.state, task.counts.done) for name, task in status.tasks.items()} == {
        "a.xml": (TaskState.PASSED, 1),
        "none.xml": (TaskState.PASSED, 0),
        "b.xml": (TaskState.FAILED, 2),
    }
    assert status.position == 1  # nobody ever sees a part of it
    listed = await core.store.list_cases(taken.run_id, task_id="", outcomes=frozenset(), after=None, limit=10)
    assert [(row.task_id, row.case_id, row.outcome) for row in listed] == [
        ("a.xml", "a", Outcome.PASSED),
        ("b.xml", "b", Outcome.FAILED),
        ("b.xml", "c", Outcome.PASSED),
    ]


async def test_large_imports_are_several_commits(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "MAX_PART_BYTES", 1)

    taken = await core.imports.take(
        beginning("a", "b"), parts(part("a", result("1")), part("a", result("2")), part("b", result("1")))
    )

    status = await core.status(taken.run_id)
    assert (status.state, status.position, status.counts) == (RunState.PASSED, 3, Counts(planned=3, passed=3))


async def test_flaky_cases_are_flaky_in_history_too(core: Core) -> None:
    taken = await core.imports.take(beginning("a"), parts(part("a", result("x"), result("y"), flaky=frozenset({"x"}))))

    status = await core.status(taken.run_id)
    history = await core.store.load_history("p", "a")
    assert status.counts == Counts(planned=2, passed=2, flaky=1)
    assert history["x"].failing > history["y"].failing


async def test_of_an_import_that_breaks_off_nothing_is_kept(core: Core) -> None:
    with pytest.raises(InvalidRequest, match="ended before"):
        await core.imports.take(beginning("a"), parts(part("a", result("x")), InvalidRequest("ended before")))

    assert await runs_of(core) == []


async def test_an_import_with_a_key_that_is_known_answers_the_first_run(core: Core) -> None:
    first = await core.imports.take(beginning("a", idempotency_key="k"), parts(part("a", result("x"))))

    second = await core.imports.take(beginning("a", idempotency_key="k"), parts(part("a", result("other"))))

    assert (second.run_id, first.already, second.already) == (first.run_id, False, True)
    assert await runs_of(core) == [first.run_id]


def half_written(decider: Any) -> None:
    """As far as a master came before it died."""
    begin_import(
        decider,
        RunSubmitted(
            at=decider.now,
            project="p",
            suite_name="nightly",
            tasks=(command_task("a"), command_task("b")),
            imported=True,
        ),
    )
    import_cases(decider, "a", [result("1")])


async def test_who_comes_again_with_the_key_continues_what_a_dead_master_began(core: Core) -> None:
    run_id = await core.store.put_if_absent("idempotency", "p/k", "019a0000-0000-7000-8000-000000000001")
    await core.book.keeper(run_id).ask(half_written)

    taken = await core.imports.take(
        beginning("a", "b", idempotency_key="k"), parts(part("a", result("1"), result("2")), part("b", result("3")))
    )

    status = await core.status(run_id)
    assert (taken.run_id, taken.already) == (run_id, False)
    assert (status.state, status.counts) == (RunState.PASSED, Counts(planned=3, passed=3))


async def test_an_unfinished_import_is_for_no_worker_and_ends_in_time(core: Core) -> None:
    run_id = "019a0000-0000-7000-8000-000000000001"
    await core.book.keeper(run_id).ask(half_written)
    await core.projector.flush(run_id)
    session = await core.connect()

    core.clock.advance(IMPORT_PATIENCE - SECOND)
    await core.reconciler.look()
    assert await core.assigned(session) == []
    assert (await core.status(run_id)).state is RunState.RUNNING
    core.clock.advance(2 * SECOND)
    await core.reconciler.look()

    status = await core.status(run_id)
    assert (status.state, status.reason) == (RunState.ERRORED, "a and b errored")
    assert {task.reason for task in status.tasks.values()} == {"the import was broken off"}
    assert await core.assigned(session) == []


async def test_an_imported_run_cannot_be_retried(core: Core) -> None:
    taken = await core.imports.take(beginning("a"), parts(part("a", result("x", "failed"))))

    with pytest.raises(WrongState, match="was imported"):
        await core.desk.retry(taken.run_id, everything=True, user="", secrets={}, key="")


async def test_a_project_that_is_not_the_importers_is_refused(core: Core) -> None:
    with pytest.raises(Forbidden, match="is for project mine"):
        await core.imports.take(beginning("a", only_project="mine"), parts())

    taken = await core.imports.take(beginning("a", project="", only_project="mine"), parts())

    assert (await core.status(taken.run_id)).request.project == "mine"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (beginning("a", name=""), "needs a name"),
        (beginning(), "1 to 1000 reports, not of 0"),
        (beginning("a#0"), "cannot be the name of a task"),
        (beginning("a\n"), "cannot be the name of a task"),
        (beginning("x" * 300), "cannot be the name of a task"),
    ],
)
async def test_what_cannot_be_imported_is_refused(core: Core, given: ImportBeginning, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        await core.imports.take(given, parts())


async def test_results_out_of_turn_and_too_many_of_them_are_refused(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidRequest, match="'a' came out of turn"):
        await core.imports.take(beginning("a", "b"), parts(part("b", result("x")), part("a", result("x"))))
    with pytest.raises(InvalidRequest, match="none of the import's"):
        await core.imports.take(beginning("a"), parts(part("c", result("x"))))
    monkeypatch.setattr(imports, "MAX_CASES_PER_TASK", 1)
    with pytest.raises(CapacityExceeded, match="more than 1 cases"):
        await core.imports.take(beginning("a"), parts(part("a", result("x"), result("y"))))

    assert await runs_of(core) == []
