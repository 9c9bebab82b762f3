from __future__ import annotations

import asyncio
import io

import pytest

from fleetest.client.cli.stalling import StallWatch
from fleetest.client.convert import commit_from_proto
from fleetest.client.values import Reason, ReasonKind, TaskExplanation
from fleetest.client.view.fold import RunView
from fleetest.client.view.github import GitHubRenderer
from fleetest.client.view.impasse import impasse_lines
from fleetest.client.view.live import LiveRenderer
from fleetest.client.view.plain import PlainRenderer
from fleetest.client.view.quiet import QuietRenderer
from fleetest.common.errors import DependencyUnavailable
from fleetest.common.states import TaskState
from tests.unit.client.scripted_master import RUN_ID, at, attempt_ended, commits, leased, run_ended, submitted, task
from tests.unit.client.test_views import console_to


def explanation(task_id, *reasons):
    return TaskExplanation(
        task_id=task_id,
        state=TaskState.QUEUED,
        reasons=tuple(Reason(kind=kind, message=message) for kind, message in reasons),
    )


LACKS = (ReasonKind.MISSING_CAPABILITY, "2 of 2 workers lack browser=chromium")
NEXT = (ReasonKind.BEHIND_OTHERS, "it is next in its queue")
NOBODY = (ReasonKind.NO_WORKERS, "no worker is connected; start one with: fleetest worker")


class Cluster:
    """Answers why, and counts how often it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    async def explain(self, run_id):
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Watched:
    """A run that is watched second by second."""

    def __init__(self, *answers):
        self.cluster = Cluster(*answers)
        self.stream = io.StringIO()
        self.stall = StallWatch(self.cluster.explain, PlainRenderer(console_to(self.stream)))
        self.view = RunView(RUN_ID)
        self.apply([submitted(task("ui"))])

    def apply(self, *groups):
        for group in groups:
            (message,) = commits(group)
            self.view.apply(commit_from_proto(message))

    async def seconds(self, first, last):
        for second in range(first, last + 1):
            self.stall.look(self.view, at(second))
            for _ in range(5):  # the question is answered at once
                await asyncio.sleep(0)

    @property
    def lines(self):
        return self.stream.getvalue().splitlines()


async def test_after_three_seconds_without_work_the_reason_is_told_once():
    run = Watched([explanation("ui", LACKS, NEXT)])

    await run.seconds(0, 2)
    before = run.cluster.asked
    await run.seconds(3, 40)

    assert before == 0
    assert run.cluster.asked == 8
    assert run.lines == ["waiting: 2 of 2 workers lack browser=chromium (ui)"]


async def test_work_ends_the_waiting_and_a_new_stall_begins_anew():
    run = Watched([explanation("ui", LACKS)])
    await run.seconds(0, 5)

    run.apply([leased("ui")])
    await run.seconds(6, 20)
    asked = run.cluster.asked
    run.apply([attempt_ended("ui")])
    await run.seconds(21, 27)

    assert asked == 1
    assert run.lines == [
        "waiting: 2 of 2 workers lack browser=chromium (ui)",
        "waiting no longer",
        "waiting: 2 of 2 workers lack browser=chromium (ui)",
    ]


async def test_an_obstacle_that_goes_away_is_told_once():
    run = Watched([explanation("ui", LACKS)], [])

    await run.seconds(0, 30)

    assert run.lines[1:] == ["waiting no longer"]


async def test_a_changed_reason_is_told_but_not_more_than_twice_a_minute():
    run = Watched(
        [explanation("ui", LACKS)],
        *([explanation("ui", (ReasonKind.BEHIND_OTHERS, f"{number} come before it"))] for number in range(9, 0, -1)),
    )

    await run.seconds(0, 45)

    assert run.lines[1:] == ["waiting: 4 come before it (ui)"]


@pytest.mark.parametrize("trouble", [DependencyUnavailable("no master answers"), asyncio.CancelledError()])
async def test_a_lost_connection_is_not_told_twice_and_ends_nothing(trouble):
    run = Watched(trouble, [explanation("ui", NOBODY)])

    await run.seconds(0, 7)
    before = run.lines
    await run.seconds(8, 9)

    assert before == []
    assert run.lines == ["waiting: no worker is connected; start one with: fleetest worker"]


@pytest.mark.parametrize("end", ["ended", "cancelling", "unknown"])
async def test_nothing_is_asked_of_a_run_that_ends_or_is_not_known_yet(end):
    run = Watched([explanation("ui", LACKS)])
    if end == "ended":
        run.apply([run_ended("FAILED")])
    elif end == "cancelling":
        run.view.cancelling = True
    else:
        run.view = RunView(RUN_ID)

    await run.seconds(0, 20)

    assert run.cluster.asked == 0


@pytest.mark.parametrize("how", ["close", "work"])
async def test_an_open_question_is_let_go(how):
    asked, dropped = asyncio.Event(), asyncio.Event()

    async def never(run_id):
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            dropped.set()

    run = Watched([])
    run.stall = StallWatch(never, QuietRenderer(console_to(run.stream)))
    await run.seconds(0, 4)
    await asyncio.wait_for(asked.wait(), 5)

    if how == "close":
        await run.stall.close()
        await run.stall.close()
    else:
        run.apply([leased("ui")])
        await run.seconds(5, 5)

    await asyncio.wait_for(dropped.wait(), 5)


def test_each_distinct_reason_is_one_line_with_the_tasks_it_keeps():
    lines = impasse_lines(
        [
            *(explanation(f"ui{number}", LACKS, NEXT) for number in range(5)),
            explanation("big", (ReasonKind.TOO_LARGE, "2 of 2 workers are too small: it needs memory 64 GiB"), LACKS),
            explanation("api", NEXT),
            explanation("later", (ReasonKind.WAITS_FOR_TASK, "it needs api")),
            explanation("new\x1b[2J", (ReasonKind.UNKNOWN, "")),
        ]
    )

    assert lines == (
        "waiting: 2 of 2 workers lack browser=chromium (ui0, ui1, ui2 and 3 more)",
        "waiting: 2 of 2 workers are too small: it needs memory 64 GiB (big)",
        "waiting: it is next in its queue (api)",
        "waiting: unknown (new\\x1b[2J)",
    )


def test_many_reasons_are_cut_short():
    lines = impasse_lines([explanation(f"t{n}", (ReasonKind.BEHIND_OTHERS, f"{n} come before")) for n in range(9)])

    assert len(lines) == 5
    assert lines[-1] == "waiting: for 5 more reasons"


def test_the_live_area_shows_the_reasons_until_work_begins():
    stream = io.StringIO()
    renderer = LiveRenderer(console_to(stream, terminal=True, width=40, height=8))
    view = RunView(RUN_ID)
    view.apply(commit_from_proto(commits([submitted(*(task(f"t{n}") for n in range(9)))])[0]))

    renderer.waiting([f"waiting: {n} {'x' * 60}" for n in range(5)], at(1))
    renderer.tick(view, at(1))
    shown = stream.getvalue()
    renderer.waiting((), at(2))
    renderer.tick(view, at(2))
    after = stream.getvalue().removeprefix(shown)
    renderer.abandon()

    assert shown.count("waiting: ") == 3
    assert "more tasks" in shown
    assert "waiting: " not in after


def test_github_passes_the_reasons_on():
    stream = io.StringIO()
    console = console_to(stream)

    GitHubRenderer(PlainRenderer(console), stream, None).waiting(["waiting: for rain"], at(0))

    assert stream.getvalue() == "waiting: for rain\n"
