"""The task whose environment is wanted, as its master knows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from fleetest.common.cluster_file import ClusterFile, is_locked
from fleetest.common.convert import task_state_from_proto
from fleetest.common.errors import DependencyUnavailable
from fleetest.common.grpc_status import error_from
from fleetest.common.settings import Secret
from fleetest.common.states import TaskState
from fleetest.common.tls import ClientTls
from fleetest.common.tls_diagnosis import diagnose
from fleetest.v1.run_pb2 import GetTaskSpecRequest
from fleetest.v1.run_pb2_grpc import RunServiceStub
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.convert import task_spec_from_proto
from fleetest.worker.session_stream import identified, open_channel

__all__ = ["Door", "TaskOrigin", "fetch_task", "find_door"]

_TIMEOUT_SECONDS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where masters serve, and what lets a client in."""

    addresses: tuple[str, ...]
    token: Secret
    tls: ClientTls | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOrigin:
    """
    A task of a run.

    Args:
        address: of the master that knew it.
    """

    address: str
    run_id: str
    spec: TaskSpec
    state: TaskState


def find_door(named: Door | None, data_directory: Path) -> Door:
    """
    The masters that the option or the environment names, or else that of the user's own cluster.

    Raises:
        DependencyUnavailable: none is named, and no cluster runs here.
    """
    if named is not None:
        return named
    known = ClusterFile.read(data_directory)
    if known is None or not is_locked(data_directory):
        raise DependencyUnavailable(
            "no master is named, and no cluster runs on this machine",
            hint="Set FLEETEST_MASTER to a master's address, or start a cluster here: fleetest up",
        )
    return Door(addresses=(known.address,), token=Secret(known.token))


async def fetch_task(door: Door, run_id: str, task_id: str, *, project: str) -> TaskOrigin:
    """
    Args:
        run_id: its beginning will do, and so will `latest`.

    Raises:
        NotFound: there is no such run, or it has no such task; the hint names its tasks.
        Unauthenticated, Forbidden: the token is missing, wrong, or for something else.
        DependencyUnavailable: no master answers.
    """
    request = GetTaskSpecRequest(run_id=run_id, task_id=task_id, project=project)
    failures = []
    for address in door.addresses:
        async with open_channel(address, door.tls) as channel:
            try:
                answer = await identified(RunServiceStub(channel), door.token).GetTaskSpec(
                    request, timeout=_TIMEOUT_SECONDS
                )
            except grpc.RpcError as error:
                failure = error_from(error)
                if not isinstance(failure, DependencyUnavailable):
                    raise failure from error
                failure = await diagnose(address, door.tls) or failure
                failures.append(f"{address}: {failure.message}")
                continue
        return TaskOrigin(
            address=address,
            run_id=answer.run_id,
            spec=task_spec_from_proto(answer.spec),
            state=task_state_from_proto(answer.state),
        )
    raise DependencyUnavailable(
        f"no master answers at {'; '.join(failures)}", hint="See that FLEETEST_MASTER or --master names one that runs."
    )
