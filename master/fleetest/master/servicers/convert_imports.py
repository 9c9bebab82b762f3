"""Imports, as they come over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fleetest.common.convert_version_control import version_control_from_proto
from fleetest.common.errors import InvalidRequest
from fleetest.common.states import Outcome
from fleetest.master.imports import MAX_PART_BYTES, ImportBeginning, ImportPart
from fleetest.master.servicers.convert_results import kept_result
from fleetest.v1 import run_pb2

__all__ = ["read_beginning", "read_parts"]


async def read_beginning(requests: AsyncIterator[run_pb2.ImportRunRequest], *, only_project: str) -> ImportBeginning:
    """
    The first message.

    Raises:
        InvalidRequest: it is another one.
    """
    request = await anext(requests, run_pb2.ImportRunRequest())
    if not request.HasField("begin"):
        raise InvalidRequest("an import begins with ImportBegin")
    begin = request.begin
    reports = {report.task_id: report.source for report in begin.reports}
    if len(reports) < len(begin.reports):
        raise InvalidRequest("two reports of an import have the same name")
    return ImportBeginning(
        name=begin.name,
        reports=reports,
        project=begin.project,
        idempotency_key=begin.idempotency_key,
        version_control=version_control_from_proto(begin.version_control),
        user=begin.user,
        labels=dict(begin.labels),
        only_project=only_project,
    )


async def read_parts(requests: AsyncIterator[run_pb2.ImportRunRequest]) -> AsyncIterator[ImportPart]:
    """
    The messages after the first.

    Raises:
        InvalidRequest: one of them is not as it should be, or the last one is missing.
    """
    cases = 0
    async for request in requests:
        match request.WhichOneof("part"):
            case "cases":
                cases += len(request.cases.results)
                yield _part(request.cases)
            case "done" if request.done.cases == cases:
                return
            case "done":
                raise InvalidRequest(f"{cases} cases came of an import of {request.done.cases}")
            case _:
                raise InvalidRequest("an import goes on with ImportCases or ImportDone")
    raise InvalidRequest("the import ended before it was complete: nothing of it was kept")


def _part(message: run_pb2.ImportCases) -> ImportPart:
    if message.ByteSize() > MAX_PART_BYTES:
        raise InvalidRequest(f"a message of an import is of at most {MAX_PART_BYTES >> 20} MiB")
    results = tuple(kept_result(each) for each in message.results)
    if not all(result.case_id for result in results):
        raise InvalidRequest(f"a case of {message.task_id!r} has no name")
    flaky = frozenset(
        each.case_id
        for each, result in zip(message.results, results, strict=True)
        if result.outcome is Outcome.PASSED and each.properties.get("flaky") == "true"
    )
    return ImportPart(task_id=message.task_id, results=results, flaky=flaky)
