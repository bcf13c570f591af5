"""Rounds of bids: when they begin and end, and which bids are accepted: `rounds` and `bids`."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.draw import is_drawn
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.pace import FIRST_WINDOW, LONGEST_FIRST_WINDOW, LONGEST_WINDOW
from bacalhau_p2p.requester.rounds import INSPECTION_PATIENCE, REANNOUNCE_AFTER_NEWS
from tests.support.machines.requester_bench import (
    JOB,
    ROOM,
    A,
    B,
    C,
    D,
    RequesterBench,
    S,
    announced,
    execution_id,
    job,
    sent,
)


def test_a_round_ends_when_every_known_eligible_node_has_answered(bench):
    bench.add_nodes(A, B)
    bench.submit(job())
    assert sent(bench.bid(A, load=0.5)) == []
    actions = bench.bid(B, load=0.1)
    assert sent(actions) == [(B, "bid_accepted"), (A, "bid_rejected")]


def test_a_round_ends_with_its_window_if_a_node_does_not_answer(bench):
    bench.add_nodes(A, B)
    bench.submit(job())
    bench.bid(A)
    assert sent(bench.wait(0.2)) == []
    actions = bench.wait(0.2)
    assert sent(actions) == [(A, "bid_accepted")]


def test_a_round_does_not_wait_for_nodes_that_cannot_run_the_job(bench):
    bench.add_nodes(A)
    bench.handle(ev.NodeInfoReceived(NodeInfo(id=B, compute=ComputeInfo(engines=("docker",)))))
    bench.handle(ev.NodeInfoReceived(NodeInfo(id=C)))
    bench.submit(job())
    assert sent(bench.bid(A)) == [(A, "bid_accepted")]


def test_min_bids_must_be_in_before_the_first_is_accepted(bench):
    bench.add_nodes(A, B)
    bench.submit(job(Deal={"MinBids": 2}))
    assert sent(bench.bid(A)) == []
    bench.wait(0.2)
    assert sorted(sent(bench.bid(B))) == [(A, "bid_accepted"), (B, "bid_rejected")]


def test_bids_that_are_too_few_hold_no_room_until_others_come(bench):
    bench.add_nodes(A, B, C)
    bench.submit(job(Deal={"MinBids": 3}))
    bench.bid(A)
    bench.bid(B)
    assert sorted(sent(bench.wait(FIRST_WINDOW))) == [(A, "bid_rejected"), (B, "bid_rejected")]
    (released,) = {execution.message for execution in bench.machine.jobs[JOB].executions.values()}
    assert released == "only 2 of 3 bids came in one round"


def test_bids_that_come_between_rounds_are_collected_for_a_moment(bench):
    bench.add_nodes(A, B, C)
    bench.submit(job(2, Deal={"MinBids": 2}))
    bench.wait(FIRST_WINDOW)
    assert sent(bench.bid(A)) == []
    bench.wait(0.2)
    assert sent(bench.bid(B)) == []
    assert sorted(sent(bench.wait(1.3))) == [(A, "bid_accepted"), (B, "bid_accepted")]


def test_a_job_that_waits_for_long_still_takes_bids_of_the_same_node(bench):
    bench.add_nodes(A, B)
    bench.submit(job(Deal={"MinBids": 2}))
    refusals = 0
    for attempt in range(60):
        actions = bench.bid(A, attempt=attempt) + bench.wait(LONGEST_WINDOW)
        refusals += sum(
            isinstance(a, ev.Send) and getattr(a.message, "reason", "") == "too many bids from this node"
            for a in actions
        )
    assert refusals == 0


def test_never_more_than_count_executions_are_accepted(bench):
    bench.add_nodes(A, B, C, D)
    bench.submit(job(2))
    for node in (A, B, C):
        bench.bid(node)
    assert sorted(bench.states().values()) == [S.BID_ACCEPTED] * 2 + [S.BID_REJECTED]
    assert sent(bench.bid(D)) == [(D, "bid_rejected")]
    assert sent(bench.bid(A, attempt=2)) in ([(A, "bid_rejected")],)


def test_one_node_fills_one_slot_only(bench):
    bench.add_nodes(A)
    bench.submit(job(2))
    bench.bid(A)
    assert sent(bench.bid(A, attempt=2)) == [(A, "bid_rejected")]


def test_without_a_node_the_job_is_queued_and_says_what_it_waits_for(bench):
    bench.submit(job())
    bench.wait(1)
    assert bench.job.state is JobState.QUEUED
    assert bench.job.message == "waiting for a node: no compute node is known"


def test_a_decline_is_remembered_with_its_reason(bench):
    bench.add_nodes(A)
    bench.submit(job())
    bench.receive(A, say.BidDeclined(job_id=JOB, round=1, reason="is busy", busy=True))
    assert bench.job.state is JobState.QUEUED
    assert bench.job.message == "waiting for a node: alice is busy"


def burst(bench: RequesterBench, names: range, answer_after: float) -> list[int]:
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
            actions = bench.handle(ev.TimePassed())
        elif submits and submits[0][0] <= bench.now:
            actions = bench.handle(ev.Submitted(JobID(submits.pop(0)[1]), job()))
        else:
            _, name, number = bids.pop(0)
            bid = say.Bid(
                job_id=JobID(name),
                execution_id=ExecutionID(f"e-{name}-{number}"),
                round=number,
                reserved_for=30,
            )
            actions = bench.receive(A, bid)
        for message in announced(actions):
            rounds[message.job_id] += 1
            bids.append((bench.now + answer_after, message.job_id, message.round))
    return list(rounds.values())


def test_the_window_follows_the_time_to_answer_so_that_jobs_are_announced_once(bench):
    bench.add_nodes(A, B)
    assert burst(bench, range(100), answer_after=0.05) == [1] * 100
    first = burst(bench, range(100, 200), answer_after=1.5)
    assert max(first) == 2
    assert burst(bench, range(200, 300), answer_after=1.5) == [1] * 100


def test_the_window_adapts_within_a_burst(bench):
    bench.add_nodes(A, B)
    rounds = burst(bench, range(200), answer_after=1.2)
    assert rounds == [2] + [1] * 199


def test_rounds_that_no_node_could_answer_do_not_change_the_pace(bench):
    bench.submit(job())
    bench.wait(20)
    bench.add_nodes(A, B)
    bench.handle(ev.Submitted(JobID("j-2"), job()))
    bench.wait(FIRST_WINDOW)
    assert bench.machine.jobs[JobID("j-2")].round.ends is None


def test_a_waiting_job_is_announced_soon_after_a_node_has_joined(bench):
    bench.add_nodes(A, B)
    bench.submit(job())
    for _ in range(8):
        bench.wait(10)
    bench.wait(1)
    news = bench.now
    bench.add_nodes(C)
    bench.wait(REANNOUNCE_AFTER_NEWS)
    assert bench.machine.jobs[JOB].round.began == pytest.approx(news + REANNOUNCE_AFTER_NEWS)


def closed(actions) -> list[str]:
    """The reasons with which all nodes together are told that no more bids are wanted."""
    return [
        action.message.reason
        for action in actions
        if isinstance(action, ev.Broadcast) and isinstance(action.message, say.JobClosed)
    ]


def told(actions) -> list[PeerID]:
    """The nodes that are told it one by one."""
    return [node for node, kind in sent(actions) if kind == "job_closed"]


def declined(node, *, busy: bool, round_number: int = 1) -> say.BidDeclined:
    return say.BidDeclined(job_id=JOB, round=round_number, reason="is busy", busy=busy)


def test_a_late_bid_between_two_rounds_is_accepted_at_once_and_the_others_hear_of_it(bench):
    bench.add_nodes(A, B)
    bench.submit(job())
    for node in (A, B):
        bench.receive(node, declined(node, busy=True))
    bench.wait(0.1)
    late = say.Bid(job_id=JOB, execution_id=execution_id(A), reserved_for=3.0, late=True)
    actions = bench.receive(A, late)
    assert sent(actions) == [(A, "bid_accepted"), (B, "job_closed")]
    assert closed(actions) == []


def test_nobody_is_told_that_a_job_is_placed_if_everybody_has_answered_and_nobody_may_bid_later(bench):
    bench.add_nodes(A, B)
    bench.submit(job())
    bench.receive(B, declined(B, busy=False))
    actions = bench.bid(A)
    assert (closed(actions), told(actions)) == ([], [])


def test_where_few_are_asked_and_answer_at_once_nobody_is_told_that_a_job_is_placed():
    bench = crowd()
    (first,) = announced(bench.submit(job()))
    one, two, three, four, *_ = asked(first)
    actions = bench.bid(one) + bench.bid(two) + bench.bid(three)
    assert (closed(actions), told(actions)) == ([], [])
    assert sent(bench.bid(four)) == [(four, "bid_rejected")]


def test_connected_nodes_that_inspect_inputs_are_told_that_a_job_is_placed():
    """The others bid in vain: that costs less than a broadcast to all."""
    bench = crowd()
    (first,) = announced(bench.submit(with_input()))
    one, two, three, four, five, *_ = asked(first)
    for node in (one, four, five):
        bench.handle(ev.NodeConnected(node))
    actions = bench.bid(one) + bench.bid(two) + bench.bid(three)
    assert (closed(actions), set(told(actions))) == ([], {four, five})


def test_a_node_that_remembers_a_job_in_vain_is_told_that_it_is_placed_once(bench):
    bench.add_nodes(A, B, C)
    bench.submit(job())
    bench.bid(A)
    assert told(bench.wait(FIRST_WINDOW)) == []
    assert told(bench.receive(B, declined(B, busy=True))) == [B]
    assert told(bench.receive(C, declined(C, busy=True))) == [C]


@pytest.mark.parametrize(("count", "all_are_told"), [(1, False), (100, True)])
def test_all_are_told_that_a_job_is_over_if_many_bids_might_come_in_vain(count, all_are_told):
    bench = crowd()
    bench.submit(job(count))
    actions = bench.handle(ev.CancelRequested(JOB, "changed my mind"))
    assert (closed(actions), told(actions)) == (["Stopped"] * all_are_told, [])


def test_where_more_are_asked_than_are_to_answer_the_connected_ones_are_told_that_a_job_is_placed():
    bench = crowd()
    (first,) = announced(bench.submit(job(100)))
    assert not first.answers_wanted
    nodes = asked(first)
    bench.handle(ev.NodeConnected(nodes[127]))
    actions = [action for node in nodes[:127] for action in bench.bid(node)]
    assert (closed(actions), told(actions)) == ([], [nodes[127]])


def test_all_are_told_that_a_job_is_over_for_which_no_node_was_known(bench):
    bench.submit(job())
    assert closed(bench.handle(ev.CancelRequested(JOB, "changed my mind"))) == ["Stopped"]


def test_a_late_bid_ends_a_long_round_in_which_nobody_had_room(bench):
    bench.add_nodes(*(PeerID(f"n-{number}") for number in range(40)))
    bench.submit(job())
    while bench.machine.jobs[JOB].round.number < 8:
        bench.wait(1)
    bench.wait(3)
    assert bench.machine.jobs[JOB].round.ends is not None
    late = say.Bid(job_id=JOB, execution_id=execution_id(A), reserved_for=3.0, late=True)
    assert sent(bench.receive(A, late)) == [(A, "bid_accepted")]


def test_late_bids_say_nothing_about_the_pace(bench):
    bench.add_nodes(A, B)
    bench.submit(job())
    for node in (A, B):
        bench.receive(node, declined(node, busy=True))
    bench.wait(0.3)
    assert bench.machine.jobs[JOB].round.number == 1
    bench.receive(A, say.Bid(job_id=JOB, execution_id=execution_id(A), reserved_for=3.0, late=True))
    bench.handle(ev.Submitted(JobID("j-2"), job()))
    ends = bench.machine.jobs[JobID("j-2")].round.ends
    assert ends == pytest.approx(bench.now + FIRST_WINDOW)


def test_rounds_repeat_at_growing_intervals(bench):
    rounds = announced(bench.submit(job())) + announced(bench.wait(10))
    assert [announcement.round for announcement in rounds] == list(range(1, len(rounds) + 1))
    assert 3 <= len(rounds) <= 6


def test_a_new_node_gets_an_early_round(bench):
    bench.submit(job())
    bench.wait(200)
    bench.add_nodes(A)
    assert announced(bench.wait(0.6))
    assert sent(bench.bid(A)) == [(A, "bid_accepted")]


def test_the_queue_time_out_fails_the_job_with_the_reasons(bench):
    bench.add_nodes(A)
    engine = {"Type": "wasm", "Params": {"EntryModule": "/a"}}
    bench.submit(job(Tasks=[{"Engine": engine, "Timeouts": {"QueueTimeout": 5}}]))
    bench.wait(5.1)
    assert bench.job.state is JobState.FAILED
    assert "within the queue timeout of 5 s" in bench.job.message
    assert "alice has no wasm engine" in bench.job.message


def test_a_bid_that_expires_is_not_accepted_later(bench):
    bench.add_nodes(A)
    bench.submit(job(Deal={"MinBids": 2}))
    bench.bid(A)
    bench.wait(31)
    assert bench.states() == {A: S.BID_REJECTED}


def test_a_round_ends_within_half_of_the_shortest_reservation(bench):
    """Later rounds are long, and nodes hold room only for seconds."""
    bench.add_nodes(A, B)
    bench.submit(job())
    bench.wait(40)
    announced_again = bench.machine.jobs[JOB].round
    while announced_again.ends is None or announced_again.ends - bench.now < 10:
        bench.wait(0.5)
    bid = say.Bid(job_id=JOB, execution_id="e-late", reserved_for=3.0, round=announced_again.number)
    bench.receive(A, bid)
    bench.wait(1.5)
    assert bench.machine.jobs[JOB].executions["e-late"].state == S.BID_ACCEPTED


# --- in a large network -----------------------------------------------------------------------

MANY = [PeerID(f"n-{number}") for number in range(1000)]
INPUT = {"Target": "/inputs", "Source": {"Type": "ipfs", "Params": {"CID": "bafkqaaa"}}}


def crowd() -> RequesterBench:
    """A requester that knows a thousand nodes."""
    bench = RequesterBench()
    able = ComputeInfo(engines=("noop",), storage_sources=("ipfs",), publishers=("ipfs",), max_capacity=ROOM)
    for node in MANY:
        bench.handle(ev.NodeInfoReceived(NodeInfo(id=node, compute=able)))
    return bench


def with_input() -> JobSpec:
    return job(Tasks=[{"Engine": {"Type": "noop"}, "InputSources": [INPUT]}])


def asked(announcement: say.JobAnnounced) -> list[PeerID]:
    return [node for node in MANY if is_drawn(announcement, node)]


def test_a_few_of_many_nodes_are_asked_and_two_bids_end_the_round():
    bench = crowd()
    (announcement,) = announced(bench.submit(job()))
    nodes = asked(announcement)
    assert (len(nodes), announcement.answers_wanted, announcement.eligible) == (6, True, 1000)
    assert sent(bench.bid(nodes[0])) == []
    assert len(sent(bench.bid(nodes[1]))) == 2
    assert sent(bench.bid(nodes[2])) == [(nodes[2], "bid_rejected")]


def test_when_all_that_were_asked_have_declined_more_are_asked_at_once_until_everybody_is():
    bench = crowd()
    announcements = announced(bench.submit(job()))
    for number, node in enumerate(asked(announcements[0])):
        assert number < 6
        bench.receive(node, declined(node, busy=False))
    announcements += announced(bench.wait(0.01))
    announcements += announced(bench.wait(4))
    assert [len(asked(each)) for each in announcements[:3]] == [6, 72, 864]
    assert len(asked(announcements[3])) == 1000
    assert [each.answers_wanted for each in announcements[:3]] == [True, True, False]
    assert bench.machine.jobs[JOB].round.began < 4


def test_nodes_may_take_their_time_to_inspect_inputs_before_others_are_asked():
    bench = crowd()
    (first,) = announced(bench.submit(with_input()))
    assert announced(bench.wait(INSPECTION_PATIENCE - 0.1)) == []
    for node in asked(first):
        bench.receive(node, declined(node, busy=False))
    (second,) = announced(bench.wait(0))
    assert len(asked(second)) == 96


def test_a_bid_that_comes_while_others_inspect_is_taken_at_once():
    bench = crowd()
    bench.submit(with_input())
    bench.wait(1)
    assert bench.machine.jobs[JOB].round.ends is None
    assert sent(bench.bid(MANY[0])) == [(MANY[0], "bid_accepted")]


def test_after_a_failure_other_nodes_are_asked():
    bench = crowd()
    (first,) = announced(bench.submit(job()))
    for node in asked(first)[:2]:
        bench.bid(node)
    (ran,) = (node for node, state in bench.states().items() if state is S.BID_ACCEPTED)
    bench.fail(ran)
    (again,) = announced(bench.wait(2))[:1]
    assert len(set(asked(again)) - {ran}) == 6


def test_a_round_waits_for_nodes_that_are_asked_and_not_connected():
    bench = crowd()
    for node in MANY:
        bench.handle(ev.NodeDisconnected(node))
    (first,) = announced(bench.submit(job(2, Deal={"MinBids": 2})))
    one, other, *_ = asked(first)
    assert sent([*bench.bid(one), *bench.bid(other)]) == []
    assert [kind for _, kind in sent(bench.wait(FIRST_WINDOW))] == ["bid_accepted", "bid_accepted"]


def partitions_of(actions):
    """Which partition each accepted bid is to do."""
    accepted = [each for each in actions if isinstance(getattr(each, "message", None), say.BidAccepted)]
    return {each.to: each.message.partition for each in accepted}


def test_each_execution_is_told_which_partition_it_does(bench):
    bench.add_nodes(A, B)
    bench.submit(job(2))
    bench.bid(A)
    assert partitions_of(bench.bid(B)) == {A: 0, B: 1}


def test_executions_whose_results_are_compared_do_the_same(bench):
    bench.add_nodes(A, B)
    bench.submit(job(2, verifier="deterministic"))
    bench.bid(A)
    assert partitions_of(bench.bid(B)) == {A: 0, B: 0}


def test_what_takes_the_place_of_a_failed_execution_does_its_partition(bench):
    bench.add_nodes(A, B, C)
    bench.submit(job(2))
    for node in (A, B):
        bench.bid(node)
    bench.wait(1)
    bench.fail(B)
    bench.wait(1.5)
    actions = bench.bid(C) + bench.wait(3)
    assert partitions_of(actions) == {C: 1}


def late_bid(bench, node, number):
    message = say.Bid(
        job_id=JOB, execution_id=execution_id(node, number), round=1, reserved_for=30, late=True
    )
    return bench.receive(node, message)


def test_between_a_failure_and_the_next_announcement_only_other_nodes_are_accepted(bench):
    """Else a node that fails each run at once would use up all attempts before another is asked."""
    bench.add_nodes(A, B)
    bench.submit(job())
    bench.bid(A)
    bench.wait(1)
    bench.fail(A)
    assert sent(late_bid(bench, A, 2)) == [(A, "bid_rejected")]
    assert sent(late_bid(bench, B, 1)) == [(B, "bid_accepted")]


def test_of_a_divided_job_a_node_is_refused_only_what_it_has_failed(bench):
    bench.add_nodes(A)
    bench.submit(job(2, Deal={"Replicas": 1}))
    bench.bid(A)
    bench.wait(0.5)
    bench.fail(A)
    bench.wait(40)
    bench.machine.jobs[JOB].retry_at = bench.now + 5
    assert bench.machine.jobs[JOB].round.ends is None
    assert sent(late_bid(bench, A, 2)) == [(A, "bid_accepted")]
    assert bench.machine.jobs[JOB].executions[execution_id(A, 2)].slot == 1


def test_bids_of_nodes_that_failed_the_job_leave_others_the_time_of_a_first_round(bench):
    bench.add_nodes(A, B, C, D)
    bench.submit(job())
    bench.bid(A)
    bench.bid(B)
    bench.fail(next(node for node, state in bench.states().items() if state is S.BID_ACCEPTED))
    bench.wait(1)
    (again,) = [node for node in (A, B) if bench.states()[node] is S.FAILED]
    assert sent(bench.bid(again, load=0.0, attempt=2)) == []
    assert sent(bench.bid(C, load=0.9)) == []
    assert sent(bench.bid(D, load=0.8)) == [(D, "bid_accepted"), (again, "bid_rejected"), (C, "bid_rejected")]


def test_where_no_other_bids_such_a_bid_is_accepted_after_that_time_in_any_round(bench):
    bench.add_nodes(A, B)
    bench.submit(job())
    bench.bid(A)
    bench.wait(1)
    bench.fail(A)
    bench.wait(30)
    while bench.machine.jobs[JOB].round.ends is None:
        bench.wait(0.1)
    assert bench.machine.jobs[JOB].round.number > 3
    actions = bench.bid(A, attempt=2) + bench.wait(LONGEST_FIRST_WINDOW)
    assert sent(actions) == [(A, "bid_accepted")]


def test_a_node_that_hands_everything_back_does_not_come_before_one_that_has_failed_once(bench):
    """What is handed back is no attempt: the job would never end, nor get to another node."""
    bench.add_nodes(A, B)
    bench.submit(job())
    bench.bid(B)
    bench.wait(1)
    bench.fail(B)
    for attempt in (1, 2):
        bench.wait(40)
        bench.bid(A, attempt=attempt)
        bench.wait(LONGEST_FIRST_WINDOW)
        drained = say.ExecutionFailed(
            job_id=JOB, execution_id=execution_id(A, attempt), reason="it stops", drained=True
        )
        assert bench.states()[A] is S.BID_ACCEPTED
        bench.receive(A, drained)
    bench.wait(0.1)
    bench.bid(A, load=0.0, attempt=3)
    actions = bench.bid(B, load=0.9, attempt=2) + bench.wait(LONGEST_FIRST_WINDOW)
    assert (B, "bid_accepted") in sent(actions)
