"""Tasks that take artifacts of others get them into their workspace, on a real Redis and a real SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from fleetest.common.convert_workspace import workspace_of
from fleetest.common.digest import digest_of
from fleetest.common.errors import WrongState
from fleetest.common.results import Artifact
from fleetest.common.states import RunState, TaskState, Verdict
from fleetest.common.tasks import CachePolicy, Input, Task, When
from fleetest.common.workspace import WorkspaceFile
from fleetest.master.cache.entries import entry_key
from fleetest.master.explain import ReasonKind, explain
from fleetest.master.reconciler import Reconciler
from fleetest.master.reports import Artifacts, Ended, Results
from fleetest.master.roster import Roster
from fleetest.master.runs.environment import environment_key
from fleetest.master.servicers.convert import task_spec_to_proto
from fleetest.master.sessions import Assigned, Session
from fleetest.master.supplying import Supplying
from fleetest.master.workspaces import BlobWorkspaces
from tests.tools.core import INTERVAL, LEASE_TTL, Core
from tests.tools.story import command_task, need, pytest_task, result

LOGIN = command_task("login", artifacts=("state.json", "out"))
DOES_NOT_FIT = "what it takes of others does not fit its workspace"
SUITE = {"test_a.py": b"def test_a(): pass", "state.json": b"{}"}


def browse(*inputs: Input, name: str = "browse", when: When = When.PASSED, **settings: object) -> Task:
    needed = dict.fromkeys(each.task for each in inputs)
    needs = tuple(need(task, when) for task in needed)
    return command_task(name, inputs=inputs, needs=needs, **settings)


def taking(*files: str, **settings: object) -> Input:
    return Input(task="login", files=files, **settings)  # type: ignore[arg-type]  # forwarded as they are


async def stored(core: Core, files: dict[str, bytes]) -> str:
    """The digest of a workspace of these files."""
    workspace = workspace_of(
        [WorkspaceFile(path=path, digest=digest_of(text), size_bytes=len(text)) for path, text in files.items()]
    )
    await core.blobs.put({digest_of(text): text for text in files.values()} | {workspace.digest: workspace.manifest})
    return workspace.digest


async def leave(
    core: Core,
    assigned: Assigned,
    files: dict[str, bytes],
    verdict: Verdict = Verdict.COMPLETED,
    passed: Sequence[str] = (),
) -> None:
    """An attempt ends that leaves these files."""
    await core.blobs.put({digest_of(text): text for text in files.values()})
    artifacts = tuple(
        Artifact(path=path, digest=digest_of(text), size_bytes=len(text), executable=path.startswith("bin"))
        for path, text in files.items()
    )
    outcome = "passed" if verdict is Verdict.COMPLETED else "failed"
    results = Results(results=tuple(result(name, outcome) for name in passed or (assigned.ref.shard_id,)))
    await core.report(assigned.ref, results, Artifacts(artifacts=artifacts), Ended(verdict=verdict))


async def files_of(core: Core, assigned: Assigned) -> dict[str, bytes]:
    """What a worker would put into the workspace, by path; `*` after those that may be executed."""
    spec = task_spec_to_proto(assigned.ref.run_id, assigned.work.request, assigned.work.task, environment_key="")
    workspace = await BlobWorkspaces(core.blobs, core.clock).load(spec.workspace_digest)
    return {file.path + "*" * file.executable: await content_of(core, file.digest) for file in workspace.files}


async def content_of(core: Core, digest: str) -> bytes:
    return b"".join([chunk async for chunk in core.blobs.read(digest)])


async def begun(core: Core, *tasks: Task, **settings: str) -> tuple[str, Session, list[Assigned]]:
    """A run of which a worker has all that needs nothing."""
    run_id = await core.submit(*tasks, **{"workspace_digest": await stored(core, SUITE), **settings})
    session = await core.connect(shards=20, slots=20)
    return run_id, session, await core.assigned(session)


async def supplied(core: Core, session: Session) -> list[Assigned]:
    """What is told to the worker once what waits for inputs has them."""
    await core.supplying.supply_all()
    return await core.assigned(session)


async def reason_of(core: Core, run_id: str, task: str = "browse") -> tuple[TaskState, str]:
    status = (await core.status(run_id)).tasks[task]
    return status.state, status.reason


async def test_what_is_taken_is_in_the_workspace_and_replaces_what_was_there(core: Core) -> None:
    _, session, [login] = await begun(core, LOGIN, browse(taking()))
    await leave(core, login, {"state.json": b"logged in", "bin/tool": b"#!/bin/sh"})

    [told] = await supplied(core, session)

    assert told.work.task.name == "browse"
    assert await files_of(core, told) == {**SUITE, "state.json": b"logged in", "bin/tool*": b"#!/bin/sh"}
    request = told.work.request
    assert told.work.environment_key != environment_key(told.ref.run_id, request, request.tasks[1])


@pytest.mark.parametrize(
    ("left", "into", "reason"),
    [
        ("else.json", "", "login left nothing that matches 's*': it left else.json"),
        (
            "state.json",
            "test_a.py",
            f"{DOES_NOT_FIT}: 'test_a.py/state.json': lies below 'test_a.py', which is no directory",
        ),
        ("s/../../x", "", f"{DOES_NOT_FIT}: 's/../../x': is not a plain relative path"),
    ],
)
async def test_what_cannot_be_had_fails_the_task_before_it_begins(
    core: Core, left: str, into: str, reason: str
) -> None:
    later = command_task("later", needs=(need("browse"),))
    run_id, session, [login] = await begun(core, LOGIN, browse(taking("s*", into=into)), later)
    await leave(core, login, {left: b""})

    assert await supplied(core, session) == []

    assert await reason_of(core, run_id) == (TaskState.FAILED, reason)
    assert (await core.status(run_id)).tasks["later"].state is TaskState.SKIPPED
    assert (await core.status(run_id)).state is RunState.FAILED


async def test_what_is_not_kept_any_more_is_not_taken_and_what_was_taken_stays(core: Core) -> None:
    short = command_task("login", artifacts=("out",), artifacts_keep=timedelta(minutes=1))
    slow = command_task("slow")
    run_id, session, [login, slow_one] = await begun(
        core, short, slow, browse(taking(), name="early"), browse(taking(), Input(task="slow", optional=True))
    )
    await leave(core, login, {"out": b"x"})
    [early] = await supplied(core, session)

    core.clock.advance(timedelta(minutes=2))
    await leave(core, slow_one, {})
    assert await supplied(core, session) == []

    assert await reason_of(core, run_id) == (
        TaskState.FAILED,
        "login left out, which is kept no longer: it expired, or was deleted",
    )
    assert await core.custody.of_project([digest_of(b"x")], "p")
    assert (await files_of(core, early))["out"] == b"x"


async def test_another_master_goes_on_where_one_died(core: Core) -> None:
    run_id, session, [login] = await begun(core, LOGIN, browse(taking()))
    await leave(core, login, {"state.json": b"logged in"})  # and the master of this commit does no more
    other = Supplying(core.book, core.inputs)
    reconciler = Reconciler(
        store=core.store,
        queue=core.queue,
        resources=core.resources,
        registry=core.registry,
        secrets=core.secrets,
        book=core.book,
        projector=core.projector,
        dispatcher=core.dispatcher,
        sessions=core.sessions,
        clock=core.clock,
        interval=INTERVAL,
        lease_ttl=LEASE_TTL,
        on_look=other.look_at,
    )

    await reconciler.look()
    await other.supply_all()

    [told] = await core.assigned(session)
    assert (await files_of(core, told))["state.json"] == b"logged in"
    assert (await core.status(run_id)).tasks["browse"].state is TaskState.LEASED


async def test_explain_says_what_is_taken_and_when_it_is_being_put_in(core: Core) -> None:
    run_id, _, [login] = await begun(core, LOGIN, browse(taking("state.json")))
    roster = Roster(core.registry, core.sessions)

    [before] = (await explain(await core.status(run_id), "browse", roster, core.queue, core.resources)).reasons
    await leave(core, login, {"state.json": b"logged in"})
    [then] = (await explain(await core.status(run_id), "browse", roster, core.queue, core.resources)).reasons

    assert before.message == "it needs login passed, which is leased; it takes state.json of it"
    assert (then.kind, then.message) == (
        ReasonKind.WAITS_FOR_INPUTS,
        "what it takes of login is being put into its workspace",
    )


async def test_cached_results_and_setup_depend_on_what_is_taken(core: Core) -> None:
    keys, setups = [], []
    for content in (b"1", b"2", b"2"):
        taker = pytest_task("unit", inputs=(taking(),), needs=(need("login"),), cache=CachePolicy(), setup=("make",))
        _, session, [login] = await begun(core, LOGIN, taker)
        await leave(core, login, {"state.json": content})
        [told] = await supplied(core, session)
        keys.append(entry_key("p", told.work.task, "test_a.py", "fingerprint"))
        setups.append(told.work.task.setup_digest)
        core.sessions.remove(session)

    assert keys[0] != keys[1] == keys[2]
    assert setups[0] != setups[1] == setups[2]


async def test_a_retry_runs_on_what_the_first_run_has_taken(core: Core) -> None:
    run_id, session, [login] = await begun(core, LOGIN, browse(taking()))
    await leave(core, login, {"state.json": b"logged in"})
    [told] = await supplied(core, session)
    await leave(core, told, {}, Verdict.FAILED)

    again = await core.desk.retry(run_id, everything=False, user="", secrets={}, key="")

    [repeated] = await core.assigned(session)
    assert repeated.ref.run_id == again.run_id
    assert await files_of(core, repeated) == await files_of(core, told)


async def test_a_retry_takes_anew_what_is_left_anew_and_keeps_the_rest(core: Core) -> None:
    other = command_task("data", artifacts=("data.csv",))
    both = browse(taking(), Input(task="data"))
    run_id, session, [login, data] = await begun(core, LOGIN, other, both)
    await leave(core, login, {"state.json": b"old"}, Verdict.FAILED)
    await leave(core, data, {"data.csv": b"kept"})

    await core.desk.retry(run_id, everything=False, user="", secrets={}, key="")

    [login_again] = await core.assigned(session)
    await leave(core, login_again, {"state.json": b"new"})
    [told] = await supplied(core, session)
    assert await files_of(core, told) == {**SUITE, "state.json": b"new", "data.csv": b"kept"}


async def test_a_retry_repeats_who_left_nothing_of_what_is_taken(core: Core) -> None:
    run_id, session, [login] = await begun(core, LOGIN, browse(taking("state.json")))
    await leave(core, login, {"else.json": b"x"})
    await supplied(core, session)

    again = await core.desk.retry(run_id, everything=False, user="", secrets={}, key="")

    [login_again] = await core.assigned(session)
    assert (login_again.work.task.name, login_again.ref.run_id) == ("login", again.run_id)
    await leave(core, login_again, {"state.json": b"new"})
    [told] = await supplied(core, session)
    assert await files_of(core, told) == {**SUITE, "state.json": b"new"}


async def test_a_retry_is_refused_whose_files_can_never_be_had(core: Core) -> None:
    skipped = command_task("skipped", needs=(need("login", When.FAILED),), artifacts=("out",))
    taker = browse(Input(task="skipped"), when=When.ALWAYS)
    run_id, session, [login] = await begun(core, LOGIN, skipped, taker)
    await leave(core, login, {})
    await supplied(core, session)

    with pytest.raises(WrongState, match="browse cannot be repeated: skipped, which ended as skipped, left") as refusal:
        await core.desk.retry(run_id, everything=False, user="", secrets={}, key="")

    assert "--all" in refusal.value.hint
