"""Errors on their way over gRPC, through a real server with the interceptor that every master has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

import fleetest.client.connection
import fleetest.common.suite
import fleetest.worker.errors  # noqa: F401 - likewise
from fleetest.common.clock import SystemClock
from fleetest.common.errors import (
    FleetestError,
    Forbidden,
    InvalidRequest,
    LeaseLost,
    NotFound,
    Unauthenticated,
    WrongState,
)
from fleetest.common.grpc_status import STATUS_OF, error_from, status_of
from fleetest.common.protocol import PROTOCOL, PROTOCOL_HEADER
from fleetest.common.suite import Problem, SuiteInvalid
from fleetest.master.access.gatekeeper import Gatekeeper
from fleetest.master.access.principals import Audience
from fleetest.master.activity import Activity
from fleetest.master.servicers.interceptors import ServerInterceptor
from fleetest.v1 import fleet_pb2, fleet_pb2_grpc, run_pb2, run_pb2_grpc, worker_pb2, worker_pb2_grpc

Metadata = tuple[tuple[str, str], ...]


def every_class(root: type[FleetestError] = FleetestError) -> list[type[FleetestError]]:
    return [root, *(below for each in root.__subclasses__() for below in every_class(each))]


CLASSES = sorted({each for each in every_class() if each is not FleetestError}, key=lambda each: each.__qualname__)


def make(kind: type[FleetestError]) -> FleetestError:
    if issubclass(kind, SuiteInvalid):
        return kind([problem("wrong", hint="mend it")])
    error = kind.__new__(kind)
    FleetestError.__init__(error, "it went wrong – wirklich", hint="try again ☃")
    return error


def problem(message: str, *, hint: str = "", line: int = 3) -> Problem:
    return Problem(source="fleetest.yaml", line=line, column=5, message=message, hint=hint)


class Service(run_pb2_grpc.RunServiceServicer, fleet_pb2_grpc.FleetServiceServicer):
    """Raises what it is given."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    async def GetRun(self, request: run_pb2.GetRunRequest, context: Any) -> run_pb2.Run:  # noqa: N802
        if self.error is not None:
            raise self.error
        return run_pb2.Run(run_id=request.run_id)

    async def WatchRun(self, request: run_pb2.WatchRunRequest, context: Any) -> AsyncIterator[run_pb2.WatchRunResponse]:  # noqa: N802
        yield run_pb2.WatchRunResponse(position=1)
        if self.error is not None:
            raise self.error

    async def ListWorkers(self, request: Any, context: Any) -> fleet_pb2.ListWorkersResponse:  # noqa: N802
        return fleet_pb2.ListWorkersResponse()


class WorkerService(worker_pb2_grpc.WorkerServiceServicer):
    async def Register(self, request: Any, context: Any) -> worker_pb2.RegisterResponse:  # noqa: N802
        return worker_pb2.RegisterResponse(session_id="s")


@asynccontextmanager
async def serving(tokens: dict[Audience, str] | None = None) -> AsyncIterator[tuple[Service, grpc.aio.Channel]]:
    server = grpc.aio.server(interceptors=[ServerInterceptor(Gatekeeper(tokens or {}), Activity(SystemClock()))])
    service = Service()  # type: ignore[abstract]  # the methods that no test calls
    run_pb2_grpc.add_RunServiceServicer_to_server(service, server)
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(service, server)
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(WorkerService(), server)  # type: ignore[abstract]  # likewise
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield service, channel
    finally:
        await server.stop(None)


@pytest.fixture
async def served() -> AsyncIterator[tuple[Service, grpc.aio.Channel]]:
    async with serving() as both:
        yield both


async def get_run(channel: grpc.aio.Channel, metadata: Metadata = ()) -> run_pb2.Run:
    return await run_pb2_grpc.RunServiceStub(channel).GetRun(run_pb2.GetRunRequest(run_id="r"), metadata=metadata)


async def failure(channel: grpc.aio.Channel, metadata: Metadata = ()) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await get_run(channel, metadata)
    return failed.value


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_of_the_tree_has_a_status_of_its_own(kind: type[FleetestError]) -> None:
    assert status_of(make(kind)) not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.OK}


def test_no_two_classes_share_a_status() -> None:
    assert len(set(STATUS_OF.values())) == len(STATUS_OF)


def test_an_error_of_no_class_is_internal() -> None:
    assert status_of(FleetestError("x")) is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("kind", CLASSES)
async def test_every_error_arrives_as_it_was_raised(
    served: tuple[Service, grpc.aio.Channel], kind: type[FleetestError]
) -> None:
    service, channel = served
    raised = service.error = make(kind)

    failed = await failure(channel)

    arrived = error_from(failed)
    assert failed.code() is status_of(raised)
    assert (arrived.message, arrived.hint) == (raised.message, raised.hint)
    assert isinstance(raised, type(arrived))


async def test_an_error_in_the_middle_of_a_stream_arrives_after_what_was_sent(
    served: tuple[Service, grpc.aio.Channel],
) -> None:
    service, channel = served
    service.error = LeaseLost("gone", hint="again")
    stream = run_pb2_grpc.RunServiceStub(channel).WatchRun(run_pb2.WatchRunRequest())

    first: Any = await stream.read()
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stream.read()

    assert first.position == 1
    assert (failed.value.code(), error_from(failed.value).hint) == (grpc.StatusCode.ABORTED, "again")


async def test_the_problems_of_a_suite_arrive_one_by_one(served: tuple[Service, grpc.aio.Channel]) -> None:
    service, channel = served
    problems = [problem("unknown key 'shrads'", hint="Did you mean 'shards'?", line=line) for line in (3, 7)]
    service.error = SuiteInvalid(problems)

    arrived = error_from(await failure(channel))

    assert isinstance(arrived, SuiteInvalid)
    assert list(arrived.problems) == problems


@pytest.mark.parametrize(
    "error",
    [
        SuiteInvalid(
            [problem(f"task number {line} is wrong – ganz falsch", hint="mend it", line=line) for line in range(1, 101)]
        ),
        SuiteInvalid([problem("x" * 50_000)]),
        SuiteInvalid([problem("☃" * 5_000), problem("short")]),
        NotFound("ü" * 20_000, hint="ö" * 20_000),
    ],
    ids=["many", "long", "wide", "plain"],
)
async def test_what_is_too_long_for_a_status_is_cut_and_still_arrives(
    served: tuple[Service, grpc.aio.Channel], error: FleetestError
) -> None:
    service, channel = served
    service.error = error

    failed = await failure(channel)

    arrived = error_from(failed)
    assert failed.code() is status_of(error)
    assert arrived.message[:10] == error.message[:10]
    if isinstance(error, SuiteInvalid):
        assert isinstance(arrived, SuiteInvalid)
        assert arrived.problems[0].message[:20] == error.problems[0].message[:20]
    if len(getattr(error, "problems", ())) > 2:
        assert isinstance(arrived, SuiteInvalid)
        assert arrived.problems[-1].message == f"and {101 - len(arrived.problems)} more problems"


async def test_what_nobody_raised_on_purpose_tells_the_caller_an_error_id_and_nothing_else(
    served: tuple[Service, grpc.aio.Channel], capsys: pytest.CaptureFixture[str]
) -> None:
    service, channel = served
    service.error = ZeroDivisionError("the password is hunter2")

    failed = await failure(channel)

    assert failed.code() is grpc.StatusCode.INTERNAL
    details = failed.details() or ""
    assert "hunter2" not in details
    error_id = details.rpartition(" ")[2]
    assert error_id in capsys.readouterr().out
    assert type(error_from(failed)) is FleetestError


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with grpc.aio.insecure_channel("unix:/nowhere/at/all") as channel:
        failed = await failure(channel)

    assert type(error_from(failed)).__name__ == "DependencyUnavailable"


async def test_trailing_metadata_that_is_garbage_is_passed_over() -> None:
    failed = grpc.aio.AioRpcError(
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(("fleetest-problems-bin", b"\xff\xff"), ("fleetest-hint-bin", b"\xff")),
        "wrong",
    )

    arrived = error_from(failed)

    assert (type(arrived), arrived.message) == (InvalidRequest, "wrong")


def test_a_status_without_details_is_named() -> None:
    failed = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), grpc.aio.Metadata())

    assert error_from(failed).message == "not_found"


# -- who calls, and which protocol they speak

TOKENS = {Audience.CLIENT: "for-clients", Audience.WORKER: "for-workers"}


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


async def test_without_tokens_everybody_is_admitted(served: tuple[Service, grpc.aio.Channel]) -> None:
    assert (await get_run(served[1])).run_id == "r"


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        bearer(""),
        bearer("guess"),
        (("authorization", "for-clients"),),
        (("authorization", "Basic x"),),
    ],
    ids=["none", "empty", "wrong", "no scheme", "other scheme"],
)
async def test_a_client_needs_the_clients_token(metadata: Metadata) -> None:
    async with serving(TOKENS) as (_, channel):
        failed = await failure(channel, metadata)
        admitted = await get_run(channel, bearer("for-clients"))

    assert (failed.code(), admitted.run_id) == (grpc.StatusCode.UNAUTHENTICATED, "r")
    assert isinstance(error_from(failed), Unauthenticated)
    assert error_from(failed).hint


async def test_a_client_is_not_let_in_with_the_workers_token() -> None:
    async with serving(TOKENS) as (_, channel):
        failed = await failure(channel, bearer("for-workers"))

    assert isinstance(error_from(failed), Forbidden)
    assert "client token" in error_from(failed).hint


async def test_a_worker_needs_the_workers_token() -> None:
    async with serving(TOKENS) as (_, channel):
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.Register(worker_pb2.RegisterRequest(), metadata=bearer("for-clients"))
        registered = await stub.Register(worker_pb2.RegisterRequest(), metadata=bearer("for-workers"))

    assert (failed.value.code(), registered.session_id) == (grpc.StatusCode.PERMISSION_DENIED, "s")


@pytest.mark.parametrize(
    ("header", "status"),
    [(str(PROTOCOL + 1), grpc.StatusCode.FAILED_PRECONDITION), ("one", grpc.StatusCode.INVALID_ARGUMENT)],
)
async def test_a_peer_of_another_protocol_is_told_what_to_upgrade(
    served: tuple[Service, grpc.aio.Channel], header: str, status: grpc.StatusCode
) -> None:
    failed = await failure(served[1], ((PROTOCOL_HEADER, header),))

    assert failed.code() is status
    if status is grpc.StatusCode.FAILED_PRECONDITION:
        assert isinstance(error_from(failed), WrongState)
        assert "upgrade the master" in error_from(failed).hint


async def test_a_method_that_does_not_exist_is_unimplemented(served: tuple[Service, grpc.aio.Channel]) -> None:
    call: Callable[..., Any] = served[1].unary_unary("/fleetest.v1.RunService/Nothing")

    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call(b"")

    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert type(error_from(failed.value)) is FleetestError
