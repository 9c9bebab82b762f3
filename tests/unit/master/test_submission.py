"""Runs are handed in, and handed in again, on a real Redis and a real SQLite."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from fleetest.common.convert_workspace import workspace_of
from fleetest.common.digest import digest_of
from fleetest.common.errors import DependencyUnavailable, InvalidRequest, NotFound, WrongState
from fleetest.common.ids import new_run_id
from fleetest.common.limits import MAX_SUITE_BYTES
from fleetest.common.states import RunState, TaskState, Verdict
from fleetest.common.suite import SuiteInvalid
from fleetest.common.tasks import Task
from fleetest.common.version_control import VersionControl
from fleetest.common.workspace import WorkspaceFile
from fleetest.master.reports import Ended, Planned, Results
from fleetest.master.runs.summary import summary_of_row
from fleetest.master.store.ports import CaseHistory
from fleetest.master.submission import Desk, Submission
from fleetest.master.workspaces import BlobWorkspaces
from tests.tools.core import Core, unwritable
from tests.tools.story import cases, result

SUITE = """\
version: 1
name: shop
tasks:
  unit: {args: [tests]}
"""
SERVED = """
version: 1
name: s
tasks: {shop: {type: service, run: x, %s}, smoke: {run: x, %s needs: {shop: ready}}}
"""
COMMANDS = """\
version: 1
name: shop
tasks:
  a: {command: ["true"], image: "python:3.12"}
  b: {command: ["true"], needs: [a]}
  cleanup: {command: ["true"], needs: {a: failed}}
  report: {command: ["true"], needs: {b: always}}
"""
ON_MAIN = VersionControl(branch="main")


def submission(text: str = SUITE, **settings: object) -> Submission:
    return replace(Submission(suite_text=text), **settings)  # type: ignore[arg-type]  # forwarded as they are


async def stored_tasks(core: Core, run_id: str) -> dict[str, Task]:
    return {task.name: task for task in (await core.status(run_id)).request.tasks}


async def finish(core: Core, run_id: str, **outcomes: str) -> None:
    """Run every command of the run; those not named pass."""
    session = await core.connect(f"w-{run_id}", capabilities={"executor.docker": "true"}, shards=100)
    while assigned := await core.assigned(session):
        for each in assigned:
            name = each.work.task.name
            outcome = outcomes.get(name, "passed")
            await core.report(each.ref, Results(results=(result(name, outcome),)), Ended(verdict=Verdict.COMPLETED))
    core.sessions.remove(session)


# -- submit


async def test_a_submitted_run_is_listed_and_queued_before_the_answer(core: Core) -> None:
    submitted = await core.desk.submit(
        submission(version_control=ON_MAIN, user="ann", labels={"a": "b"}, secrets={"TOKEN": "x"})
    )

    row = await core.store.get_run(submitted.run_id)
    assert row is not None
    assert (row.project, row.suite_name, row.branch, row.state) == ("shop", "shop", "main", RunState.RUNNING)
    assert await core.queue.waiting(submitted.run_id) == {"unit#plan"}
    request = (await core.status(submitted.run_id)).request
    assert (request.user, request.labels, request.suite_text) == ("ann", {"a": "b"}, SUITE)
    assert await core.secrets.get(submitted.run_id) == {"TOKEN": "x"}


async def test_a_key_makes_submitting_idempotent(core: Core) -> None:
    first = await core.desk.submit(submission(idempotency_key="k"))
    again = await core.desk.submit(submission(idempotency_key="k"))
    elsewhere = await core.desk.submit(submission(idempotency_key="k", project="other"))

    assert (first.already, again.already, elsewhere.already) == (False, True, False)
    assert again.run_id == first.run_id != elsewhere.run_id


async def test_a_submission_that_failed_half_way_is_completed_by_its_repetition(core: Core) -> None:
    run_id = await core.store.put_if_absent("idempotency", "shop/k", new_run_id())

    submitted = await core.desk.submit(submission(idempotency_key="k"))

    assert (submitted.run_id, submitted.already) == (run_id, False)


async def test_a_run_that_was_committed_but_never_listed_is_listed_by_its_repetition(core: Core) -> None:
    submitted = await core.desk.submit(submission(idempotency_key="k"))
    await core.store._database.write(lambda connection: connection.execute("DELETE FROM runs"))

    again = await core.desk.submit(submission(idempotency_key="k"))

    assert again.already
    assert await core.store.get_run(submitted.run_id) is not None


async def test_without_the_store_nothing_is_acknowledged(core: Core) -> None:
    with unwritable(core.path), pytest.raises(DependencyUnavailable):
        await core.desk.submit(submission())


async def test_every_problem_of_a_suite_is_reported(core: Core) -> None:
    with pytest.raises(SuiteInvalid) as refused:
        await core.desk.submit(
            submission("version: 1\nname: x\ntasks: {a: {arg: []}, b: {needs: [c]}}", suite_source="s.yaml")
        )

    assert len(refused.value.problems) >= 2
    assert {problem.source for problem in refused.value.problems} == {"s.yaml"}


async def test_a_suite_is_read_beside_the_loop_that_serves_everybody_else(core: Core) -> None:
    submitting = asyncio.create_task(core.desk.submit(submission("no suite")))

    await asyncio.sleep(0)  # its first step: all that it does before it waits for something

    assert not submitting.done()
    with pytest.raises(SuiteInvalid):
        await submitting


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"suite_text": "#" * (MAX_SUITE_BYTES + 1)}, "is larger than"),
        ({"executor": "podman"}, "no executor 'podman'"),
        ({"executor": "docker"}, "no image for what is to run in Docker: unit"),
        ({"suite_text": SUITE.replace("[tests]", "[tests], secrets: [B, A]")}, "secrets that were not given: A, B"),
        ({"workspace_digest": "nonsense"}, "nonsense"),
        (
            {"suite_text": SERVED % ("image: o", "")},
            "smoke would run as a process, and would not reach the service shop",
        ),
        ({"suite_text": SERVED % ("publish: auto", "image: o, network: none,")}, "smoke would run in a container"),
        ({"suite_text": SERVED % ("publish: auto, image: o, network: none", "")}, "shop publishes a port, and"),
    ],
    ids=["size", "executor", "image", "secrets", "digest", "apart", "shut in", "shut in and published"],
)
async def test_what_else_is_wrong_with_a_submission_is_said(core: Core, wrong: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        await core.desk.submit(submission(**wrong))


async def test_a_run_in_an_environment_has_what_it_says_and_needs_its_secrets(core: Core) -> None:
    text = SUITE + "environments: {dev: {services: {shop: {url: 'http://shop', credentials: {token: DEV_TOKEN}}}}}\n"
    elsewhere = {"services.shop.url": "http://other"}

    with pytest.raises(InvalidRequest, match="secrets that were not given: DEV_TOKEN"):
        await core.desk.submit(submission(text, environment="dev"))
    submitted = await core.desk.submit(
        submission(text, environment="dev", environment_settings=elsewhere, secrets={"DEV_TOKEN": "x"})
    )

    row = await core.store.get_run(submitted.run_id)
    assert row is not None
    assert summary_of_row(row).environment == "dev"
    assert (await stored_tasks(core, submitted.run_id))["unit"].env["SHOP_URL"] == "http://other"


async def test_an_executor_for_all_overrides_what_tasks_say(core: Core) -> None:
    processes = await core.desk.submit(submission(COMMANDS, executor="process"))
    as_written = await core.desk.submit(submission(COMMANDS))

    assert [(task.executor, task.image) for task in (await stored_tasks(core, processes.run_id)).values()] == [
        ("process", "")
    ] * 4
    assert (await stored_tasks(core, as_written.run_id))["a"].image == "python:3.12"


async def test_tasks_without_image_take_the_clusters_unless_they_run_as_processes(core: Core) -> None:
    desk = Desk(
        store=core.store,
        book=core.book,
        projector=core.projector,
        secrets=core.secrets,
        workspaces=BlobWorkspaces(core.blobs, core.clock),
        custody=core.custody,
        inputs=core.inputs,
        clock=core.clock,
        default_image="our/tests:1",
    )
    suite = "{version: 1, name: s, tasks: {a: {run: x}, b: {run: x, image: o}, c: {run: x, executor: process}}}"

    submitted = await desk.submit(submission(suite))

    tasks = await stored_tasks(core, submitted.run_id)
    assert {name: task.image for name, task in tasks.items()} == {"a": "our/tests:1", "b": "o", "c": ""}


async def test_fail_fast_is_the_suites_or_the_submitters(core: Core) -> None:
    asked = await core.desk.submit(submission(fail_fast=True))
    written = await core.desk.submit(submission(SUITE.replace("tasks:", "fail_fast: true\ntasks:")))

    assert (await core.status(asked.run_id)).request.fail_fast
    assert (await core.status(written.run_id)).request.fail_fast


# -- workspaces


async def test_a_workspace_must_have_been_uploaded_whole(core: Core) -> None:
    content = b"import shop"
    file = WorkspaceFile(path="shop.py", digest=digest_of(content), size_bytes=len(content))
    workspace = workspace_of([file])
    handed_in = submission(workspace_digest=workspace.digest)

    with pytest.raises(WrongState, match="has not been uploaded") as nothing:
        await core.desk.submit(handed_in)
    await core.blobs.put({workspace.digest: workspace.manifest})
    with pytest.raises(WrongState, match=r"1 files of the workspace have not been uploaded, shop.py among them"):
        await core.desk.submit(handed_in)
    await core.blobs.put({file.digest: content})

    assert (await core.desk.submit(handed_in)).run_id
    assert nothing.value.hint


async def test_a_workspace_is_believed_to_be_whole_for_some_minutes_and_then_looked_at_again(core: Core) -> None:
    content = b"import shop"
    workspace = workspace_of([WorkspaceFile(path="shop.py", digest=digest_of(content), size_bytes=len(content))])
    await core.blobs.put({digest_of(content): content, workspace.digest: workspace.manifest})
    await core.desk.submit(submission(workspace_digest=workspace.digest))
    await core.blobs.delete([digest_of(content)])

    core.clock.advance(timedelta(minutes=4))
    soon = await core.desk.submit(submission(workspace_digest=workspace.digest))
    core.clock.advance(timedelta(minutes=4))

    assert soon.run_id
    with pytest.raises(WrongState, match="1 files of the workspace"):
        await core.desk.submit(submission(workspace_digest=workspace.digest))


async def test_a_blob_that_is_no_manifest_is_refused(core: Core) -> None:
    content = b"\xff not a manifest"
    await core.blobs.put({digest_of(content): content})

    with pytest.raises(InvalidRequest, match="not a workspace manifest"):
        await core.desk.submit(submission(workspace_digest=digest_of(content)))


async def test_the_setup_digest_knows_the_files_that_setup_reads(core: Core) -> None:
    suite = SUITE.replace("[tests]", "[tests], setup: [make], setup_inputs: [Makefile]")
    digests = []
    for makefile, other in ((b"a", b"a"), (b"a", b"b"), (b"b", b"b")):
        files = {"Makefile": makefile, "other.py": other}
        workspace = workspace_of(
            [WorkspaceFile(path=path, digest=digest_of(text), size_bytes=1) for path, text in files.items()]
        )
        await core.blobs.put(
            {digest_of(text): text for text in files.values()} | {workspace.digest: workspace.manifest}
        )
        submitted = await core.desk.submit(submission(suite, workspace_digest=workspace.digest))
        digests.append((await stored_tasks(core, submitted.run_id))["unit"].setup_digest)

    assert digests[0] == digests[1] != digests[2]
    assert all(digests)


async def test_the_digest_of_cache_inputs_knows_the_files_that_are_named_and_none_without(core: Core) -> None:
    digests = []
    for cache, content in (("{inputs: a*}", b"1"), ("{inputs: a*}", b"2"), ("true", b"2")):
        workspace = workspace_of([WorkspaceFile(path="a.csv", digest=digest_of(content), size_bytes=1)])
        await core.blobs.put({digest_of(content): content, workspace.digest: workspace.manifest})
        text = SUITE.replace("[tests]", f"[tests], cache: {cache}")
        submitted = await core.desk.submit(submission(text, workspace_digest=workspace.digest))
        policy = (await stored_tasks(core, submitted.run_id))["unit"].cache
        assert policy is not None
        digests.append(policy.inputs_digest)

    first, second, without = digests
    assert first != second
    assert all([first, second])
    assert without == ""


async def test_a_retry_takes_nothing_from_the_cache(core: Core) -> None:
    text = SUITE.replace("args: [tests]", "type: command, run: x") + "  more: {args: [tests], cache: true}\n"
    first = await core.desk.submit(submission(text))
    await core.book.keeper(first.run_id).ask(lambda decider: decider.cancel(by="x", reason="x"))

    again = await core.desk.retry(first.run_id, everything=True, user="", secrets={}, key="")

    assert (await stored_tasks(core, first.run_id))["more"].cache is not None
    assert (await stored_tasks(core, again.run_id))["more"].cache is None


# -- supersede


async def test_a_newer_run_of_the_same_branch_supersedes_the_older_ones(core: Core) -> None:
    old = await core.desk.submit(submission(version_control=ON_MAIN))
    elsewhere = await core.desk.submit(submission(version_control=VersionControl(branch="x")))
    detached = await core.desk.submit(submission(supersede=True))

    new = await core.desk.submit(submission(version_control=ON_MAIN, supersede=True))

    assert (new.superseded, detached.superseded) == ((old.run_id,), ())
    status = await core.status(old.run_id)
    assert (status.state, status.reason) == (RunState.CANCELLED, f"superseded by run {new.run_id}")
    assert not (await core.status(elsewhere.run_id)).state.ended


# -- retry


async def test_a_retry_repeats_what_did_not_pass_and_drops_what_was_met(core: Core) -> None:
    first = await core.desk.submit(submission(COMMANDS, fail_fast=False, labels={"x": "y"}))
    await finish(core, first.run_id, b="failed")

    again = await core.desk.retry(first.run_id, everything=False, user="ben", secrets={}, key="")

    tasks = await stored_tasks(core, again.run_id)
    assert list(tasks) == ["b"]  # cleanup needs a failure of a, which passed
    assert tasks["b"].needs == ()
    request = (await core.status(again.run_id)).request
    assert (request.retry_of, request.user, request.labels) == (first.run_id, "ben", {"x": "y"})


async def test_a_retry_repeats_what_was_skipped_because_of_what_failed(core: Core) -> None:
    first = await core.desk.submit(submission(COMMANDS))
    await finish(core, first.run_id, a="failed")
    assert (await core.status(first.run_id)).tasks["b"].state is TaskState.SKIPPED

    again = await core.desk.retry(first.run_id, everything=False, user="", secrets={}, key="k")
    repeated = await core.desk.retry(first.run_id, everything=False, user="", secrets={}, key="k")

    tasks = await stored_tasks(core, again.run_id)
    assert list(tasks) == ["a", "b"]
    assert [need.task for need in tasks["b"].needs] == ["a"]
    assert (repeated.run_id, repeated.already) == (again.run_id, True)


async def test_a_retry_of_everything_repeats_everything(core: Core) -> None:
    first = await core.desk.submit(submission(COMMANDS))
    await finish(core, first.run_id)

    again = await core.desk.retry(first.run_id, everything=True, user="", secrets={}, key="")

    assert await stored_tasks(core, again.run_id) == await stored_tasks(core, first.run_id)
    assert again.run_id != first.run_id


async def test_a_retry_runs_only_the_cases_that_did_not_pass(core: Core) -> None:
    first = await core.desk.submit(submission())
    session = await core.connect(shards=1)
    [planning] = await core.assigned(session)
    await core.report(planning.ref, Planned(cases=cases("a", "b", "c")), Ended(verdict=Verdict.COMPLETED))
    session = await core.connect(shards=9)
    outcomes = {"a": "passed", "b": "failed", "c": "skipped"}
    for each in await core.assigned(session):
        done = tuple(result(case_id, outcomes[case_id]) for case_id in each.case_ids)
        await core.report(each.ref, Results(results=done), Ended(verdict=Verdict.COMPLETED))

    again = await core.desk.retry(first.run_id, everything=False, user="", secrets={}, key="")

    assert (await stored_tasks(core, again.run_id))["unit"].only_cases == ("b",)
    await core.projector.flush(first.run_id)
    assert set(await core.store.load_history("shop", "unit")) == {"a", "b", "c"}


async def test_a_retry_after_a_collection_error_collects_all_of_it_again(core: Core) -> None:
    first = await core.desk.submit(submission())
    session = await core.connect()
    [planning] = await core.assigned(session)
    broken = Planned(cases=cases("a"), collection_errors=(result("test_x.py", "error"),))
    await core.report(planning.ref, broken, Ended(verdict=Verdict.COMPLETED))

    again = await core.desk.retry(first.run_id, everything=False, user="", secrets={}, key="")

    assert (await stored_tasks(core, again.run_id))["unit"].only_cases == ()
    await core.projector.flush(first.run_id)
    history: dict[str, CaseHistory] = dict(await core.store.load_history("shop", "unit"))
    assert history == {}


async def test_a_retry_without_sense_is_refused(core: Core) -> None:
    running = await core.desk.submit(submission(COMMANDS))
    with pytest.raises(WrongState, match="has not ended yet"):
        await core.desk.retry(running.run_id, everything=True, user="", secrets={}, key="")

    await finish(core, running.run_id)
    with pytest.raises(WrongState, match="nothing to repeat"):
        await core.desk.retry(running.run_id, everything=False, user="", secrets={}, key="")
    with pytest.raises(NotFound):
        await core.desk.retry(new_run_id(), everything=False, user="", secrets={}, key="")


async def test_a_retry_needs_its_secrets_again(core: Core) -> None:
    suite = SUITE.replace("[tests]", "[tests], secrets: [TOKEN]")
    first = await core.desk.submit(submission(suite, secrets={"TOKEN": "x"}))
    await core.book.keeper(first.run_id).ask(lambda decider: decider.cancel(by="x", reason="y"))

    with pytest.raises(InvalidRequest, match="secrets that were not given: TOKEN") as refused:
        await core.desk.retry(first.run_id, everything=True, user="", secrets={}, key="")

    assert refused.value.hint == "add --secret TOKEN"


SEATS = "version: 1\nname: x\ntasks: {{a: {{run: x, uses: {{cluster/seats: {how}}}}}}}\n"


async def test_pools_of_the_cluster_have_their_size_from_its_operator(core: Core) -> None:
    desk = Desk(
        store=core.store,
        book=core.book,
        projector=core.projector,
        secrets=core.secrets,
        workspaces=BlobWorkspaces(core.blobs, core.clock),
        custody=core.custody,
        inputs=core.inputs,
        clock=core.clock,
        pools={"seats": 3},
    )

    run_id = (await desk.submit(submission(suite_text=SEATS.format(how=2)))).run_id

    [use] = (await core.status(run_id)).tasks["a"].task.uses
    assert (use.amount, use.size) == (2, 3)
    for how, message in ((4, "a uses 4 of cluster/seats, of which there are 3"), ("shared", "is a pool of 3")):
        with pytest.raises(InvalidRequest, match=message):
            await desk.submit(submission(suite_text=SEATS.format(how=how)))
    with pytest.raises(InvalidRequest, match="a uses 1 of cluster/seats, and the cluster has no such pool") as refused:
        await core.desk.submit(submission(suite_text=SEATS.format(how=1)))
    assert "FLEETEST_POOLS says which pools the cluster has: none" in refused.value.hint
