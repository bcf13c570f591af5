"""Jobs that are divided: slots, which bid gets which partition, and how each goes its own way: `slots`."""

from __future__ import annotations

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.ranking import RankedBid
from bacalhau_p2p.requester.slots import assign
from tests.support.machines.requester_bench import (
    JOB,
    A,
    B,
    C,
    S,
    announced,
    execution_id,
    job,
    restarted,
    sent,
    told,
)
from tests.support.results import plaintext_of, result_cid, results_folder


def divided(count, replicas=1, **extra):
    return job(count, Deal={"Replicas": replicas}, **extra)


def offer(bench, node, number, *, more=0):
    """The bid of this number of a node."""
    current = bench.machine.jobs[JOB].round.number
    message = say.Bid(
        job_id=JOB, execution_id=execution_id(node, number), round=current, reserved_for=30, more=more
    )
    return bench.receive(node, message)


def placed(bench):
    """The node and the partition of each execution that fills a slot."""
    entry = bench.machine.jobs[JOB]
    return sorted((e.node_id, entry.partition_of(e)) for e in entry.placed_executions())


def finish(bench, name: ExecutionID, result="right"):
    """Propose, accept and publish the result of an execution."""
    entry = bench.machine.jobs[JOB]
    execution = entry.executions[name]
    group = entry.slots[execution.slot].group
    plaintext = plaintext_of(results_folder(result), JOB, name, execution.node_id)
    bench.receive(execution.node_id, say.ResultProposed(job_id=JOB, execution_id=name, sealed=plaintext))
    bench.handle(ev.Verified(JOB, ev.Verdict(accepted=frozenset({name}), rejected=frozenset()), group))
    published = PublishedResult(cid=result_cid(result), location=SpecConfig(type="ipfs"))
    bench.receive(execution.node_id, say.ResultPublished(job_id=JOB, execution_id=name, result=published))


def test_an_announcement_says_how_often_each_node_may_bid(bench):
    bench.add_nodes(A, B, C)
    (message,) = announced(bench.submit(divided(8)))
    assert (message.bids_wanted, message.bids_each) == (11, 4)


def test_a_job_that_is_not_divided_gets_one_bid_of_each_node(bench):
    bench.add_nodes(A, B, C)
    (message,) = announced(bench.submit(job(8)))
    assert message.bids_each == 0


def test_a_round_waits_for_all_the_bids_of_a_node(bench):
    bench.add_nodes(A)
    bench.submit(divided(3))
    assert sent(offer(bench, A, 1, more=1)) == []
    assert sent(offer(bench, A, 2)) == [(A, "bid_accepted"), (A, "bid_accepted")]
    assert placed(bench) == [(A, 0), (A, 1)]


def test_each_node_gets_a_partition_before_any_gets_a_second_one(bench):
    bench.add_nodes(A, B)
    bench.submit(divided(3))
    for number in (1, 2):
        offer(bench, A, number, more=2 - number)
    for number in (1, 2):
        offer(bench, B, number, more=2 - number)
    assert {node for node, _ in placed(bench)} == {A, B}
    assert sorted(partition for _, partition in placed(bench)) == [0, 1, 2]


def test_more_are_asked_for_at_once_when_a_round_has_placed_some(bench):
    bench.add_nodes(A)
    bench.submit(divided(2))
    actions = offer(bench, A, 1) + bench.wait(0.1)
    assert [message.round for message in announced(actions)] == [2]
    assert sent(offer(bench, A, 2)) == [(A, "bid_accepted"), (A, "job_closed")]


def test_no_node_runs_the_same_partition_twice_where_several_run_each(bench):
    bench.add_nodes(A, B)
    bench.submit(divided(2, 2, verifier="deterministic"))
    for node in (A, B):
        for number in (1, 2, 3):
            offer(bench, node, number, more=3 - number)
    assert placed(bench) == [(A, 0), (A, 1), (B, 0), (B, 1)]
    assert bench.job.state is JobState.RUNNING


def test_only_proposals_of_the_same_partition_are_judged_together(bench):
    bench.add_nodes(A, B)
    bench.submit(divided(2, 2, verifier="deterministic"))
    for node in (A, B):
        for number in (1, 2):
            offer(bench, node, number, more=2 - number)
    entry = bench.machine.jobs[JOB]
    of_second = [e for e in entry.placed_executions() if entry.partition_of(e) == 1]
    asked = []
    for execution in of_second:
        plaintext = plaintext_of(results_folder("second"), JOB, execution.id, execution.node_id)
        message = say.ResultProposed(job_id=JOB, execution_id=execution.id, sealed=plaintext)
        asked += [a for a in bench.receive(execution.node_id, message) if isinstance(a, ev.Verify)]
    (verify,) = asked
    assert verify.group == 1
    assert {proposal.execution_id for proposal in verify.proposals} == {e.id for e in of_second}


def test_each_partition_is_published_alone_and_the_job_is_done_with_the_last(bench):
    bench.add_nodes(A)
    bench.submit(divided(2))
    offer(bench, A, 1, more=1)
    offer(bench, A, 2)
    finish(bench, execution_id(A, 1), "first")
    assert bench.job.state is JobState.RUNNING
    finish(bench, execution_id(A, 2), "second")
    assert (bench.job.state, bench.job.message) == (
        JobState.COMPLETED,
        "2 results of 2 partitions published",
    )


def test_equal_results_of_other_partitions_take_no_place(bench):
    """A partition whose node fails is run again, though another one came to the same."""
    bench.add_nodes(A, B)
    bench.submit(divided(2, 1, verifier="deterministic"))
    offer(bench, A, 1)
    offer(bench, B, 1)
    finish(bench, execution_id(A, 1), "same")
    name = execution_id(B, 1)
    plaintext = plaintext_of(results_folder("same"), JOB, name, B)
    bench.receive(B, say.ResultProposed(job_id=JOB, execution_id=name, sealed=plaintext))
    bench.fail(B)
    assert len(bench.machine.jobs[JOB].open_slots) == 1


def test_a_partition_that_failed_goes_to_another_node_and_the_others_go_on(bench):
    bench.add_nodes(A, B)
    bench.submit(divided(2))
    offer(bench, A, 1)
    offer(bench, B, 1)
    ((_, lost),) = [each for each in placed(bench) if each[0] == B]
    bench.fail(B)
    bench.wait(1.5)
    offer(bench, B, 2)
    offer(bench, A, 2)
    bench.wait(1)
    assert placed(bench) == [(A, 1 - lost), (A, lost)]


def test_the_message_names_the_partition_that_has_no_attempt_left(bench):
    bench.add_nodes(A)
    bench.submit(divided(2))
    offer(bench, A, 1, more=1)
    offer(bench, A, 2)
    finish(bench, execution_id(A, 1))
    for attempt in (2, 3, 4):
        bench.fail(A, attempt=attempt)
        bench.wait(6)
        offer(bench, A, attempt + 1)
        bench.wait(1)
    assert bench.job.message == "partition 1 of 2: no such image (attempt 3 of 3)"
    assert bench.states()[A] is not S.COMPLETED
    assert bench.machine.jobs[JOB].executions[execution_id(A, 1)].state is S.COMPLETED


def test_the_history_of_a_divided_job_names_the_partition(bench):
    bench.add_nodes(A)
    bench.submit(divided(2))
    offer(bench, A, 1, more=1)
    offer(bench, A, 2)
    finish(bench, execution_id(A, 1))
    bench.fail(A, attempt=2)
    texts = [event.message for event in told(bench) if event.execution_id]
    begins = [text.partition(":")[0] for text in texts if text.startswith("partition")]
    assert begins == ["partition 0", "partition 1", *["partition 0"] * 3, "partition 1"]
    assert texts[-1] == "partition 1: no such image"


def test_partitions_wait_as_long_as_others_of_the_job_run(bench):
    bench.add_nodes(A)
    task = {"Engine": {"Type": "noop"}, "Timeouts": {"QueueTimeout": 30}}
    bench.submit(divided(2, Tasks=[task]))
    offer(bench, A, 1)
    for _ in range(10):
        bench.wait(10)
        running = say.ExecutionProgress(execution_id=execution_id(A, 1), state="Running")
        bench.receive(A, say.Heartbeat(executions=(running,)))
    assert bench.job.state is JobState.RUNNING
    finish(bench, execution_id(A, 1))
    bench.wait(29)
    assert bench.job.state is JobState.RUNNING
    bench.wait(2)
    assert bench.job.state is JobState.FAILED


def test_a_restarted_requester_goes_on_with_the_partitions_that_are_left(bench):
    bench.add_nodes(A)
    bench.submit(divided(3))
    offer(bench, A, 1, more=1)
    offer(bench, A, 2)
    finish(bench, execution_id(A, 1))
    again = restarted(bench, [A, B])
    assert [slot.group for slot in again.machine.jobs[JOB].open_slots] == [2]
    offer(again, B, 1)
    again.wait(1)
    assert placed(again) == [(A, 0), (A, 1), (B, 2)]


def test_a_node_that_bids_in_vain_for_ever_is_refused(bench):
    bench.add_nodes(A, B)
    bench.submit(job(2, Deal={"Replicas": 1, "MinBids": 5}))
    actions = []
    for attempt in range(1, 200):
        actions += offer(bench, A, attempt) + bench.wait(1)
    rejected = [
        each.message.reason for each in actions if isinstance(getattr(each, "message", 0), say.BidRejected)
    ]
    assert rejected[0] == "only 1 of 5 bids came in one round"
    assert rejected[-1] == "too many bids from this node"


def test_a_node_with_a_penalty_gets_what_the_others_leave(bench):
    bench.add_nodes(A, B)
    bench.submit(divided(4))
    ranked = [RankedBid(execution_id(A, number), A, 0.0, penalised=True) for number in range(3)]
    ranked += [RankedBid(execution_id(B, number), B, 0.5) for number in range(3)]
    chosen = assign(bench.machine.jobs[JOB], ranked)
    assert [bid.node for _, bid in chosen] == [B, B, B, A]
