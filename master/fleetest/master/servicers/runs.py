"""`RunService`: what clients ask of runs."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import Any, Final

import grpc
import msgspec

from fleetest.common.convert import (
    artifact_to_proto,
    duration_from_proto,
    outcome_from_proto,
    run_state_from_proto,
    task_state_to_proto,
)
from fleetest.common.convert_version_control import version_control_from_proto
from fleetest.common.errors import InvalidRequest, NotFound
from fleetest.master.access.principals import caller
from fleetest.master.activity import Activity
from fleetest.master.blobs.shelf import MOST_DELETED, ArtifactShelf
from fleetest.master.cache.result_cache import ResultCache
from fleetest.master.explain import explain
from fleetest.master.imports import Imports
from fleetest.master.queue.ports import ResourceLedger, ShardQueue
from fleetest.master.roster import Roster
from fleetest.master.runs.book import RunBook
from fleetest.master.runs.hub import Hub
from fleetest.master.runs.projector import Projector
from fleetest.master.runs.recent import Recent
from fleetest.master.runs.results import KeptResult, decode_result
from fleetest.master.runs.summary import RunSummary, summary_of_row
from fleetest.master.servicers.convert import explanation_to_proto, run_to_proto, task_spec_to_proto
from fleetest.master.servicers.convert_events import commit_to_proto
from fleetest.master.servicers.convert_imports import read_beginning, read_parts
from fleetest.master.servicers.convert_results import put_result
from fleetest.master.store.ports import CaseRow, LogPiece, RunQuery, Store
from fleetest.master.submission import Desk, Submission, Submitted
from fleetest.v1 import run_pb2, run_pb2_grpc

__all__ = ["RunServicer"]

SAFETY_NET: Final = timedelta(seconds=2)
"""A follower looks again after so long without a bell: the commit's master may have died before it rang."""

_DEFAULT_RUNS: Final = 50
_MOST_RUNS: Final = 500
_DEFAULT_CASES: Final = 1000
_MOST_CASES: Final = 5000
_COMMITS_AT_ONCE: Final = 1000
_FULL_ID: Final = 36


class RunServicer(run_pb2_grpc.RunServiceServicer):
    """A thin layer: from the wire to the desk, the book and the store, and back."""

    def __init__(
        self,
        *,
        desk: Desk,
        imports: Imports,
        store: Store,
        book: RunBook,
        projector: Projector,
        hub: Hub,
        recent: Recent[run_pb2.WatchRunResponse],
        roster: Roster,
        queue: ShardQueue,
        resources: ResourceLedger,
        cache: ResultCache,
        shelf: ArtifactShelf,
        activity: Activity,
    ) -> None:
        self._desk = desk
        self._imports = imports
        self._store = store
        self._book = book
        self._projector = projector
        self._hub = hub
        self._recent = recent
        self._roster = roster
        self._queue = queue
        self._resources = resources
        self._cache = cache
        self._shelf = shelf
        self._activity = activity

    async def SubmitRun(
        self, request: run_pb2.SubmitRunRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.SubmitRunResponse:
        return _submitted_to_proto(await self._desk.submit(_submission_from_proto(request)))

    async def StartRuns(
        self,
        request_iterator: AsyncIterator[run_pb2.SubmitRunRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[run_pb2.StartRunResponse]:
        async for request in request_iterator:
            with self._activity.call():
                submitted = await self._desk.submit(_submission_from_proto(request))
                response = run_pb2.StartRunResponse(submitted=_submitted_to_proto(submitted))
                last = None
                for last in self._recent.after(submitted.run_id, 0)[:1]:
                    response.commit.CopyFrom(last)
                yield response
                async with aclosing(self._commits(submitted.run_id, last.position if last else 0)) as commits:
                    async for last in commits:
                        yield run_pb2.StartRunResponse(commit=last)
            if last is None or not _ends_run(last):
                return  # its log is gone, which whoever follows it has to learn

    async def ImportRun(
        self,
        request_iterator: AsyncIterator[run_pb2.ImportRunRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> run_pb2.SubmitRunResponse:
        beginning = await read_beginning(request_iterator, only_project=caller().project)
        return _submitted_to_proto(await self._imports.take(beginning, read_parts(request_iterator)))

    async def RetryRun(
        self, request: run_pb2.RetryRunRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.SubmitRunResponse:
        submitted = await self._desk.retry(
            await self._resolve(request.run_id),
            everything=request.all,
            user=request.user,
            secrets=dict(request.secrets),
            key=request.idempotency_key,
        )
        return _submitted_to_proto(submitted)

    async def GetRun(self, request: run_pb2.GetRunRequest, context: grpc.aio.ServicerContext[Any, Any]) -> run_pb2.Run:
        return run_to_proto(await self._summary(await self._resolve(request.run_id, request.project)))

    async def ListRuns(
        self, request: run_pb2.ListRunsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.ListRunsResponse:
        limit = min(request.page_size or _DEFAULT_RUNS, _MOST_RUNS)
        rows = await self._store.list_runs(
            RunQuery(
                project=caller().visible_project(request.project),
                branch=request.branch,
                state=run_state_from_proto(request.state) if request.state else None,
                before_run_id=request.page_token,
                limit=limit,
            )
        )
        runs = []
        for row in rows:
            run = run_to_proto(summary_of_row(row))
            run.ClearField("suite")
            for task in run.tasks:
                task.ClearField("artifacts")
            runs.append(run)
        token = rows[-1].run_id if len(rows) == limit else ""
        return run_pb2.ListRunsResponse(runs=runs, next_page_token=token)

    async def ListCases(
        self, request: run_pb2.ListCasesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.ListCasesResponse:
        run_id = await self._resolve(request.run_id)
        await self._projector.current(self._book.keeper(run_id))
        limit = min(request.page_size or _DEFAULT_CASES, _MOST_CASES)
        rows = await self._store.list_cases(
            run_id,
            task_id=request.task_id,
            outcomes=frozenset(outcome_from_proto(outcome) for outcome in request.outcomes),
            after=_read_page_token(request.page_token),
            limit=limit,
        )
        token = _page_token(rows[-1].task_id, rows[-1].index) if len(rows) == limit else ""
        return run_pb2.ListCasesResponse(cases=[_case_to_proto(row) for row in rows], next_page_token=token)

    async def WatchRun(
        self, request: run_pb2.WatchRunRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[run_pb2.WatchRunResponse]:
        run_id = await self._resolve(request.run_id)
        async with aclosing(self._commits(run_id, request.after_position)) as commits:
            async for commit in commits:
                yield commit

    async def _commits(self, run_id: str, position: int) -> AsyncGenerator[run_pb2.WatchRunResponse, None]:
        """Those after a position, until the one that ends the run."""
        with self._hub.follow(run_id) as bell, self._recent.follow(run_id):
            rung = True
            while True:
                bell.clear()  # what comes while we read rings again
                known = self._recent.after(run_id, position)
                if known or (rung and self._book.keeper(run_id).is_last(position)):
                    found = known
                else:
                    commits = await self._store.read(run_id, after=position, limit=_COMMITS_AT_ONCE)
                    found = [commit_to_proto(each) for each in commits]
                for response in found:
                    position = response.position
                    yield response
                    if _ends_run(response):
                        return
                if not found and not await self._goes_on(run_id, position):
                    return
                if known or len(found) < _COMMITS_AT_ONCE:  # else the store may have more
                    rung = await _rung(bell)

    async def ReadLogs(
        self, request: run_pb2.ReadLogsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[run_pb2.LogChunk]:
        run_id = await self._resolve(request.run_id)
        status = await self._summary(run_id)
        _check_task(run_id, request.task_id, [task.task_id for task in status.tasks])
        after = 0
        with self._hub.follow(run_id) as bell:
            while True:
                bell.clear()
                ended = await self._task_ended(run_id, request.task_id)
                while pieces := await self._store.read_output(
                    run_id, request.task_id, shard_id=request.shard_id, after_id=after
                ):
                    after = pieces[-1][0]
                    for _, piece in pieces:
                        yield _piece_to_proto(piece)
                if ended or not request.follow:
                    return
                await _rung(bell)

    async def CancelRun(
        self, request: run_pb2.CancelRunRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.CancelRunResponse:
        run_id = await self._resolve(request.run_id)
        keeper = self._book.keeper(run_id)
        status = await keeper.status()
        if request.task_id:
            _check_task(run_id, request.task_id, status.tasks)
        grace = duration_from_proto(request.grace) if request.HasField("grace") else timedelta(seconds=10)
        by = request.user or "a client"
        reason = request.reason or f"cancelled by {by}"
        found = await keeper.ask(
            lambda decider: decider.cancel(request.task_id, by=f"user:{by}", reason=reason, grace=grace)
        )
        return run_pb2.CancelRunResponse(already_ended=not found)

    async def ExplainRun(
        self, request: run_pb2.ExplainRunRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.ExplainRunResponse:
        run_id = await self._resolve(request.run_id)
        status = await self._book.keeper(run_id).status()
        if request.task_id:
            _check_task(run_id, request.task_id, status.tasks)
        wanted = (
            [request.task_id]
            if request.task_id
            else [task_id for task_id, task in status.tasks.items() if not task.state.ended]
        )
        explanations = [
            await explain(status, task_id, self._roster, self._queue, self._resources) for task_id in wanted
        ]
        return run_pb2.ExplainRunResponse(tasks=[explanation_to_proto(each) for each in explanations])

    async def GetTaskSpec(
        self, request: run_pb2.GetTaskSpecRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.GetTaskSpecResponse:
        run_id = await self._resolve(request.run_id, request.project)
        status = await self._book.keeper(run_id).status()
        _check_task(run_id, request.task_id, status.tasks)
        task = status.tasks[request.task_id]
        key = status.environment_key(task)
        return run_pb2.GetTaskSpecResponse(
            run_id=run_id,
            spec=task_spec_to_proto(run_id, status.request, task.task, environment_key=key),
            state=task_state_to_proto(task.state),
        )

    async def InvalidateCache(
        self, request: run_pb2.InvalidateCacheRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.InvalidateCacheResponse:
        project = request.project or caller().project
        if not project:
            raise InvalidRequest("the cache is cleared of one project at a time", hint="name it with --project")
        if request.file and not request.task_id:
            raise InvalidRequest("a file's results belong to a task", hint="name it with --task")
        caller().check_project(project)
        await self._cache.invalidate(project, task=request.task_id, file=request.file)
        return run_pb2.InvalidateCacheResponse()

    async def ListArtifacts(
        self, request: run_pb2.ListArtifactsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.ListArtifactsResponse:
        summary = await self._summary(await self._resolve(request.run_id))
        url_ttl = duration_from_proto(request.url_ttl) if request.HasField("url_ttl") else None
        kept = await self._shelf.list(summary, task_id=request.task_id, url_ttl=url_ttl)
        return run_pb2.ListArtifactsResponse(
            artifacts=[
                run_pb2.TaskArtifact(
                    task_id=each.task_id,
                    shard_id=each.shard_id,
                    artifact=artifact_to_proto(each.artifact),
                    url=each.url,
                )
                for each in kept
            ]
        )

    async def DeleteArtifacts(
        self, request: run_pb2.DeleteArtifactsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.DeleteArtifactsResponse:
        if len(request.artifacts) > MOST_DELETED:
            raise InvalidRequest(f"{len(request.artifacts)} artifacts in one request; the limit is {MOST_DELETED}")
        run_id = await self._resolve(request.run_id)
        deleted = await self._shelf.delete(run_id, [(each.shard_id, each.path) for each in request.artifacts])
        return run_pb2.DeleteArtifactsResponse(deleted=deleted)

    async def _resolve(self, wanted: str, project: str = "") -> str:
        """
        A full id is taken at its word; a prefix must be unique; "latest" is the newest run.

        Raises:
            Forbidden: the run is of a project that the caller has nothing to do with.
        """
        if wanted == "latest":
            newest = await self._store.list_runs(RunQuery(project=caller().visible_project(project), limit=1))
            if not newest:
                raise NotFound("there is no run yet", hint="submit one: fleetest run")
            return newest[0].run_id
        if len(wanted) == _FULL_ID:
            if caller().project:
                caller().check_project((await self._summary(wanted)).project)
            return wanted
        rows = await self._store.find_runs(wanted) if wanted else ()
        found = [row for row in rows if caller().project in {"", row.project}]
        if not found:
            raise NotFound(f"there is no run {wanted!r}", hint="list runs: fleetest ls")
        if len(found) > 1:
            ids = "\n".join(f"  {row.run_id}  {row.suite_name}" for row in found)
            raise InvalidRequest(f"{wanted!r} is the beginning of several runs:\n{ids}", hint="give more of the id")
        return found[0].run_id

    async def _summary(self, run_id: str) -> RunSummary:
        row = await self._projector.current(self._book.keeper(run_id))
        if row is None:
            raise NotFound(f"there is no run {run_id}", hint="list runs: fleetest ls")
        return summary_of_row(row)

    async def _goes_on(self, run_id: str, position: int) -> bool:
        """Whether more commits can follow `position`."""
        status = await self._book.keeper(run_id).status()
        return not status.state.ended or status.position > position

    async def _task_ended(self, run_id: str, task_id: str) -> bool:
        summary = await self._summary(run_id)
        return all(task.state.ended for task in summary.tasks if task.task_id == task_id)


def _submission_from_proto(request: run_pb2.SubmitRunRequest) -> Submission:
    """What the present caller hands in."""
    return Submission(
        suite_text=request.suite,
        suite_source=request.suite_source or "fleetest.yaml",
        workspace_digest=request.workspace_digest,
        project=request.project,
        idempotency_key=request.idempotency_key,
        version_control=version_control_from_proto(request.version_control),
        secrets=_mapping(request.secrets),
        supersede=request.supersede,
        fail_fast=request.fail_fast,
        user=request.user,
        labels=_mapping(request.labels),
        executor=request.executor,
        environment=request.environment,
        environment_settings=_mapping(request.environment_settings),
        only_project=caller().project,
    )


def _mapping(field: Mapping[str, str]) -> Mapping[str, str]:
    """A copy. Of an empty one, as most are, it takes longer than to find that out."""
    return dict(field) if field else {}


def _check_task(run_id: str, task_id: str, tasks: Collection[str]) -> None:
    """
    Raises:
        NotFound: it is none of the run's.
    """
    if task_id not in tasks:
        raise NotFound(f"run {run_id} has no task {task_id!r}", hint="its tasks: " + ", ".join(tasks))


async def _rung(bell: asyncio.Event) -> bool:
    """Waits for it, and not too long; answers whether it has rung."""
    try:
        async with asyncio.timeout(SAFETY_NET.total_seconds()):
            await bell.wait()
    except TimeoutError:
        return False
    return True


def _ends_run(commit: run_pb2.WatchRunResponse) -> bool:
    return bool(commit.events) and commit.events[-1].HasField("run_ended")


def _submitted_to_proto(submitted: Submitted) -> run_pb2.SubmitRunResponse:
    return run_pb2.SubmitRunResponse(
        run_id=submitted.run_id,
        already_submitted=submitted.already,
        superseded_run_ids=submitted.superseded,
    )


def _case_to_proto(row: CaseRow) -> run_pb2.CaseRecord:
    record = run_pb2.CaseRecord(
        task_id=row.task_id,
        flaky=row.flaky,
        attempts=msgspec.convert(row.body["attempts"], int),
        worker_id=str(row.body["worker_id"]),
        shard_id=str(row.body["shard_id"]),
    )
    # Rows from before results were kept whole have it in their body.
    result = decode_result(row.result) if row.result else msgspec.convert(row.body["result"], KeptResult)
    put_result(result, record.result)
    return record


def _piece_to_proto(piece: LogPiece) -> run_pb2.LogChunk:
    return run_pb2.LogChunk(
        shard_id=piece.shard_id,
        token=piece.token,
        offset_bytes=piece.offset_bytes,
        content=piece.content,
        truncated=piece.truncated,
    )


def _page_token(task_id: str, index: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([task_id, index]).encode()).decode()


def _read_page_token(token: str) -> tuple[str, int] | None:
    if not token:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token), type=tuple[str, int])
    except (ValueError, msgspec.MsgspecError):
        raise InvalidRequest(f"{token!r} is not a page token of this list") from None
