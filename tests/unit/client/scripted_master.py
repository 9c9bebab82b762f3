# ruff: noqa: N802 - the methods of a servicer are named as the protocol names them
"""A peer that speaks the real protocol over a real server, and answers what a test tells it to."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from fleetest.common.errors import FleetestError
from fleetest.common.grpc_status import status_of, trailing_metadata_of
from fleetest.v1 import (
    blob_pb2,
    blob_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    types_pb2,
)

RUN_ID = "01a1fbf0-6d2e-7e02-a712-d24fb0ef1791"
START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def result(case_id, outcome="PASSED", seconds=0.05, **fields):
    return types_pb2.CaseResult(
        case_id=case_id,
        outcome=types_pb2.Outcome.Value(f"OUTCOME_{outcome}"),
        duration=timedelta(seconds=seconds),
        **fields,
    )


def task(task_id, state="QUEUED", **fields):
    return run_pb2.Task(
        task_id=task_id, type="pytest", planned=True, state=types_pb2.TaskState.Value(f"TASK_STATE_{state}"), **fields
    )


def a_run(state="PASSED", *, tasks=(), **fields):
    return run_pb2.Run(
        run_id=RUN_ID,
        project="shop",
        suite_name="ci",
        state=types_pb2.RunState.Value(f"RUN_STATE_{state}"),
        tasks=tasks,
        submitted_at=START,
        **fields,
    )


def submitted(*tasks):
    return run_pb2.RunEvent(run_submitted=run_pb2.RunSubmitted(run=a_run("RUNNING", tasks=tasks)))


def planned(task_id, *case_ids, predicted=None):
    return run_pb2.RunEvent(
        task_planned=run_pb2.TaskPlanned(
            task_id=task_id,
            cases=[types_pb2.PlannedCase(case_id=each) for each in case_ids],
            shards=[run_pb2.ShardPlan(shard_id=f"{task_id}#0")],
            predicted=predicted,
        )
    )


def leased(task_id, shard="0", number=1, worker="w1"):
    """A worker got the shard."""
    return run_pb2.RunEvent(
        attempt_started=run_pb2.AttemptStarted(
            shard_id=f"{task_id}#{shard}", task_id=task_id, number=number, worker_id=worker, kind="SHARD_KIND_EXECUTE"
        )
    )


def running(task_id, shard="0"):
    """The environment of its attempt is ready."""
    return run_pb2.RunEvent(attempt_running=run_pb2.AttemptRunning(shard_id=f"{task_id}#{shard}", token=2))


def finished(task_id, *results):
    return run_pb2.RunEvent(
        cases_finished=run_pb2.CasesFinished(
            shard_id=f"{task_id}#0", task_id=task_id, token=2, worker_id="w1", results=results
        )
    )


def cached(case_id, run_id="01a1fbf0-0000-7000-8000-000000000000", **fields):
    """The result of a case that did not run."""
    origin = types_pb2.CacheOrigin(run_id=run_id, at=at(-3600))
    return types_pb2.CaseResult(case_id=case_id, outcome="OUTCOME_PASSED", cached_from=origin, **fields)


def wrong_hit(task_id, case_id, file):
    origin = types_pb2.CacheOrigin(run_id="01a1fbf0-0000-7000-8000-000000000000", at=at(-3600))
    return run_pb2.RunEvent(
        wrong_hit=run_pb2.WrongHit(
            task_id=task_id, case_id=case_id, file=file, outcome="OUTCOME_FAILED", cached_from=origin
        )
    )


def attempt_ended(task_id, verdict="COMPLETED", shard="0", **fields):
    return run_pb2.RunEvent(
        attempt_ended=run_pb2.AttemptEnded(
            shard_id=f"{task_id}#{shard}",
            task_id=task_id,
            token=2,
            verdict=types_pb2.Verdict.Value(f"VERDICT_{verdict}"),
            **fields,
        )
    )


def task_ended(task_id, state, reason=""):
    return run_pb2.RunEvent(
        task_ended=run_pb2.TaskEnded(
            task_id=task_id, state=types_pb2.TaskState.Value(f"TASK_STATE_{state}"), reason=reason
        )
    )


def run_ended(state, reason=""):
    return run_pb2.RunEvent(
        run_ended=run_pb2.RunEnded(state=types_pb2.RunState.Value(f"RUN_STATE_{state}"), reason=reason)
    )


def commits(*groups):
    """One commit a second for each group of events."""
    return [
        run_pb2.WatchRunResponse(position=position, committed_at=at(position), events=group)
        for position, group in enumerate(groups, start=1)
    ]


def passing_run():
    return commits(
        [submitted(task("unit"))],
        [leased("unit"), running("unit"), planned("unit", "t.py::a", "t.py::b")],
        [finished("unit", result("t.py::a"), result("t.py::b"))],
        [attempt_ended("unit"), task_ended("unit", "PASSED"), run_ended("PASSED")],
    )


def failing_run():
    return commits(
        [submitted(task("unit"))],
        [leased("unit"), running("unit"), planned("unit", "t.py::a", "t.py::b")],
        [
            finished(
                "unit",
                result("t.py::a", "FAILED", message="assert 1 == 2", details="tb\nE  assert", file="t.py", line=3),
                result("t.py::b"),
            )
        ],
        [attempt_ended("unit"), task_ended("unit", "FAILED", "1 of 2 cases failed"), run_ended("FAILED")],
    )


class ScriptedMaster(
    run_pb2_grpc.RunServiceServicer, fleet_pb2_grpc.FleetServiceServicer, blob_pb2_grpc.BlobServiceServicer
):
    """
    Attributes:
        faults: raised by the next calls, one each.
        cuts: after how many messages each of the next streams breaks.
        streams: how many were opened for submissions.
        end_of_log: a run that is cancelled ends with these events.
    """

    def __init__(self) -> None:
        self.run = a_run()
        self.log = passing_run()
        self.cases: list[run_pb2.CaseRecord] = []
        self.chunks: list[run_pb2.LogChunk] = []
        self.artifacts: list[run_pb2.TaskArtifact] = []
        self.number_of_runs = 700
        self.blobs: dict[str, bytes] = {}
        self.workers: list[fleet_pb2.Worker] = []
        self.explanations: list[run_pb2.TaskExplanation] = []
        self.faults: deque[FleetestError] = deque()
        self.cuts: deque[int] = deque()
        self.streams = 0
        self.calls: list[tuple[str, object, dict[str, str]]] = []
        self.end_of_log: list[run_pb2.RunEvent] | None = None
        self.address = ""
        self.health = HealthServicer()

    def requests(self, method: str) -> list:
        return [request for name, request, _ in self.calls if name == method]

    def add_blob(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return digest

    def _note(self, method: str, request: object, context: grpc.ServicerContext) -> None:
        self.calls.append((method, request, dict(context.invocation_metadata())))
        if self.faults:
            error = self.faults.popleft()
            context.set_trailing_metadata(trailing_metadata_of(error))
            context.abort(status_of(error), error.message)

    def _cut(self, messages, context):
        limit = self.cuts.popleft() if self.cuts else None
        for number, message in enumerate(messages):
            if number == limit:
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            yield message
        if limit is not None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

    def SubmitRun(self, request, context):
        self._note("SubmitRun", request, context)
        return self._submitted(request)

    def StartRuns(self, request_iterator, context):
        self.streams += 1
        for request in request_iterator:
            self._note("StartRuns", request, context)
            commits = self._commits(0, context)
            answer = run_pb2.StartRunResponse(submitted=self._submitted(request), commit=next(commits))
            rest = (run_pb2.StartRunResponse(commit=commit) for commit in commits)
            yield from self._cut(chain([answer], rest), context)

    def _submitted(self, request):
        return run_pb2.SubmitRunResponse(run_id=RUN_ID, superseded_run_ids=["older"] if request.supersede else [])

    def GetRun(self, request, context):
        self._note("GetRun", request, context)
        return self.run

    def ListRuns(self, request, context):
        self._note("ListRuns", request, context)
        first = int(request.page_token or 0)
        token = str(first + request.page_size) if first + request.page_size < self.number_of_runs else ""
        number = min(request.page_size, self.number_of_runs - first)
        return run_pb2.ListRunsResponse(runs=[self.run] * number, next_page_token=token)

    def ListCases(self, request, context):
        self._note("ListCases", request, context)
        wanted = [each for each in self.cases if not request.outcomes or each.result.outcome in request.outcomes]
        half = len(wanted) // 2
        if half and not request.page_token:
            return run_pb2.ListCasesResponse(cases=wanted[:half], next_page_token="rest")
        return run_pb2.ListCasesResponse(cases=wanted[half:] if request.page_token else wanted)

    def WatchRun(self, request, context):
        self._note("WatchRun", request, context)
        yield from self._cut(self._commits(request.after_position, context), context)

    def _commits(self, position, context):
        yield from (each for each in self.log if each.position > position)
        if self.end_of_log is not None:
            while not self.requests("CancelRun"):
                if not context.is_active():
                    return
                self._cancelled.wait(0.01)
            yield run_pb2.WatchRunResponse(position=len(self.log) + 1, committed_at=at(60), events=self.end_of_log)

    def ReadLogs(self, request, context):
        self._note("ReadLogs", request, context)
        yield from self._cut(self.chunks, context)

    def CancelRun(self, request, context):
        self._note("CancelRun", request, context)
        return run_pb2.CancelRunResponse(already_ended=request.task_id == "over")

    def InvalidateCache(self, request, context):
        self._note("InvalidateCache", request, context)
        return run_pb2.InvalidateCacheResponse()

    def RetryRun(self, request, context):
        self._note("RetryRun", request, context)
        return run_pb2.SubmitRunResponse(run_id=RUN_ID, already_submitted=True)

    def ExplainRun(self, request, context):
        self._note("ExplainRun", request, context)
        return run_pb2.ExplainRunResponse(tasks=self.explanations)

    def ListArtifacts(self, request, context):
        self._note("ListArtifacts", request, context)
        return run_pb2.ListArtifactsResponse(artifacts=self.artifacts)

    def DeleteArtifacts(self, request, context):
        self._note("DeleteArtifacts", request, context)
        return run_pb2.DeleteArtifactsResponse(deleted=len(request.artifacts))

    def ListWorkers(self, request, context):
        self._note("ListWorkers", request, context)
        return fleet_pb2.ListWorkersResponse(workers=self.workers)

    def DrainWorker(self, request, context):
        self._note("DrainWorker", request, context)
        return fleet_pb2.DrainWorkerResponse()

    def GetServerInfo(self, request, context):
        self._note("GetServerInfo", request, context)
        return fleet_pb2.ServerInfo(version="9.9", protocol=1, oldest_protocol=1, active_runs=2, workers=3)

    def FindMissingBlobs(self, request, context):
        self._note("FindMissingBlobs", request, context)
        return blob_pb2.FindMissingBlobsResponse(digests=[each for each in request.digests if each not in self.blobs])

    def GetUploadOffset(self, request, context):
        return blob_pb2.GetUploadOffsetResponse()

    def UploadBlobs(self, request_iterator, context):
        stored = 0
        for message in request_iterator:
            for chunk in (message, *message.more):
                self.blobs[chunk.digest] = self.blobs.get(chunk.digest, b"") + chunk.content
                stored += chunk.last
        return blob_pb2.UploadBlobsResponse(blobs_stored=stored)

    def DownloadBlobs(self, request, context):
        self._note("DownloadBlobs", request, context)
        content = self.blobs[request.digests[0]]
        half = len(content) // 2
        pieces = [
            blob_pb2.BlobChunk(digest=request.digests[0], content=content[:half]),
            blob_pb2.BlobChunk(digest=request.digests[0], offset_bytes=half, content=content[half:], last=True),
        ]
        yield from self._cut(pieces, context)

    @contextmanager
    def serving(self, address: str = "127.0.0.1:0") -> Iterator[str]:
        """Serve until the block ends; answers the address."""
        from threading import Event

        self._cancelled = Event()
        server = grpc.server(ThreadPoolExecutor(8), options=(("grpc.so_reuseport", 0),))
        run_pb2_grpc.add_RunServiceServicer_to_server(self, server)
        fleet_pb2_grpc.add_FleetServiceServicer_to_server(self, server)
        blob_pb2_grpc.add_BlobServiceServicer_to_server(self, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        port = server.add_insecure_port(address)
        server.start()
        try:
            yield address if address.startswith("unix:") else f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait()
