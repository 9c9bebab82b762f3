from __future__ import annotations

import asyncio
import errno
import os
from datetime import timedelta

import pytest
from msgspec.structs import replace

from fleetest.common.limits import MAX_RESULT_TEXT_BYTES
from fleetest.common.results import Artifact, CaseResult, PlannedCase
from fleetest.common.states import Outcome, Verdict
from fleetest.worker import outbox as module
from fleetest.worker import spool as spool_module
from fleetest.worker.assignments import AttemptRef, Ended
from fleetest.worker.convert import reports_from_bytes
from fleetest.worker.outbox import Outbox
from fleetest.worker.reporting import AttemptReporter
from fleetest.worker.reports import ArtifactsLeft, Done, Output, Planned, Report, Results, Running
from fleetest.worker.spool import Spool

REF = AttemptRef(run_id="r", shard_id="unit#0", token=1)
OTHER = AttemptRef(run_id="r", shard_id="unit#1", token=2)


@pytest.fixture
def spool(tmp_path):
    made = Spool(tmp_path, memory_bytes=50)
    yield made
    made.close()


@pytest.fixture
async def outbox(spool):
    return Outbox(spool)


@pytest.fixture
def news(outbox):
    event = asyncio.Event()
    outbox.on_news(event.set)
    return event


def reporter(outbox, ref=REF, **settings):
    return AttemptReporter(ref, secrets={"TOKEN": "hunter22"}, outbox=outbox, **settings)


def passed(case_id, **texts):
    return CaseResult(case_id=case_id, outcome=Outcome.PASSED, **texts)


def batches(spool):
    return [reports_from_bytes(payload) for _, payload in spool.after(0)]


def bodies(spool, ref=REF):
    return [report.body for batch in batches(spool) for report in batch if report.ref == ref]


async def test_reports_wait_a_moment_for_others(outbox, spool, news):
    mine, other = reporter(outbox), reporter(outbox, OTHER)
    mine.running(["ready"])
    mine.running(["again"])
    mine.result(passed("a"))
    other.result(passed("x"))
    mine.result(passed("b"))
    assert not spool
    assert outbox.attempts == {REF, OTHER}

    await news.wait()

    assert len(batches(spool)) == 1
    assert bodies(spool) == [Running(), Results(results=(passed("a"), passed("b")))]
    assert bodies(spool, OTHER) == [Results(results=(passed("x"),))]


@pytest.mark.parametrize(
    "say",
    [
        lambda mine: [mine.result(passed(str(number))) for number in range(200)],
        lambda mine: mine.output(b"x" * (256 << 10)),
        lambda mine: mine.planned([PlannedCase(case_id="a")] * 3000, deselected=0, collection_errors=[]),
    ],
    ids=["results", "output", "plan"],
)
async def test_full_batch_waits_for_nothing(outbox, spool, say):
    say(reporter(outbox))

    assert len(batches(spool)) == 1


async def test_results_that_come_all_the_time_wait_longer_unless_one_is_bad(outbox, spool, news, monkeypatch):
    monkeypatch.setattr(module, "_BATCH_INTERVAL", timedelta(days=1))
    mine = reporter(outbox)
    mine.result(passed("a"))
    outbox.flush()
    news.clear()

    mine.result(passed("b"))
    mine.result(replace(passed("c"), outcome=Outcome.FAILED))
    mine.result(passed("d"))
    async with asyncio.timeout(60):
        await news.wait()

    assert [result.case_id for result in bodies(spool)[-1].results] == ["b", "c", "d"]


async def test_end_after_which_others_come_soon_waits_for_those_unless_it_is_bad(outbox, spool):
    mine, other = reporter(outbox), reporter(outbox, OTHER)
    mine.result(passed("a"))
    mine.ended(Ended(verdict=Verdict.COMPLETED), more_soon=True)
    waited = outbox.holds_ends and not outbox.due
    other.ended(Ended(verdict=Verdict.FAILED), more_soon=True)
    due = outbox.due
    outbox.flush()

    assert waited
    assert due
    assert not outbox.holds_ends
    assert [{report.ref for report in batch} for batch in batches(spool)] == [{REF, OTHER}]


async def test_end_of_an_attempt_is_due_with_what_else_happens_at_that_moment(outbox, spool, news):
    mine, other = reporter(outbox), reporter(outbox, OTHER)
    for each in (mine, other):
        each.result(passed("a"))
        each.ended(Ended(verdict=Verdict.COMPLETED))

    assert news.is_set()
    assert outbox.due
    assert not spool
    outbox.flush()
    assert not outbox.due
    assert len(batches(spool)) == 1
    for ref in (REF, OTHER):
        assert bodies(spool, ref) == [Results(results=(passed("a"),)), Ended(verdict=Verdict.COMPLETED)]


async def test_end_that_nobody_takes_is_put_into_the_spool_soon(outbox, spool, news):
    reporter(outbox).ended(Ended(verdict=Verdict.COMPLETED))
    news.clear()

    async with asyncio.timeout(60):
        await news.wait()

    assert bodies(spool) == [Ended(verdict=Verdict.COMPLETED)]


async def test_all_that_a_short_attempt_says_that_went_well_besides_its_output_is_one_report(outbox, spool):
    mine, other = reporter(outbox), reporter(outbox, OTHER)
    ended = Ended(verdict=Verdict.COMPLETED)
    for each in (mine, other):
        each.running(["ready"])
    mine.result(passed("a"))
    mine.result(passed("b"))
    for piece in (b"one\n", b"two\n"):
        other.output(piece)
        other.result(passed(piece.decode().strip()))
    for each in (mine, other):
        each.ended(ended)
    outbox.flush()

    assert bodies(spool) == [Done(results=(passed("a"), passed("b")))]
    output, done = bodies(spool, OTHER)
    assert (output.content, done) == (b"one\ntwo\n", Done(results=(passed("one"), passed("two"))))


async def test_short_attempt_that_did_not_go_well_says_one_thing_after_the_other(outbox, spool):
    mine, ended = reporter(outbox), Ended(verdict=Verdict.FAILED, reason="exit code 1")
    mine.running()
    mine.ended(ended)
    outbox.flush()

    assert bodies(spool) == [Running(), ended]


async def test_short_attempt_that_no_message_can_hold_ends_as_errored(outbox, spool, monkeypatch):
    monkeypatch.setattr(module, "_MESSAGE_BYTES", 1000)
    mine = reporter(outbox)
    mine.running()
    mine.result(passed("a", stdout="x" * 2000))
    mine.ended(Ended(verdict=Verdict.COMPLETED))
    outbox.flush()

    running, ended = bodies(spool)
    assert (running, ended.verdict) == (Running(), Verdict.ERRORED)


async def test_end_is_the_last_word(outbox, spool):
    mine = reporter(outbox)
    mine.ended(Ended(verdict=Verdict.COMPLETED))
    mine.result(passed("late"))
    mine.ended(Ended(verdict=Verdict.FAILED))
    outbox.flush()

    assert bodies(spool) == [Ended(verdict=Verdict.COMPLETED)]


async def test_every_text_is_masked(outbox, spool):
    mine = reporter(outbox)
    secret = "hunter22"
    bad = passed(secret, message=secret, details=secret, stdout=secret, file=secret, properties={secret: secret})
    mine.running([secret])
    mine.planned([PlannedCase(case_id=secret, file=secret)], deselected=1, collection_errors=[bad])
    mine.result(bad)
    mine.output(secret[:3].encode())
    mine.output(secret[3:].encode())
    mine.artifacts([Artifact(path=f"{secret}.txt", digest="d", size_bytes=1)], [f"{secret}: too large"])
    mine.ended(Ended(verdict=Verdict.FAILED, reason=secret, missing=(secret,), extra=(secret,)))
    outbox.flush()

    said = b"".join(payload for _, payload in spool.after(0))
    assert secret.encode() not in said
    assert [type(body) for body in bodies(spool)] == [Output, Running, Planned, Results, ArtifactsLeft, Ended]
    assert bodies(spool)[0].content == b"***"


async def test_output_without_end_is_bounded_and_said_to_be(outbox, spool):
    mine = reporter(outbox, max_output_bytes=10)
    for piece in (b"123456", b"7890abc", b"more"):
        mine.output(piece)
    mine.ended(Ended(verdict=Verdict.COMPLETED))
    outbox.flush()

    assert bodies(spool)[0] == Output(offset_bytes=0, content=b"1234567890", truncated=True)


async def test_pieces_of_output_carry_their_offset(outbox, spool):
    mine = reporter(outbox)
    mine.output(b"first ")
    outbox.flush()
    mine.output(b"second")
    outbox.flush()

    assert [(body.offset_bytes, body.content) for body in bodies(spool)] == [(0, b"first "), (6, b"second")]


@pytest.mark.parametrize("long", ["x" * (MAX_RESULT_TEXT_BYTES * 2), "é" * MAX_RESULT_TEXT_BYTES])
async def test_middle_of_a_long_text_is_cut_out(outbox, spool, long):
    mine = reporter(outbox)
    mine.result(passed("a", details=f"begin {long} end"))
    outbox.flush()

    (result,) = bodies(spool)[0].results
    assert result.truncated
    assert len(result.details.encode()) <= MAX_RESULT_TEXT_BYTES
    assert result.details.startswith("begin ")
    assert result.details.endswith(" end")
    assert "cut out" in result.details


async def test_text_within_the_limit_is_kept_whole(outbox, spool):
    mine = reporter(outbox)
    mine.result(passed("a", details="x" * MAX_RESULT_TEXT_BYTES))
    outbox.flush()

    assert not bodies(spool)[0].results[0].truncated


async def test_acknowledgement_empties_the_outbox(outbox, spool):
    reporter(outbox).ended(Ended(verdict=Verdict.COMPLETED))
    outbox.flush()
    emptied = asyncio.create_task(outbox.emptied())
    await asyncio.sleep(0)
    assert not emptied.done()

    outbox.acknowledge(1)

    await emptied
    assert outbox.attempts == frozenset()


async def test_next_agent_knows_whose_reports_are_left(outbox, spool):
    reporter(outbox).ended(Ended(verdict=Verdict.COMPLETED))
    outbox.flush()
    spool.append(b"\xff not a batch")

    assert Outbox(spool).attempts == {REF}


async def test_attempt_whose_reports_were_lost_ends_as_errored(outbox, spool, monkeypatch):
    def pwrite(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(spool_module.os, "pwrite", pwrite)
    mine, other = reporter(outbox), reporter(outbox, OTHER)
    mine.output(b"x" * 100)
    outbox.flush()
    assert outbox.problem == "spool: disk full"
    other.result(passed("lost"))
    outbox.flush()

    mine.ended(Ended(verdict=Verdict.COMPLETED))
    other.ended(Ended(verdict=Verdict.COMPLETED))
    outbox.flush()

    assert bodies(spool)[-1].verdict is Verdict.COMPLETED
    (ended,) = bodies(spool, OTHER)
    assert ended.verdict is Verdict.ERRORED
    assert "reports were lost" in ended.reason


async def test_report_that_no_message_can_hold_is_lost_alone(outbox, spool, monkeypatch):
    monkeypatch.setattr(module, "_MESSAGE_BYTES", 1000)
    mine, other = reporter(outbox), reporter(outbox, OTHER)
    mine.planned([PlannedCase(case_id="x" * 500)] * 3, deselected=0, collection_errors=[])
    other.result(passed("a"))
    outbox.flush()
    mine.ended(Ended(verdict=Verdict.COMPLETED))
    outbox.flush()

    assert bodies(spool, OTHER) == [Results(results=(passed("a"),))]
    (ended,) = bodies(spool)
    assert (ended.verdict, outbox.problem) == (Verdict.ERRORED, "")


async def test_reader_gets_old_batches_then_those_that_come_meanwhile(outbox):
    outbox.add(Report(ref=REF, body=Ended(verdict=Verdict.COMPLETED)), 100)
    outbox.flush()
    reader = outbox.after(0)
    old, _ = next(reader)

    outbox.add(Report(ref=OTHER, body=Ended(verdict=Verdict.COMPLETED)), 100)
    outbox.flush()

    assert [old, *(sequence for sequence, _ in reader)] == [1, 2]
