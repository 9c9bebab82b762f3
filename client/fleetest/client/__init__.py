"""
The Python client and the `fleetest` command.

::

    from fleetest.client import Client

    with Client("127.0.0.1:50051", token=token, project="shop") as client:
        run = client.get_run("latest")
        for commit in client.watch(run.run_id):
            ...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleetest.client.async_client import AsyncClient
    from fleetest.client.connection import Persistence
    from fleetest.client.events import Commit, RunEvent
    from fleetest.client.submission import Submission
    from fleetest.client.sync_client import Client
    from fleetest.client.values import (
        CaseRecord,
        LogChunk,
        Reason,
        ReasonKind,
        Run,
        RunCoverage,
        ServerInfo,
        TaskArtifact,
        TaskExplanation,
        TaskStatus,
        Token,
        TokenAccess,
        TokenKind,
        Worker,
    )
    from fleetest.common.tls import ClientTls

__all__ = [
    "AsyncClient",
    "CaseRecord",
    "Client",
    "ClientTls",
    "Commit",
    "LogChunk",
    "Persistence",
    "Reason",
    "ReasonKind",
    "Run",
    "RunCoverage",
    "RunEvent",
    "ServerInfo",
    "Submission",
    "TaskArtifact",
    "TaskExplanation",
    "TaskStatus",
    "Token",
    "TokenAccess",
    "TokenKind",
    "Worker",
]

_MODULE_OF = {
    "AsyncClient": "fleetest.client.async_client",
    "Client": "fleetest.client.sync_client",
    "ClientTls": "fleetest.common.tls",
    "Commit": "fleetest.client.events",
    "Persistence": "fleetest.client.connection",
    "RunEvent": "fleetest.client.events",
    "Submission": "fleetest.client.submission",
}


def __getattr__(name: str) -> object:
    """Imports a public name when it is first asked for, so that the command's `--help` need not load gRPC."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF.get(name, "fleetest.client.values")), name)
