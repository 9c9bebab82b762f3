"""Whom each method of the wire contract is for. What is not in the table is for administrators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fleetest.common.errors import Forbidden
from fleetest.master.access.principals import Access, Audience, Principal

__all__ = ["CLIENT_SERVICES", "KEPT_OPEN", "check_method", "is_open", "service_of"]

_OPEN_SERVICES: Final = frozenset({"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"})
_WORKER_SERVICES: Final = frozenset({"fleetest.v1.WorkerService"})
CLIENT_SERVICES: Final = frozenset({"fleetest.v1.RunService", "fleetest.v1.FleetService"})
_SHARED_SERVICES: Final = frozenset({"fleetest.v1.BlobService"})

KEPT_OPEN: Final = frozenset({"/fleetest.v1.RunService/StartRuns"})
"""Streams that are open for as long as their caller likes, also while nothing is asked over them."""

_ACCESS: Final[Mapping[str, Access]] = {
    **{
        f"/fleetest.v1.RunService/{name}": Access.READ
        for name in (
            "GetRun",
            "ListRuns",
            "ListCases",
            "WatchRun",
            "ReadLogs",
            "ExplainRun",
            "ListArtifacts",
            "GetTaskSpec",
        )
    },
    **{
        f"/fleetest.v1.RunService/{name}": Access.WRITE
        for name in (
            "SubmitRun",
            "StartRuns",
            "ImportRun",
            "RetryRun",
            "CancelRun",
            "InvalidateCache",
            "DeleteArtifacts",
        )
    },
    **{f"/fleetest.v1.FleetService/{name}": Access.READ for name in ("ListWorkers", "GetServerInfo")},
    "/fleetest.v1.BlobService/DownloadBlobs": Access.READ,
    **{
        f"/fleetest.v1.BlobService/{name}": Access.WRITE
        for name in ("FindMissingBlobs", "GetUploadOffset", "UploadBlobs")
    },
}


def service_of(method: str) -> str:
    """Of a full name such as `/fleetest.v1.RunService/GetRun`."""
    return method.strip("/").partition("/")[0]


def is_open(method: str) -> bool:
    """Whether anybody may call it: health checks and reflection."""
    return service_of(method) in _OPEN_SERVICES


def check_method(principal: Principal, method: str) -> None:
    """
    Raises:
        Forbidden: the method is for somebody else.
    """
    service = service_of(method)
    wanted = Audience.WORKER if service in _WORKER_SERVICES else Audience.CLIENT
    if wanted not in principal.audiences:
        if service in _SHARED_SERVICES:
            return
        needed = "a join token" if wanted is Audience.WORKER else "a client token"
        raise Forbidden(
            f"the token is not one that this master gives to {wanted}s", hint=f"set FLEETEST_TOKEN to {needed}"
        )
    if wanted is Audience.CLIENT:
        principal.check_access(_ACCESS.get(method, Access.ADMIN))
