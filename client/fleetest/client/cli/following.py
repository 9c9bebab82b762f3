"""Follows a run to its end, and lets whoever follows it stop the one or the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from fleetest.client.cli.interrupts import Chooser, Decision, Signals
from fleetest.client.cli.stalling import StallWatch
from fleetest.client.events import Commit
from fleetest.client.view.fold import RunView
from fleetest.client.view.renderer import Renderer
from fleetest.client.view.words import short_id
from fleetest.common.clock import Clock

if TYPE_CHECKING:
    from fleetest.client.async_client import AsyncClient

__all__ = ["CANCEL_GRACE", "Follower"]

CANCEL_GRACE: Final = timedelta(seconds=10)
"""How long the tests get to stop by themselves."""

_PATIENCE: Final = timedelta(seconds=20)
_TICK: Final = timedelta(seconds=0.2)


@dataclass(kw_only=True)
class Follower:
    """
    Shows one run until it has ended, or until somebody leaves.

    Args:
        chooser: decides what an interrupt means.
        user: in whose name the run is cancelled.
    """

    client: AsyncClient
    renderer: Renderer
    chooser: Chooser
    signals: Signals
    clock: Clock
    user: str = ""

    async def follow(self, run_id: str) -> RunView:
        """
        Answers the view; its state is `running` when the run was left before its end.

        Raises:
            DependencyUnavailable: the cluster does not answer any more.
        """
        view = RunView(run_id)
        commits = aiter(self.client.watch(run_id))
        coming: asyncio.Task[Commit | None] = asyncio.ensure_future(_next(commits))
        signalled = asyncio.ensure_future(self.signals.next())
        stall = StallWatch(self.client.explain_once, self.renderer)
        leave_at: datetime | None = None
        try:
            while not view.state.ended:
                await asyncio.wait(
                    {coming, signalled}, timeout=_TICK.total_seconds(), return_when=asyncio.FIRST_COMPLETED
                )
                now = self.clock.now()
                if signalled.done():
                    decision = await self._decide(signalled.result(), view)
                    if decision is Decision.DETACH:
                        return self._left(view)
                    if decision is Decision.CANCEL:
                        leave_at = leave_at or now + CANCEL_GRACE + _PATIENCE
                    signalled = asyncio.ensure_future(self.signals.next())
                if coming.done():
                    commit = coming.result()
                    if commit is None:
                        break
                    news = view.apply(commit)
                    stall.look(view, now)
                    self.renderer.show(view, news, now)
                    coming = asyncio.ensure_future(_next(commits))
                elif leave_at is not None and now > leave_at:
                    self.renderer.note("the run has not stopped yet")
                    return self._left(view)
                else:
                    stall.look(view, now)
                    self.renderer.tick(view, now)
            self.renderer.close(view, self.clock.now())
            return view
        finally:
            self.renderer.abandon()
            for task in (coming, signalled):
                task.cancel()
            await asyncio.gather(coming, signalled, stall.close(), return_exceptions=True)

    async def _decide(self, number: int, view: RunView) -> Decision:
        import signal

        if view.cancelling:
            return Decision.DETACH  # it is being stopped already: whoever presses again wants to go
        decision = await self.chooser.choose(signal.Signals(number), self.signals, self.renderer)
        if decision is Decision.CANCEL:
            self.renderer.note("cancelling the run")
            view.cancelling = True
            await self.client.cancel(view.run_id, reason="interrupted", grace=CANCEL_GRACE, user=self.user)
        return decision

    def _left(self, view: RunView) -> RunView:
        self.renderer.abandon()
        self.renderer.note(f"the run goes on without you; watch it with: fleetest watch {short_id(view.run_id)}")
        return view


async def _next(commits: AsyncIterator[Commit]) -> Commit | None:
    return await anext(commits, None)
