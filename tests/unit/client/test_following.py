from __future__ import annotations

import asyncio
import io
import os
import pty
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest
from rich.console import Console

from fleetest.client.async_client import AsyncClient
from fleetest.client.cli.following import Follower
from fleetest.client.cli.interrupts import AskAtTerminal, CancelAtOnce, Decision, Signals
from fleetest.client.view.plain import PlainRenderer
from fleetest.common.clock import SystemClock
from fleetest.common.states import RunState
from fleetest.v1 import run_pb2
from tests.unit.client.scripted_master import RUN_ID, commits, leased, run_ended, running, submitted, task


class SlowlyTickingClock(SystemClock):
    """Every look at it is two seconds later."""

    def __init__(self):
        self.seconds = 0

    def now(self):
        self.seconds += 2
        return super().now() + timedelta(seconds=self.seconds)


class Choosing:
    """Answers what it is told, and remembers what it was asked."""

    def __init__(self, *decisions):
        self.decisions = list(decisions)

    async def choose(self, number, signals, renderer):
        return self.decisions.pop(0)


class HurryingClock(SystemClock):
    """Every look at it is a minute later."""

    def __init__(self):
        self.minutes = 0

    def now(self):
        self.minutes += 1
        return super().now() + timedelta(minutes=self.minutes)


@pytest.fixture
def endless(master):
    """A run that ends only when it is cancelled."""
    master.log = commits([submitted(task("unit"))], [leased("unit"), running("unit")])
    master.end_of_log = [run_ended("CANCELLED")]
    return master


@pytest.fixture
async def follower(endless, at_once):
    output = io.StringIO()
    async with AsyncClient(endless.address, persistence=at_once) as client:
        yield Follower(
            client=client,
            renderer=PlainRenderer(Console(file=output, width=200)),
            chooser=CancelAtOnce(),
            signals=Signals(),
            clock=SystemClock(),
            user="ann",
        )


def said(follower):
    return follower.renderer._console.file.getvalue()


async def test_an_interrupt_cancels_and_the_end_is_waited_for(follower, endless):
    follower.signals.put(signal.SIGTERM)

    view = await follower.follow(RUN_ID)

    assert view.state is RunState.CANCELLED
    (request,) = endless.requests("CancelRun")
    assert (request.reason, request.user, request.grace.seconds) == ("interrupted", "ann", 10)
    assert "cancelling the run" in said(follower)


async def test_detaching_leaves_the_run_and_says_how_to_come_back(follower, endless):
    follower.chooser = Choosing(Decision.DETACH)
    follower.signals.put(signal.SIGINT)

    view = await follower.follow(RUN_ID)

    assert view.state is RunState.RUNNING
    assert not endless.requests("CancelRun")
    assert "watch it with: fleetest watch 01a1fbf0-6d2e" in said(follower)


async def test_keeping_goes_on(follower, endless):
    follower.chooser = Choosing(Decision.KEEP, Decision.DETACH)
    follower.signals.put(signal.SIGINT)
    follower.signals.put(signal.SIGINT)

    await follower.follow(RUN_ID)

    assert not follower.chooser.decisions


async def test_an_interrupt_while_it_is_being_cancelled_leaves(follower, endless):
    endless.end_of_log = [leased("unit"), running("unit")]
    follower.signals.put(signal.SIGINT)
    follower.signals.put(signal.SIGINT)

    view = await follower.follow(RUN_ID)

    assert view.state is RunState.RUNNING
    assert len(endless.requests("CancelRun")) == 1


async def test_a_run_that_does_not_stop_is_left_in_the_end(follower, endless, monkeypatch):
    endless.requests = lambda method: []
    follower.clock = HurryingClock()
    follower.signals.put(signal.SIGINT)

    view = await follower.follow(RUN_ID)

    assert view.state is RunState.RUNNING
    assert "the run has not stopped yet" in said(follower)


async def test_a_run_that_nobody_can_run_says_why_and_still_obeys(follower, endless):
    endless.log = endless.log[:1]
    endless.explanations = [
        run_pb2.TaskExplanation(
            task_id="unit",
            state="TASK_STATE_QUEUED",
            reasons=[
                run_pb2.Reason(kind="REASON_KIND_MISSING_CAPABILITY", message="2 of 2 workers lack browser=chromium")
            ],
        )
    ]
    follower.clock = SlowlyTickingClock()
    following = asyncio.ensure_future(follower.follow(RUN_ID))
    deadline = time.monotonic() + 30
    while "waiting: " not in said(follower) and time.monotonic() < deadline and not following.done():
        await asyncio.sleep(0.01)

    follower.signals.put(signal.SIGTERM)
    view = await following

    assert "waiting: 2 of 2 workers lack browser=chromium (unit)\n" in said(follower)
    assert view.state is RunState.CANCELLED


async def test_nobody_is_asked_why_while_something_runs(follower, endless):
    follower.clock = SlowlyTickingClock()
    following = asyncio.ensure_future(follower.follow(RUN_ID))
    while follower.clock.seconds < 20:
        await asyncio.sleep(0.01)

    follower.signals.put(signal.SIGTERM)
    await following

    assert not endless.requests("ExplainRun")


@pytest.fixture
def keyboard():
    """A terminal: what is written to the first end is typed at the second."""
    mine, its = pty.openpty()
    with os.fdopen(its) as terminal:
        yield mine, terminal
    os.close(mine)


@pytest.mark.parametrize(
    ("typed", "decision"),
    [(b"c\n", Decision.CANCEL), (b"Detach\n", Decision.DETACH), (b"k\n", Decision.KEEP), (b"\n", Decision.KEEP)],
)
async def test_ctrl_c_at_a_terminal_asks(keyboard, typed, decision):
    mine, terminal = keyboard
    questions = io.StringIO()
    os.write(mine, typed)

    chosen = await AskAtTerminal(terminal, questions).choose(
        signal.SIGINT, Signals(), PlainRenderer(Console(file=io.StringIO()))
    )

    assert chosen is decision
    assert "[c]ancel it, [d]etach from it, or [k]eep watching? " in questions.getvalue()


async def test_a_second_ctrl_c_cancels_at_once(keyboard):
    signals = Signals()
    signals.put(signal.SIGINT)

    chosen = await AskAtTerminal(keyboard[1], io.StringIO()).choose(
        signal.SIGINT, signals, PlainRenderer(Console(file=io.StringIO()))
    )

    assert chosen is Decision.CANCEL


async def test_sigterm_does_not_ask():
    asking = AskAtTerminal(io.StringIO(), io.StringIO())

    assert await asking.choose(signal.SIGTERM, Signals(), None) is Decision.CANCEL


async def test_signals_of_the_process_are_caught_and_given_back():
    signals = Signals()
    before = signal.getsignal(signal.SIGTERM)
    with signals.caught():
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(signals.next(), 5) is signal.SIGTERM

    assert signal.getsignal(signal.SIGTERM) is before


def test_a_terminated_command_cancels_its_run_and_exits_with_1(endless):
    process = subprocess.Popen(
        [sys.executable, "-m", "fleetest.client", "watch"],
        env={"FLEETEST_MASTER": endless.address, "PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        first = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()

    assert first == "run 01a1fbf0-6d2e  shop / ci\n"
    assert process.returncode == 1
    assert "CANCELLED" in rest


def test_a_real_terminal_shows_the_live_area_and_asks(endless):
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update({"FLEETEST_MASTER": endless.address, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"})
        for name in ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "NO_COLOR"):
            os.environ.pop(name, None)
        os.execv(sys.executable, [sys.executable, "-m", "fleetest.client", "watch"])
    try:
        seen = _read_until(terminal, b"collecting")
        os.write(terminal, b"\x03")
        seen += _read_until(terminal, b"[k]eep watching? ")
        os.write(terminal, b"c\n")
        seen += _read_until(terminal, b"CANCELLED")
        _read_until(terminal, b"")
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
        os.close(terminal)

    assert os.waitstatus_to_exitcode(status) == 1


def _read_until(terminal, wanted):
    """What comes until the wanted text; everything until the end when nothing is wanted."""
    seen = b""
    deadline = time.monotonic() + 30
    while not wanted or wanted not in seen:
        assert time.monotonic() < deadline, seen
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # Linux says so when the other side has closed
            piece = b""
        if not piece:
            assert not wanted, seen
            break
        seen += piece
    return seen
