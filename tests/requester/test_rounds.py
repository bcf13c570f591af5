"""Whom a requester asks for bids, how long it waits, and whom it takes; without trio, clock or network."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.pace import FIRST_WINDOW, LONGEST_FIRST_WINDOW, Pace
from bacalhau_p2p.requester.rounds import REANNOUNCE_AFTER_NEWS
from tests.support.machines.requester_bench import JOB, A, B, Bench, C, D, S, announced, job, sent


def test_a_round_ends_when_every_known_eligible_node_has_answered(bench):
    bench.know(A, B)
    bench.submit(job())
    assert sent(bench.bid(A, load=0.5)) == []
    actions = bench.bid(B, load=0.1)
    assert sent(actions) == [(B, "bid_accepted"), (A, "bid_rejected")]


def test_a_round_ends_with_its_window_when_a_node_stays_silent(bench):
    bench.know(A, B)
    bench.submit(job())
    bench.bid(A)
    assert sent(bench.wait(0.2)) == []
    actions = bench.wait(0.2)
    assert sent(actions) == [(A, "bid_accepted")]
    assert any(isinstance(a, ev.Broadcast) and a.message.kind == "job_closed" for a in actions)


def test_nobody_waits_for_nodes_that_could_not_run_the_job(bench):
    bench.know(A)
    bench.give(ev.NodeInfoReceived(NodeInfo(id=B, compute=ComputeInfo(engines=("docker",)))))
    bench.give(ev.NodeInfoReceived(NodeInfo(id=C)))
    bench.submit(job())
    assert sent(bench.bid(A)) == [(A, "bid_accepted")]


def test_min_bids_must_be_in_before_the_first_is_accepted(bench):
    bench.know(A)
    bench.submit(job(Deal={"MinBids": 2}))
    assert sent(bench.bid(A)) == []
    bench.wait(1)
    bench.know(B)
    bench.wait(1)
    assert sorted(sent(bench.bid(B))) == [(A, "bid_accepted"), (B, "bid_rejected")]


def test_never_more_than_count_executions_are_accepted(bench):
    bench.know(A, B, C, D)
    bench.submit(job(2))
    for node in (A, B, C, D):
        bench.bid(node)
    assert sorted(bench.states().values()) == [S.BID_ACCEPTED] * 2 + [S.BID_REJECTED] * 2
    assert sent(bench.bid(A, attempt=2)) in ([(A, "bid_rejected")],)


def test_one_node_fills_one_slot_only(bench):
    bench.know(A)
    bench.submit(job(2))
    bench.bid(A)
    assert sent(bench.bid(A, attempt=2)) == [(A, "bid_rejected")]


def test_without_a_node_the_job_is_queued_and_says_what_it_waits_for(bench):
    bench.submit(job())
    bench.wait(1)
    assert bench.job.state is JobState.QUEUED
    assert bench.job.message == "waiting for a node: no compute node is known"


def test_a_decline_is_remembered_with_its_reason(bench):
    bench.know(A)
    bench.submit(job())
    bench.hear(A, say.BidDeclined(job_id=JOB, round=1, reason="is busy", busy=True))
    assert bench.job.state is JobState.QUEUED
    assert bench.job.message == "waiting for a node: alice is busy"


def burst(bench: Bench, names: range, answer_after: float) -> list[int]:
    """Submit jobs, one every 10 ms. A answers each announcement so long after it, B never does.
    How often each was announced."""
    rounds = dict.fromkeys((f"burst-{name}" for name in names), 0)
    submits = [(bench.now + 0.01 * number, name) for number, name in enumerate(rounds)]
    bids: list[tuple[float, str, int]] = []
    while submits or bids:
        due = bench.machine.next_deadline()
        events = [submits[0][0]] if submits else []
        events += [bids[0][0]] if bids else []
        bench.now = max(bench.now, min([*events, *([due] if due is not None else [])]))
        if due is not None and due <= bench.now:
            actions = bench.give(ev.TimePassed())
        elif submits and submits[0][0] <= bench.now:
            actions = bench.give(ev.Submitted(JobID(submits.pop(0)[1]), job()))
        else:
            _, name, number = bids.pop(0)
            bid = say.Bid(
                job_id=JobID(name),
                execution_id=ExecutionID(f"e-{name}-{number}"),
                round=number,
                reserved_for=30,
            )
            actions = bench.hear(A, bid)
        for message in announced(actions):
            rounds[message.job_id] += 1
            bids.append((bench.now + answer_after, message.job_id, message.round))
    return list(rounds.values())


def test_a_window_follows_what_answers_have_taken_so_that_jobs_are_announced_once(bench):
    bench.know(A, B)
    assert burst(bench, range(100), answer_after=0.05) == [1] * 100
    first = burst(bench, range(100, 200), answer_after=1.5)
    assert max(first) == 2
    assert burst(bench, range(200, 300), answer_after=1.5) == [1] * 100


def test_a_burst_on_a_slow_machine_is_noticed_within_it(bench):
    bench.know(A, B)
    rounds = burst(bench, range(200), answer_after=1.2)
    assert rounds == [2] + [1] * 199


def test_a_window_stays_short_where_answers_are_quick_and_is_never_longer_than_two_seconds():
    pace = Pace()
    assert pace.first_window == FIRST_WINDOW
    for _ in range(100):
        pace.answered_after(0.02)
    assert pace.first_window == FIRST_WINDOW
    pace.answered_after(0.3)  # once is chance
    assert pace.first_window < 0.5
    for _ in range(100):
        pace.answered_after(0.6)
    assert pace.first_window == pytest.approx(0.6, abs=0.01)
    for _ in range(3):
        pace.nobody_answered()
    assert pace.first_window == LONGEST_FIRST_WINDOW
    pace.answered_after(0.6)
    assert pace.first_window == pytest.approx(0.6, abs=0.01)
    for _ in range(100):
        pace.answered_after(3600.0)
    assert pace.first_window == LONGEST_FIRST_WINDOW
    for _ in range(100):
        pace.answered_after(0.02)
    assert pace.first_window == FIRST_WINDOW


def test_rounds_that_nobody_could_answer_say_nothing_of_how_long_answers_take(bench):
    bench.submit(job())
    bench.wait(20)
    bench.know(A, B)
    bench.give(ev.Submitted(JobID("j-2"), job()))
    bench.wait(FIRST_WINDOW)
    assert bench.machine.jobs[JobID("j-2")].round.ends is None


def test_a_node_that_becomes_free_is_asked_soon_though_rounds_are_far_apart(bench):
    bench.know(A, B)
    bench.submit(job())
    for _ in range(8):
        bench.wait(10)
    bench.wait(1)
    news = bench.now
    bench.know(C)
    bench.wait(REANNOUNCE_AFTER_NEWS)
    assert bench.machine.jobs[JOB].round.began == pytest.approx(news + REANNOUNCE_AFTER_NEWS)


def test_rounds_come_again_and_slower(bench):
    rounds = announced(bench.submit(job())) + announced(bench.wait(10))
    assert [announcement.round for announcement in rounds] == list(range(1, len(rounds) + 1))
    assert 3 <= len(rounds) <= 6


def test_a_new_node_is_asked_at_once(bench):
    bench.submit(job())
    bench.wait(200)
    bench.know(A)
    assert announced(bench.wait(0.6))
    assert sent(bench.bid(A)) == [(A, "bid_accepted")]


def test_the_queue_time_out_fails_the_job_with_the_reasons(bench):
    bench.know(A)
    engine = {"Type": "wasm", "Params": {"EntryModule": "/a"}}
    bench.submit(job(Tasks=[{"Engine": engine, "Timeouts": {"QueueTimeout": 5}}]))
    bench.wait(5.1)
    assert bench.job.state is JobState.FAILED
    assert "within the queue time-out of 5 s" in bench.job.message
    assert "alice has no wasm engine" in bench.job.message


def test_a_bid_that_expires_is_not_accepted_later(bench):
    bench.know(A)
    bench.submit(job(Deal={"MinBids": 2}))
    bench.bid(A)
    bench.wait(31)
    assert bench.states() == {A: S.BID_REJECTED}
