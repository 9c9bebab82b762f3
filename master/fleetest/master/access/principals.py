"""Whoever calls a master, as its methods see them: what they may do, and nothing of how they proved it."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

from fleetest.common.errors import Forbidden

__all__ = ["ANYBODY", "Access", "Audience", "Principal", "act_as", "caller"]


class Audience(StrEnum):
    """Which of the master's services a caller is for."""

    CLIENT = "client"
    WORKER = "worker"


class Access(IntEnum):
    """How much a client may do; each includes those before it."""

    READ = 1
    """See runs, their results and files, and the fleet."""

    WRITE = 2
    """Submit, cancel and retry runs."""

    ADMIN = 3
    """Drain workers; create, list and revoke tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """
    A caller who has proved who it is, with the scopes of its credential. Every `check_` raises `Forbidden`.

    Args:
        name: for logs and messages; holds no secret.
        token_id: of the stored token that was shown; empty when it was none.
        project: the only one that it has to do with; empty means all.
        worker_id_prefix: how the ids of the workers begin that it may register.
        required_labels: capabilities that these workers must offer.
    """

    name: str
    audiences: frozenset[Audience]
    token_id: str = ""
    access: Access = Access.ADMIN
    project: str = ""
    worker_id_prefix: str = ""
    required_labels: Mapping[str, str] = field(default_factory=dict)

    def check_access(self, wanted: Access) -> None:
        if self.access < wanted:
            raise Forbidden(
                f"{self.name} may only {self.access.name.lower()}; this call needs {wanted.name.lower()}",
                hint="ask whoever runs the master for a token with more access",
            )

    def check_project(self, project: str) -> None:
        if self.project and self.project != project:
            raise Forbidden(
                f"{self.name} is for project {self.project}, not {project or 'all of them'}",
                hint="use the token of that project, or set --project or FLEETEST_PROJECT to this one's",
            )

    def visible_project(self, wanted: str) -> str:
        """The project to filter by: the one that is wanted, else the only one that is visible; empty means all."""
        self.check_project(wanted or self.project)
        return wanted or self.project

    def check_worker(self, worker_id: str, capabilities: Mapping[str, str]) -> None:
        if not worker_id.startswith(self.worker_id_prefix):
            raise Forbidden(
                f"{self.name} registers workers whose ids begin with {self.worker_id_prefix!r}, not {worker_id!r}",
                hint="choose the worker's id with --id or FLEETEST_WORKER_ID",
            )
        lacking = {key: value for key, value in self.required_labels.items() if capabilities.get(key) != value}
        if lacking:
            labels = ",".join(f"{key}={value}" for key, value in sorted(lacking.items()))
            raise Forbidden(
                f"{self.name} registers workers with {labels} only",
                hint=f"start the worker with --label {labels} or FLEETEST_WORKER_LABELS",
            )


ANYBODY: Final = Principal(name="anybody", audiences=frozenset(Audience))
"""Whom a master without tokens serves, on loopback."""

_caller: ContextVar[Principal] = ContextVar("fleetest_caller", default=ANYBODY)


def caller() -> Principal:
    """Who made the present call."""
    return _caller.get()


def act_as(principal: Principal) -> None:
    """
    From now on `caller` answers this principal, in this task and those that it starts.

    Every call to the master has a task of its own.
    """
    _caller.set(principal)
