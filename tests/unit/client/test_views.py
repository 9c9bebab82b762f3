from __future__ import annotations

import io
from datetime import timedelta

import pytest
from rich.console import Console

from fleetest.client.cli.choosing import choose_renderer
from fleetest.client.cli.connecting import say
from fleetest.client.convert import commit_from_proto
from fleetest.client.view.area import live_area
from fleetest.client.view.fold import RunView
from fleetest.client.view.github import GitHubRenderer, annotation_lines, job_summary
from fleetest.client.view.harmless import harmless, one_line
from fleetest.client.view.live import LiveRenderer
from fleetest.client.view.plain import PlainRenderer
from fleetest.client.view.quiet import QuietRenderer
from fleetest.client.view.sections import GitLabSections
from fleetest.client.view.words import ago, clock_text, duration_text, size_text, verdict_text
from fleetest.common.results import Counts
from fleetest.v1 import run_pb2
from tests.unit.client.scripted_master import (
    RUN_ID,
    at,
    attempt_ended,
    commits,
    failing_run,
    finished,
    leased,
    passing_run,
    planned,
    result,
    run_ended,
    running,
    submitted,
    task,
    task_ended,
    wrong_hit,
)

HOSTILE = "t.py::x[\x1b[2J\x1b[31m\u202egnp\x07[bold]m\r\n::error::boo]"


def console_to(stream, *, terminal=False, width=100, height=24):
    return Console(
        file=stream,
        force_terminal=terminal,
        width=width,
        height=height,
        highlight=False,
        markup=False,
        emoji=False,
        _environ={"TERM": "xterm-256color"},
    )


def shown(log, make, *, terminal=False, close=True, **size):
    stream = io.StringIO()
    renderer = make(console_to(stream, terminal=terminal, **size))
    view = RunView(RUN_ID)
    for message in log:
        commit = commit_from_proto(message)
        renderer.show(view, view.apply(commit), commit.at)
        renderer.tick(view, commit.at)
    if close:
        renderer.close(view, at(10))
    return stream.getvalue(), view


def flaky_run():
    return commits(
        [submitted(task("lint"), task("unit"), task("after", "BLOCKED", needs=["unit"]))],
        [leased("unit"), running("unit"), planned("unit", "t.py::a", "t.py::slow")],
        [finished("unit", result("t.py::a", "FAILED", message="first"), result("t.py::slow", seconds=65))],
        [
            attempt_ended("unit", "LOST", reason="worker w1 is gone", will_retry=True),
            wrong_hit("unit", "t.py::a", "t.py"),
        ],
        [leased("unit", number=2), running("unit"), finished("unit", result("t.py::a"))],
        [run_pb2.RunEvent(cancel_requested=run_pb2.CancelRequested(by="ann"))],
        [task_ended("lint", "ERRORED", "no disk"), task_ended("unit", "PASSED"), task_ended("after", "SKIPPED")],
        [run_ended("ERRORED", "lint errored")],
    )


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain ünïcode 日本", "plain ünïcode 日本"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("a\u202eb\u2066\ufeff", "a\\u202eb\\u2066\\ufeff"),
        ("\udc80\U000e0041", "\\udc80\\U000e0041"),
        ("one\r\ntwo\rthree\tfour", "one\ntwo\\x0dthree\tfour"),
        ("ok\n  ::set-env name=x::y", "ok\n  : :set-env name=x::y"),
        ("x ##[error]y", "x ## [error]y"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_text_from_outside_is_made_harmless(text, safe):
    assert harmless(text) == safe


def test_one_line_is_one_line_and_bounded():
    assert one_line("a\nb\t c") == "a b c"
    assert one_line("x" * 5000, limit=10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("seconds", "text", "clock"),
    [(0.042, "0.04s", "0:00"), (3.21, "3.2s", "0:03"), (125, "2m 05s", "2:05"), (3723, "1h 02m", "1:02:03")],
)
def test_durations_read_well(seconds, text, clock):
    assert duration_text(timedelta(seconds=seconds)) == text
    assert clock_text(timedelta(seconds=seconds)) == clock


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (Counts(planned=97, passed=90, failed=4), "4 of 97 failed"),
        (Counts(planned=97, passed=12), "12 of 97"),
        (Counts(planned=2, passed=1, skipped=1), "2 cases"),
        (Counts(), ""),
    ],
)
def test_the_shortest_word_on_counts(counts, text):
    assert verdict_text(counts) == text


def test_sizes_and_ages_read_well():
    assert [size_text(size) for size in (12, 2048, 5 << 20, 3 << 40)] == ["12 B", "2.0 KiB", "5.0 MiB", "3.0 TiB"]
    assert [ago(at(0), at(seconds)) for seconds in (5, 120, 7200, 200000)] == ["5s ago", "2m ago", "2h ago", "2d ago"]
    assert ago(None, at(0)) == ""


def test_plain_lines_tell_each_change_each_failure_and_the_end():
    text, _ = shown(failing_run(), PlainRenderer)

    assert text.splitlines() == [
        "run 01a1fbf0-6d2e  shop / ci",
        "running unit",
        "FAILED t.py::a  unit",
        "    assert 1 == 2",
        "    t.py:3",
        "failed unit  1 passed, 1 failed  2.0s",
        "",
        "--- t.py::a (unit)",
        "tb",
        "E  assert",
        "",
        "✗ unit  failed  1 passed, 1 failed  2.0s",
        "",
        "FAILED  2 cases: 1 passed, 1 failed in 3.0s",
        "see more: fleetest show 01a1fbf0-6d2e",
        "          fleetest logs 01a1fbf0-6d2e unit",
        "          fleetest retry 01a1fbf0-6d2e",
    ]


def test_plain_lines_tell_of_flaky_cases_lost_workers_and_cancelling():
    text, _ = shown(flaky_run(), PlainRenderer)

    assert "NOTE unit#0: its worker was lost: worker w1 is gone; what is left runs again\n" in text
    assert "FLAKY t.py::a  unit  passed in try 2\n" in text
    assert (
        "CACHE t.py::a  unit  failed, though it was cached as passed in run 01a1fbf0-0000: what is cached of " in text
    )
    assert (
        "wrong in the cache: their results depend on more than it knows of, see `cache.inputs`\n  t.py::a  unit\n"
        in text
    )
    assert "STOP the run is being cancelled by ann\n" in text
    assert "✗ lint   errored  no disk\n" in text
    assert "– after  skipped\n" in text
    assert "slowest\n  1m 05s  t.py::slow  unit\n" in text
    assert "flaky: failed, then passed when tried again\n  t.py::a  unit  first\n" in text
    assert "ERRORED  2 cases: 2 passed, 1 flaky, 1 retried in 7.0s\n  lint errored\n" in text


def test_the_end_tells_which_artifacts_were_not_kept():
    problems = ["core: larger than 1 GiB", *(f"out/{number}: is a socket" for number in range(11))]
    saved = run_pb2.ArtifactsSaved(shard_id="unit#0", task_id="unit", problems=problems)

    text, _ = shown(
        commits([submitted(task("unit")), leased("unit")], [run_pb2.RunEvent(artifacts_saved=saved)]), PlainRenderer
    )

    assert "not kept as artifacts\n  core: larger than 1 GiB  unit\n  out/0: is a socket  unit\n" in text
    assert "  out/8: is a socket  unit\n  and 2 more\n" in text


def test_plain_lines_count_every_ten_seconds_while_something_changes():
    stream = io.StringIO()
    renderer = PlainRenderer(console_to(stream))
    view = RunView(RUN_ID)
    for message in failing_run()[:3]:
        commit = commit_from_proto(message)
        renderer.show(view, view.apply(commit), at(2))
    before = stream.getvalue()

    for seconds in (3, 11.9, 12, 13, 22, 32):
        renderer.tick(view, at(seconds))

    assert stream.getvalue().removeprefix(before) == "... 2 of 2 cases, 1 failed, 1 slot, 0:11\n"


def test_plain_lines_name_an_environment_that_is_long_in_preparation_once():
    stream = io.StringIO()
    renderer = PlainRenderer(console_to(stream))
    view = a_view([submitted(task("unit"), task("quick"))], [leased("unit")])

    for seconds in (2, 3, 4, 5, 11):
        renderer.tick(view, at(seconds))
    view.apply(commit_from_proto(commits([], [], [running("unit"), leased("quick", worker="w2")])[2]))
    for seconds in (11, 12.5, 80):
        renderer.tick(view, at(seconds))

    assert stream.getvalue().splitlines() == [
        "preparing unit",
        "preparing quick",
        "... 2 slots, 1:19",
    ]


def test_plain_lines_say_every_minute_that_nothing_has_changed():
    stream = io.StringIO()
    renderer = PlainRenderer(console_to(stream))
    view = a_view([submitted(task("unit"))])

    for seconds in (0, 11, 21, 70, 72):
        renderer.tick(view, at(seconds))

    assert stream.getvalue().splitlines() == ["... nothing runs, 0:10", "... nothing runs, 1:11"]


@pytest.mark.parametrize("make", [PlainRenderer, QuietRenderer])
def test_what_is_not_a_terminal_gets_no_control_characters_from_a_hostile_test(make):
    log = commits(
        [submitted(task("unit\x1b[2J"))],
        [finished("unit\x1b[2J", result(HOSTILE, "FAILED", message=HOSTILE, details=HOSTILE, file="\x1b]0;x\x07"))],
        [task_ended("unit\x1b[2J", "FAILED", HOSTILE), run_ended("FAILED", HOSTILE)],
    )

    text, _ = shown(log, make)

    assert not set(text) & set(map(chr, [*range(10), *range(11, 32), 127, *range(128, 160), 0x202E]))
    assert "[bold]m" in text
    assert not [line for line in text.splitlines() if line.strip().startswith("::")]


def test_a_setup_that_failed_shows_what_it_wrote_once():
    reason = "setup failed with exit code 4: pip install x\ntrying\nno such package"
    log = commits(
        [submitted(task("unit"))],
        [run_pb2.RunEvent(cancel_requested=run_pb2.CancelRequested(task_id="unit", by="failed", reason=reason))],
        [task_ended("unit", "FAILED", reason), run_ended("FAILED", "unit failed")],
    )

    text, _ = shown(log, PlainRenderer)

    assert text.splitlines()[1:6] == [
        "NOTE unit: setup failed with exit code 4: pip install x",
        "    trying",
        "    no such package",
        "failed unit  setup failed with exit code 4: pip install x",
        "",
    ]
    assert text.count("no such package") == 1


def test_quiet_tells_failures_and_one_last_line():
    text, _ = shown(failing_run(), QuietRenderer)

    assert text.splitlines() == [
        "FAILED t.py::a  unit",
        "    assert 1 == 2",
        "    t.py:3",
        "FAILED  2 cases: 1 passed, 1 failed in 3.0s  01a1fbf0-6d2e",
    ]


def test_a_failure_that_comes_again_is_not_explained_again():
    log = commits(
        [submitted(task("unit"))],
        [finished("unit", result("a", "FAILED", message="because", file="t.py"))],
        [finished("unit", result("a", "FAILED", message="because", file="t.py"))],
    )

    text, _ = shown(log, PlainRenderer, close=False)

    assert text.count("because") == 1
    assert "    t.py\n" in text
    assert "FAILED a  unit  again, in try 2\n" in text


def test_verbose_tells_tracebacks_and_output_at_once():
    log = commits(
        [submitted(task("unit"))],
        [finished("unit", result("a", "FAILED", details="line 1\nline 2", stdout="said\n", log="logged"))],
    )
    stream = io.StringIO()
    renderer = choose_renderer(console_to(stream), {}, verbosity=1)
    view = RunView(RUN_ID)
    for message in log:
        renderer.show(view, view.apply(commit_from_proto(message)), at(1))

    assert "    line 1\n    line 2\n    --- captured stdout\n    said\n    --- captured log\n    logged\n" in (
        stream.getvalue()
    )


def test_a_failed_command_shows_the_end_of_its_output():
    output = "\n".join(f"line {number}" for number in range(1, 31)) + "\n\n\x1b[2Joh no\n"
    log = commits(
        [submitted(task("build"), task("quiet"))],
        [finished("build", result("build", "FAILED", message="the command ended with exit code 3", details=output))],
        [finished("quiet", result("quiet", "FAILED", message="the command ended with exit code 2"))],
        [finished("build", result("build", "FAILED", details=output))],
    )

    text, _ = shown(log, PlainRenderer, close=False)
    verbose, _ = shown(log, lambda console: choose_renderer(console, {}, verbosity=1), close=False)

    assert text.splitlines()[1:] == [
        "FAILED build",
        "    the command ended with exit code 3",
        "    … 21 more above",
        *(f"    line {number}" for number in range(22, 31)),
        "    \\x1b[2Joh no",
        "FAILED quiet",
        "    the command ended with exit code 2",
        "FAILED build  again, in try 2",
    ]
    assert "    line 1\n" in verbose
    assert "more above" not in verbose


def area_text(view, *, width=80, height=24, seconds=10):
    stream = io.StringIO()
    console_to(stream, width=width, height=height).print(live_area(view, at(seconds), width=width, height=height))
    return stream.getvalue()


def a_view(*groups):
    view = RunView(RUN_ID)
    for message in commits(*groups):
        view.apply(commit_from_proto(message))
    return view


def test_live_area_shows_each_state_of_a_task():
    view = a_view(
        [submitted(*(task(name) for name in ("q", "c", "r", "w", "p", "s")), task("b", "BLOCKED", needs=["r", "p"]))],
        [leased("c"), running("c"), leased("r"), running("r"), planned("r", "a", "b", predicted=timedelta(seconds=30))],
        [leased("w"), running("w"), planned("w", "x", "y"), finished("w", result("x", "FAILED")), attempt_ended("w")],
        [finished("w", result("x")), task_ended("s", "SKIPPED", "no need")],
        [finished("r", result("a", "FAILED")), finished("p", result("z")), task_ended("p", "PASSED")],
    )

    lines = [line.rstrip() for line in area_text(view).splitlines()]

    assert lines[1].endswith("queued")
    assert lines[2].endswith("collecting 0:08")
    assert "1/2  1 failed  1 slot" in lines[3]
    assert "━" in lines[3]
    assert "1/2  1 flaky  waits for a slot" in lines[4]
    assert lines[5].startswith("✓ p")
    assert lines[5].endswith("1 passed")
    assert lines[6].startswith("– s")
    assert lines[6].endswith("skipped  no need")
    assert lines[7].startswith("· b")
    assert lines[7].endswith("waits for r, p")
    assert lines[8] == "  3/5 cases · 1 failed · 1 flaky · 2 slots · 0:09 · at least 0:08 left"


def a_measurement(task_id="load", second=12):
    measured = run_pb2.PerformanceMeasured(
        task_id=task_id, second=second, users=7, offered=40, throughput=39.94, error_rate=0.0125
    )
    measured.window.FromSeconds(10)
    measured.p95.FromTimedelta(timedelta(milliseconds=148.2))
    return run_pb2.RunEvent(performance_measured=measured)


def test_a_load_test_shows_its_last_seconds_while_it_runs():
    view = a_view([submitted(task("load"))], [leased("load"), running("load")], [a_measurement()])
    view.tasks["load"].collects = False
    stream = io.StringIO()
    renderer = PlainRenderer(console_to(stream))

    for seconds in (3, 14):
        renderer.tick(view, at(seconds))
    stop = run_pb2.CancelRequested(task_id="load", by="load", reason="p95 < 1s: it was 2s over 10s")
    [commit] = commits([run_pb2.RunEvent(cancel_requested=stop)])
    renderer.show(view, view.apply(commit_from_proto(commit)), at(15))

    assert area_text(view).splitlines()[1].rstrip().endswith("39.9/s, p95 148 ms, 1.2% errors, 7 users  0:08")
    assert stream.getvalue().splitlines() == [
        "... load: 39.9/s, p95 148 ms, 1.2% errors, 7 users, 1 slot, 0:13",
        "STOP load: all generators are stopped: p95 < 1s: it was 2s over 10s",
    ]


def test_live_area_says_what_is_prepared_and_what_waits_its_turn():
    view = a_view(
        [submitted(*(task(name) for name in ("venv", "again", "next", "shell")))],
        [leased("venv", worker="w1"), planned("venv", "a", "b")],
        [leased("again", worker="w2"), running("again"), planned("again", "a", "b"), finished("again", result("a"))],
        [attempt_ended("again"), leased("again", worker="w2"), leased("next", worker="w2")],
        [leased("shell", worker="w3"), running("shell")],
    )
    view.tasks["shell"].collects = False

    lines = [line.rstrip() for line in area_text(view).splitlines()]

    assert lines[1] == "⠋ venv                   preparing its environment 0:08"
    assert lines[2].endswith("1/2  preparing 0:06")
    assert "━" in lines[2]
    assert lines[3] == "· next                   waits for a slot"
    assert lines[4] == "⠋ shell                  running 0:05"


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (20, 5), (200, 3)])
def test_live_area_fits_any_terminal(width, height):
    view = a_view(
        [submitted(*(task(f"a-task-with-a-rather-long-name-{number}") for number in range(50)))],
        [leased("a-task-with-a-rather-long-name-40"), running("a-task-with-a-rather-long-name-40")],
        [task_ended("a-task-with-a-rather-long-name-1", "PASSED")],
    )

    lines = area_text(view, width=width, height=height).splitlines()

    assert len(lines) <= max(height - 1, 4)
    assert all(len(line) <= width for line in lines)
    assert "more task" in lines[-2]
    if height == 24:
        assert "long-name-40" in area_text(view, width=200, height=height)


def test_live_view_prints_failures_above_and_takes_its_area_away():
    text, _ = shown(failing_run(), LiveRenderer, terminal=True)

    assert text.count("assert 1 == 2") == 1
    assert text.endswith("fleetest retry 01a1fbf0-6d2e\x1b[0m\n")
    assert "\x1b[?25l" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_live_view_makes_room_for_a_question_and_comes_back():
    stream = io.StringIO()
    renderer = LiveRenderer(console_to(stream, terminal=True))
    view = RunView(RUN_ID)
    commit = commit_from_proto(passing_run()[0])
    renderer.show(view, view.apply(commit), at(0))

    with renderer.suspended():
        renderer.note("a question")
        assert stream.getvalue().count("\x1b[?25h") == 1
    renderer.tick(view, at(1))
    renderer.abandon()
    renderer.abandon()

    assert stream.getvalue().count("\x1b[?25l") == 2


def test_what_the_connection_says_stands_above_the_live_area(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    monkeypatch.setattr("sys.stderr", stream)
    renderer = LiveRenderer(console_to(stream, terminal=True))
    view = RunView(RUN_ID)
    commit = commit_from_proto(passing_run()[0])
    renderer.show(view, view.apply(commit), at(0))

    say("127.0.0.1:1 does not answer; trying again for 20 s")

    _, found, after = stream.buffer.getvalue().decode().partition("does not answer")
    renderer.abandon()
    assert found
    assert "nothing runs" in after


def test_github_gets_annotations_whose_text_cannot_break_out():
    log = commits(
        [submitted(task("unit"))],
        [
            finished(
                "unit",
                result("t.py::a[x,y:z]", "FAILED", message="100%\nwrong", file="tests/a,b.py", line=7),
                result("t.py::b", "ERROR"),
            )
        ],
        [task_ended("unit", "FAILED"), run_ended("FAILED")],
    )
    _, view = shown(log, PlainRenderer)

    assert list(annotation_lines(view)) == [
        "::error file=tests/a%2Cb.py,line=7,title=t.py%3A%3Aa[x%2Cy%3Az] (unit)::100%25%0Awrong",
        "::error title=t.py%3A%3Ab (unit)::error",
    ]


def test_github_gets_a_job_summary(tmp_path):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    log = failing_run()
    log[2].events[0].cases_finished.results[0].details = "a < b\n</pre>"

    text, _ = shown(log, lambda console: GitHubRenderer(PlainRenderer(console), console.file, summary))

    assert "::error file=t.py,line=3,title=t.py%3A%3Aa (unit)::assert 1 == 2\n" in text
    written = summary.read_text()
    assert written.startswith("before\n## Fleetest: failed\n")
    assert "| unit | failed | 1 passed, 1 failed | 2.0s |" in written
    assert "<pre>a &lt; b\n&lt;/pre&gt;</pre>" in written


def test_github_summary_stays_below_its_limit_and_cannot_be_broken_by_names():
    log = commits(
        [submitted(task("u|n*i<t"))],
        [finished("u|n*i<t", *(result(f"c{number}", "FAILED", details="ü" * 3900) for number in range(300)))],
    )
    _, view = shown(log, PlainRenderer, close=False)

    text = job_summary(view, at(5))

    assert "u&#124;n&#42;i&lt;t" in text
    assert len(text.encode()) < 1 << 20


def test_a_summary_that_cannot_be_written_is_said(tmp_path):
    text, _ = shown(
        passing_run(), lambda console: GitHubRenderer(PlainRenderer(console), console.file, tmp_path / "no" / "file")
    )

    assert "the job summary could not be written" in text


def test_gitlab_folds_each_failure():
    text, _ = shown(failing_run(), lambda console: PlainRenderer(console, sections=GitLabSections(lambda: 7.9)))

    assert "\x1b[0Ksection_start:7:t.py_a_unit__1[collapsed=true]\r\x1b[0Kt.py::a (unit)\n" in text
    assert "\x1b[0Ksection_end:7:t.py_a_unit__1\r\x1b[0K\n" in text


@pytest.mark.parametrize(
    ("environment", "terminal", "verbosity", "kind"),
    [
        ({}, True, 0, LiveRenderer),
        ({}, False, 0, PlainRenderer),
        ({}, True, -1, QuietRenderer),
        ({"GITLAB_CI": "true"}, True, 0, PlainRenderer),
        ({"GITHUB_ACTIONS": "true"}, True, 0, GitHubRenderer),
        ({"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": "/x"}, True, -1, GitHubRenderer),
    ],
)
def test_renderer_fits_where_the_output_goes(environment, terminal, verbosity, kind):
    console = console_to(io.StringIO(), terminal=terminal)

    assert type(choose_renderer(console, environment, verbosity=verbosity)) is kind


def test_a_dumb_terminal_gets_lines():
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})

    assert isinstance(choose_renderer(console, {}, verbosity=0), PlainRenderer)


def test_github_decorates_every_call_of_the_other_renderer():
    stream = io.StringIO()
    renderer = choose_renderer(console_to(stream), {"GITHUB_ACTIONS": "true"}, verbosity=0)
    view = RunView(RUN_ID)
    with renderer.suspended():
        renderer.note("hello")
    renderer.tick(view, at(0))
    renderer.abandon()
    for message in failing_run():
        renderer.show(view, view.apply(commit_from_proto(message)), at(1))

    renderer.close(view, at(2))

    assert "hello\n" in stream.getvalue()
    assert "::group::t.py::a (unit)\n" in stream.getvalue()
    assert "::endgroup::\n" in stream.getvalue()
