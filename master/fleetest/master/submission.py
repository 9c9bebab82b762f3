"""Takes in new runs: checks all that can be checked, makes the first commit, and lets older runs go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import Final

import msgspec
import structlog

from fleetest.common.clock import Clock
from fleetest.common.errors import AlreadyExists, Forbidden, InvalidRequest, NotFound, WrongState
from fleetest.common.ids import new_run_id
from fleetest.common.limits import MAX_SUITE_BYTES
from fleetest.common.serving import follows
from fleetest.common.states import RunState
from fleetest.common.suite.combining import without_coverage
from fleetest.common.tasks import Network, Task
from fleetest.common.version_control import VersionControl
from fleetest.common.workspace import Workspace
from fleetest.master.blobs.custody import Custody
from fleetest.master.input_workspaces import InputWorkspaces
from fleetest.master.pools import with_cluster_pools
from fleetest.master.queue.ports import SecretStore
from fleetest.master.repeating import tasks_to_repeat
from fleetest.master.runs.book import RunBook
from fleetest.master.runs.environment import SetupInputs, setup_digest
from fleetest.master.runs.events import RunSubmitted
from fleetest.master.runs.projector import Projector
from fleetest.master.runs.sizing import lasted, packed
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.summary import row_of, summary_of
from fleetest.master.store.ports import Commit, RunQuery, Store
from fleetest.master.suites import Suites
from fleetest.master.workspaces import WorkspaceSource

__all__ = ["Desk", "Submission", "Submitted", "chosen_project"]

_log = structlog.get_logger()

SECRETS_TTL: Final = timedelta(hours=24)
"""How long the secrets of a run are held at most."""

_UPLOAD_HINT: Final = "upload the workspace before the run is submitted"
_EXECUTORS: Final = frozenset({"", "process", "docker"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """
    What somebody wants to be run; see `SubmitRunRequest` in `run.proto`.

    Args:
        only_project: the one that the submitter has to do with; empty means any.
    """

    suite_text: str
    suite_source: str = "fleetest.yaml"
    workspace_digest: str = ""
    project: str = ""
    idempotency_key: str = ""
    version_control: VersionControl = VersionControl()
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    supersede: bool = False
    fail_fast: bool = False
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    executor: str = ""
    environment: str = ""
    environment_settings: Mapping[str, str] = field(default_factory=dict)
    only_project: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The answer to a submission."""

    run_id: str
    already: bool = False
    superseded: tuple[str, ...] = ()


class _KeyTaken(AlreadyExists):
    """Another run was submitted with the key."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id} was submitted with this key")
        self.run_id = run_id


class Desk:
    """
    Where runs are handed in.

    Args:
        default_image: for tasks that name none, unless they are to run as processes; empty leaves them as they are.
        pools: how many there are of what all projects share.
        new_id: makes the ids of runs.
    """

    def __init__(
        self,
        *,
        store: Store,
        book: RunBook,
        projector: Projector,
        secrets: SecretStore,
        workspaces: WorkspaceSource,
        custody: Custody,
        inputs: InputWorkspaces,
        clock: Clock,
        default_image: str = "",
        pools: Mapping[str, int] = MappingProxyType({}),
        new_id: Callable[[], str] = new_run_id,
    ) -> None:
        self._default_image = default_image
        self._pools = pools
        self._store = store
        self._book = book
        self._projector = projector
        self._secrets = secrets
        self._workspaces = workspaces
        self._custody = custody
        self._inputs = inputs
        self._clock = clock
        self._new_id = new_id
        self._suites = Suites()

    async def submit(self, submission: Submission) -> Submitted:
        """
        Idempotent by project and `idempotency_key`.

        Raises:
            SuiteInvalid: with every problem of the suite.
            InvalidRequest: something else about the submission is wrong.
            Forbidden: its project is not the submitter's.
            WrongState: the workspace has not been uploaded whole.
        """
        if len(submission.suite_text.encode()) > MAX_SUITE_BYTES:
            raise InvalidRequest(f"{submission.suite_source} is larger than {MAX_SUITE_BYTES} bytes")
        suite = await self._suites.read(
            submission.suite_text,
            source=submission.suite_source,
            environment=submission.environment,
            settings=submission.environment_settings,
        )
        if submission.executor not in _EXECUTORS:
            raise InvalidRequest(f"there is no executor {submission.executor!r}; choose process or docker")
        workspace = None
        if submission.workspace_digest:
            await self._check_own(submission.workspace_digest, submission.only_project)
            workspace = await self._workspaces.load(submission.workspace_digest)
            await self._check_own_files(workspace, submission.only_project)
        inputs = SetupInputs(workspace.files if workspace is not None else ())
        ready = [_ready(task, submission.executor, self._default_image, inputs) for task in suite.tasks]
        tasks = with_cluster_pools(ready, self._pools)
        _check_images(tasks)
        _check_services(tasks)
        _check_secrets(tasks, submission.secrets)
        event = RunSubmitted(
            at=self._clock.now(),
            project=chosen_project(submission.project or suite.project, suite.name, submission.only_project),
            suite_name=suite.name,
            tasks=tasks,
            suite_text=submission.suite_text,
            workspace_digest=submission.workspace_digest,
            version_control=submission.version_control,
            user=submission.user,
            labels=submission.labels,
            fail_fast=submission.fail_fast or suite.fail_fast,
            environment=suite.environment,
        )
        if workspace is not None:
            await self._custody.keep_workspace(event.project, event.workspace_digest, workspace)
        return await self._begin(
            event,
            key=submission.idempotency_key,
            secrets=submission.secrets,
            supersede=submission.supersede or bool(suite.supersede),
        )

    async def retry(
        self, run_id: str, *, everything: bool, user: str, secrets: Mapping[str, str], key: str
    ) -> Submitted:
        """
        Submit a run again: all of it, or only the cases that did not pass. Nothing is taken from the cache.

        Raises:
            NotFound: there is no such run, or its log was dropped.
            WrongState: it has not ended, it was imported, or there is nothing to repeat.
        """
        status = await self._book.keeper(run_id).status()
        if status.request.imported:
            raise WrongState(f"run {run_id} was imported: only what made its reports can run it again")
        if not status.state.ended:
            raise WrongState(f"run {run_id} has not ended yet", hint=f"wait for it: fleetest watch {run_id}")
        tasks = status.request.tasks if everything else without_coverage(await tasks_to_repeat(status, self._inputs))
        if not tasks:
            raise WrongState(
                f"every test of run {run_id} passed; there is nothing to repeat",
                hint=f"to run all of it again: fleetest retry --all {run_id}",
            )
        _check_secrets(tasks, secrets)
        for digest in {status.request.workspace_digest, *(task.workspace_digest for task in tasks)} - {""}:
            workspace = await self._workspaces.load(digest)
            await self._custody.keep_workspace(status.request.project, digest, workspace)
        event = RunSubmitted(
            at=self._clock.now(),
            project=status.request.project,
            suite_name=status.request.suite_name,
            tasks=tuple(replace(task, cache=None) for task in tasks),
            suite_text=status.request.suite_text,
            workspace_digest=status.request.workspace_digest,
            version_control=status.request.version_control,
            user=user,
            labels=status.request.labels,
            fail_fast=status.request.fail_fast,
            environment=status.request.environment,
            retry_of=run_id,
        )
        return await self._begin(event, key=key, secrets=secrets, supersede=False)

    async def _begin(self, event: RunSubmitted, *, key: str, secrets: Mapping[str, str], supersede: bool) -> Submitted:
        sized = await self._sized(event)
        run_id = self._new_id()
        await self._secrets.put(run_id, secrets, ttl=SECRETS_TTL)  # first: once it has begun, it is claimed
        already = False
        try:
            keeper = self._book.new_keeper(run_id, partial(self._keep_first, f"{event.project}/{key}" if key else ""))
            await keeper.ask(lambda decider: decider.submit(sized))
        except _KeyTaken as taken:
            await self._secrets.drop(run_id)
            run_id = taken.run_id
            already = await self._complete(run_id, sized, secrets)
        _log.info(
            "run_submitted",
            run_id=run_id,
            project=event.project,
            user=event.user,
            suite=event.suite_name,
            tasks=len(event.tasks),
        )
        superseded = await self._supersede(run_id, event) if supersede else ()
        return Submitted(run_id=run_id, already=already, superseded=superseded)

    async def _check_own(self, workspace_digest: str, project: str) -> None:
        """Whoever knows a digest alone has not uploaded anything."""
        if project and not await self._custody.of_project([workspace_digest], project):
            raise WrongState(f"the workspace {workspace_digest} has not been uploaded", hint=_UPLOAD_HINT)

    async def _check_own_files(self, workspace: Workspace, project: str) -> None:
        if not project:
            return
        digests = {file.digest: file.path for file in workspace.files if file.digest}
        foreign = digests.keys() - await self._custody.of_project(digests, project)
        if foreign:
            first = min(digests[digest] for digest in foreign)
            raise WrongState(
                f"{len(foreign)} files of the workspace have not been uploaded, {first} among them", hint=_UPLOAD_HINT
            )

    async def _sized(self, event: RunSubmitted) -> RunSubmitted:
        """
        With what earlier runs have shown of its tasks. Kept in the log: a shard that is queued again takes the same.
        """
        usages = await self._store.load_usage(event.project, [task.name for task in event.tasks])
        if not usages:
            return event
        sizes = {task.name: packed(task.resources, usages[task.name]) for task in event.tasks if task.name in usages}
        lasting = tuple(name for name, before in usages.items() if lasted(before))
        return msgspec.structs.replace(event, packed=sizes, lasting=lasting)

    async def _keep_first(self, key: str, status: RunStatus, commit: Commit) -> None:
        """
        Fulfils `FirstCommit`. Only a run that is listed is looked after when its master dies, so it is listed at once.
        """
        holder = await self._store.begin_run(commit, row_of(summary_of(status)), key=key)
        if holder != commit.run_id:
            raise _KeyTaken(holder)

    async def _complete(self, run_id: str, sized: RunSubmitted, secrets: Mapping[str, str]) -> bool:
        """
        See to it that the run which was submitted with the same key before has begun and is listed: a master may have
        died in between. Answers whether it had begun.
        """
        already = await self._exists(run_id)
        if not already:
            await self._secrets.put(run_id, secrets, ttl=SECRETS_TTL)
            await self._book.keeper(run_id).ask(lambda decider: decider.submit(sized))
        await self._projector.flush(run_id)
        if await self._store.get_run(run_id) is None:
            await self._projector.rebuild(self._book.keeper(run_id))
        return already

    async def _exists(self, run_id: str) -> bool:
        """Whether the holder of an idempotency key got as far as its first commit."""
        try:
            await self._book.keeper(run_id).status()
        except NotFound:
            return False
        return True

    async def _supersede(self, run_id: str, event: RunSubmitted) -> tuple[str, ...]:
        branch = event.version_control.branch
        if not branch:
            return ()
        query = RunQuery(
            project=event.project,
            branch=branch,
            suite_name=event.suite_name,
            state=RunState.RUNNING,
            before_run_id=run_id,
            limit=500,
        )
        older = await self._store.list_runs(query)
        for row in older:
            await self._book.keeper(row.run_id).ask(
                lambda decider: decider.cancel(by="superseded", reason=f"superseded by run {run_id}")
            )
        return tuple(row.run_id for row in older)


def chosen_project(asked: str, else_named: str, only: str) -> str:
    """
    The project of what is handed in.

    Args:
        asked: by who hands it in; may be empty.
        else_named: when nobody asks for one.
        only: the one that the caller has to do with; empty means any.

    Raises:
        Forbidden: it is another one.
    """
    project = asked or only or else_named
    if only not in {"", project}:
        raise Forbidden(
            f"the token is for project {only}, and the suite is of project {project}",
            hint="use a token of that project, or name the other one with --project",
        )
    return project


def _ready(task: Task, executor: str, default_image: str, inputs: SetupInputs) -> Task:
    executor = executor or task.executor
    image = "" if executor == "process" else task.image or default_image
    cache = task.cache
    if cache is not None and cache.inputs:
        cache = replace(cache, inputs_digest=inputs.digest(cache.inputs))
    if (executor, image, cache) != (task.executor, task.image, task.cache):
        task = replace(task, executor=executor, image=image, cache=cache)
    return replace(task, setup_digest=setup_digest(task, inputs)) if task.setup else task


def _check_images(tasks: Sequence[Task]) -> None:
    lacking = [task.name for task in tasks if task.executor == "docker" and not task.image]
    if lacking:
        raise InvalidRequest(
            f"no image for what is to run in Docker: {', '.join(lacking)}",
            hint="give these tasks an image (or `defaults: {image: ...}`), or the master FLEETEST_DEFAULT_IMAGE",
        )


def _check_services(tasks: Sequence[Task]) -> None:
    """That everybody reaches what he needs: what is beside a container reaches only what that publishes."""
    named = {task.name: task for task in tasks}
    for task in tasks:
        if task.service is not None and task.service.publish and task.image and task.network is Network.NONE:
            raise InvalidRequest(
                f"the service {task.name} publishes a port, and its container has `network: none`",
                hint="give it `network: bridge`, or take `publish` out",
            )
        for service in (named[name] for name in task.served_by):
            if bool(service.image) != bool(task.image) and follows(task, service):
                there, here = _place_of(service), _place_of(task)
                raise InvalidRequest(
                    f"{task.name} would run {here}, and would not reach the service {service.name}, which runs {there}",
                    hint=f"let both run in containers or as processes; or let {service.name} `publish: auto`, and "
                    f"{task.name} have a network",
                )


def _place_of(task: Task) -> str:
    return "in a container" if task.image else "as a process"


def _check_secrets(tasks: Sequence[Task], secrets: Mapping[str, str]) -> None:
    missing = sorted({name for task in tasks for name in task.secret_variables.values() if name not in secrets})
    if missing:
        options = " ".join(f"--secret {name}" for name in missing)
        raise InvalidRequest(
            f"the suite needs secrets that were not given: {', '.join(missing)}", hint=f"add {options}"
        )
