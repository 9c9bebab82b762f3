"""Handing in results that were obtained elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import grpc.aio

from fleetest.client.connection import GONE, Connection, raised_here
from fleetest.common.convert import case_result_to_proto
from fleetest.common.results import CaseResult
from fleetest.v1 import run_pb2, types_pb2

__all__ = ["ReportSource", "import_run"]

_BATCH_BYTES: Final = 1 << 20
_BATCH_CASES: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSource:
    """
    A report to be imported.

    Args:
        task_id: the task that it becomes; unique in an import.
        source: where it is, for people: a file's path.
        read: reads it from its beginning; called again when the connection broke.
    """

    task_id: str
    source: str
    read: Callable[[], Iterator[CaseResult]]


async def import_run(
    connection: Connection, begin: run_pb2.ImportBegin, reports: Sequence[ReportSource]
) -> run_pb2.SubmitRunResponse:
    """
    Stream the reports; from their beginning again when nobody answered. `begin` has a key, so that is safe.

    Raises:
        DependencyUnavailable: nobody answered at any address.
        FleetestError: what the master raised.
    """
    begin.reports.extend(run_pb2.ImportedReport(task_id=each.task_id, source=each.source) for each in reports)
    failures = connection.failures()
    while True:
        services = connection.services
        try:
            return await services.runs.ImportRun(_requests(begin, reports))
        except grpc.aio.AioRpcError as rpc_error:
            error = raised_here(rpc_error)
            if rpc_error.code() not in GONE:
                raise error from None
        await connection.recover(services, failures, error)


async def _requests(
    begin: run_pb2.ImportBegin, reports: Sequence[ReportSource]
) -> AsyncIterator[run_pb2.ImportRunRequest]:
    yield run_pb2.ImportRunRequest(begin=begin)
    number = 0
    for report in reports:
        batches = _batches(report.read())
        while batch := await asyncio.to_thread(next, batches, None):
            number += len(batch)
            yield run_pb2.ImportRunRequest(cases=run_pb2.ImportCases(task_id=report.task_id, results=batch))
    yield run_pb2.ImportRunRequest(done=run_pb2.ImportDone(cases=number))


def _batches(cases: Iterator[CaseResult]) -> Iterator[list[types_pb2.CaseResult]]:
    batch: list[types_pb2.CaseResult] = []
    size_bytes = 0
    for case in cases:
        message = case_result_to_proto(case)
        size_bytes += message.ByteSize()
        batch.append(message)
        if size_bytes >= _BATCH_BYTES or len(batch) >= _BATCH_CASES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch
