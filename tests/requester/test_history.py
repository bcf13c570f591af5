"""What the history of a job tells (`history`), in which order, and how much of it."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.execution import Proposal
from bacalhau_p2p.model.history import EventKind as K
from bacalhau_p2p.model.state import ComputeState, ExecutionState, JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester import history
from bacalhau_p2p.requester.history import (
    EVENTS_PER_SLOT,
    KINDS,
    MAX_BIDDING_EVENTS,
    MAX_BIDDING_TEXT,
    MAX_EVENTS,
    MAX_PREPARATION_EVENTS,
    MAX_TEXT,
    admitted,
    bid_text,
    fetching_text,
    run_text,
    submitted_text,
)
from bacalhau_p2p.requester.supervision import MAX_STEPS_TOLD
from tests.support.machines.requester_bench import (
    JOB,
    A,
    B,
    C,
    RequesterBench,
    S,
    execution_id,
    heartbeat_of,
    job,
    restarted,
    result_cid,
    run_on,
    told,
)

LIMIT = MAX_EVENTS + EVENTS_PER_SLOT
"""Events of a job with one slot."""


def lines(bench: RequesterBench) -> list[tuple[K, str, str]]:
    """Kind, state and text of each event."""
    return [(event.kind, event.state, event.message) for event in told(bench)]


def test_a_job_that_goes_well_is_told_from_submission_to_end(bench):
    run_on(bench, job(), A)
    bench.receive(A, heartbeat_of(A))
    bench.propose(A)
    bench.judge(accepted=[A])
    bench.publish(A)
    assert lines(bench) == [
        (K.SUBMITTED, "Pending", "submitted; for 1 node"),
        (K.ANNOUNCED, "", "announced; round 1: 1 node could run it"),
        (K.BID, "BidReceived", "bid; its load is 0 %"),
        (K.ACCEPTED, "BidAccepted", "accepted; preparing"),
        (K.RUNNING, "Running", "a node has taken it"),
        (K.RUNNING, "BidAccepted", "running"),
        (K.PROPOSED, "ResultProposed", "ran for 0.0 s"),
        (K.VERIFIED, "ResultAccepted", "its exit code is 0"),
        (K.PUBLISHED, "Completed", f"its result is {result_cid('right')}"),
        (K.ENDED, "Completed", "1 result published"),
    ]
    assert [event.number for event in told(bench)] == list(range(1, 11))
    about = {(event.execution_id, event.node_id) for event in told(bench) if event.execution_id}
    assert about == {(execution_id(A), A)}


def test_the_end_of_a_job_is_told_after_those_of_its_executions(bench):
    run_on(bench, job(2), A, B)
    bench.handle(ev.CancelRequested(JOB, "enough"))
    assert lines(bench)[-3:] == [
        (K.CANCELLED, "Cancelled", "the job is stopped"),
        (K.CANCELLED, "Cancelled", "the job is stopped"),
        (K.ENDED, "Stopped", "enough"),
    ]


def test_bids_and_refusals_are_told_with_their_reasons(bench):
    bench.add_nodes(A, B, C)
    bench.submit(job())
    bench.bid(A)
    declined = say.BidDeclined(job_id=JOB, round=1, reason="has no room for 4 cores", busy=True)
    bench.receive(B, declined)
    bench.receive(B, declined)
    bench.bid(C, load=0.5)
    late = [
        (event.kind, event.node_id, event.message)
        for event in told(bench)
        if event.kind in (K.DECLINED, K.BID_REJECTED)
    ]
    assert late == [
        (K.DECLINED, B, "declined; has no room for 4 cores"),
        (K.BID_REJECTED, C, "other bids were better"),
    ]
    bench.bid(C, attempt=2)
    assert lines(bench)[-1] == (K.BID_REJECTED, "", "its bid was not needed: no slot is open")


def test_another_attempt_is_told_with_its_reason(bench):
    run_on(bench, job(), A)
    bench.fail(A)
    assert lines(bench)[-2:] == [
        (K.FAILED, "Failed", "no such image"),
        (K.RETRIED, "", "attempt 2 of 3 in 1 s, because of: no such image"),
    ]


def test_a_result_that_is_rejected_is_told_with_the_reason(bench):
    run_on(bench, job(2, verifier="deterministic"), A, B)
    bench.propose(A)
    bench.propose(B, "wrong")
    bench.judge(accepted=[], rejected=[A, B], reason="no 2 results are equal")
    assert lines(bench)[-3:] == [
        (K.REJECTED, "ResultRejected", "no 2 results are equal"),
        (K.REJECTED, "ResultRejected", "no 2 results are equal"),
        (K.ENDED, "Failed", "no 2 results are equal"),
    ]


def test_a_restarted_requester_goes_on_with_the_next_number(bench):
    run_on(bench, job(), A)
    before = told(bench)
    bench = restarted(bench)
    bench.propose(A)
    after = told(bench)
    assert after[: len(before)] == before
    assert [event.number for event in after] == list(range(1, len(after) + 1))
    assert [event.kind for event in after[len(before) :]] == [K.RESUMED, K.PROPOSED]


def test_a_message_that_is_refused_adds_nothing(bench):
    run_on(bench, job(), A)
    before = told(bench)
    bench.propose(B)
    bench.receive(B, heartbeat_of(A))
    assert told(bench) == before


def test_every_state_of_an_execution_is_told_as_something():
    assert KINDS.keys() == set(ExecutionState)


@pytest.mark.parametrize(
    ("kind", "number", "kept"),
    [
        (K.BID, MAX_BIDDING_EVENTS + EVENTS_PER_SLOT // 2, K.BID),
        (K.BID, MAX_BIDDING_EVENTS + EVENTS_PER_SLOT // 2 + 1, None),
        (K.FAILED, MAX_BIDDING_EVENTS + EVENTS_PER_SLOT, K.FAILED),
        (K.FAILED, LIMIT - 1, K.FAILED),
        (K.FAILED, LIMIT, K.OMITTED),
        (K.FAILED, LIMIT + 1, None),
        (K.ENDED, LIMIT, K.ENDED),
        (K.ENDED, LIMIT + 1, K.ENDED),
    ],
)
def test_a_history_is_bounded_and_leaves_room_for_its_end(kind, number, kept):
    assert admitted(kind, number, 1) is kept


def alternate(bench, times: int) -> list[ev.Action]:
    """A node says again and again that it prepares an execution, and that its run has begun."""
    preparing = say.ExecutionProgress(execution_id=execution_id(A), state=ComputeState.PREPARING)
    steps = [heartbeat_of(A), say.Heartbeat(executions=(preparing,))] * times
    return [action for step in steps for action in bench.receive(A, step)]


def test_a_node_that_alternates_is_told_and_stored_a_few_times_only(bench):
    run_on(bench, job(), A)
    actions = alternate(bench, times=100)
    assert sum(isinstance(action, ev.Store) for action in actions) <= MAX_STEPS_TOLD
    assert sum(event.kind in (K.PREPARING, K.RUNNING) for event in told(bench)) <= MAX_STEPS_TOLD + 1


def test_an_execution_counts_once_in_a_heartbeat(bench):
    """Nine thousand lines about one held the requester for 0.6 s."""
    run_on(bench, job(), A)
    states = (ComputeState.PREPARING, ComputeState.RUNNING) * 4500
    lines = [say.ExecutionProgress(execution_id=execution_id(A), state=state) for state in states]
    actions = bench.receive(A, say.Heartbeat(executions=tuple(lines)))
    assert len(actions) <= 2
    assert bench.machine.jobs[JOB].executions[execution_id(A)].message == "running"


def test_no_more_events_than_the_limit_are_kept_and_the_end_is_told(bench, monkeypatch):
    monkeypatch.setattr(history, "MAX_EVENTS", limit := 10)
    monkeypatch.setattr(history, "EVENTS_PER_SLOT", 0)
    run_on(bench, job(), A)
    alternate(bench, times=10)
    bench.handle(ev.CancelRequested(JOB, "enough"))
    events = told(bench)
    assert [event.number for event in events] == list(range(1, limit + 2))
    assert (events[-2].kind, events[-2].message) == (K.OMITTED, "further events are not recorded")
    assert (events[-1].kind, events[-1].state) == (K.ENDED, JobState.STOPPED)


def test_a_submission_tells_how_many_nodes_it_is_for():
    assert submitted_text(job(3), ()) == "submitted; for 3 nodes"
    assert submitted_text(job(2, Deal={"Replicas": 1}), ()) == "submitted; divided into 2 partitions"
    assert submitted_text(job(Type="ops"), ()) == "submitted; for all nodes that match"


def test_a_bid_tells_what_it_is_ranked_by():
    offer = say.Bid(job_id=JOB, execution_id=execution_id(A), round=1, load=0.123, reserved_for=9.0)
    assert bid_text(offer) == "bid; its load is 12 %"
    offer = offer.model_copy(update={"input_bytes": 10_000_000, "local_input_bytes": 3_000_000})
    assert bid_text(offer) == "bid; its load is 12 %; has 3 MB of 10 MB of inputs"


def test_a_run_tells_how_long_it_took_by_its_own_account():
    def ran(started: float, ended: float) -> str:
        made = Proposal(
            job_id=JOB,
            execution_id=execution_id(A),
            node_id=A,
            result_cid="bafkqaaa",
            started=started,
            ended=ended,
        )
        return run_text(made)

    assert ran(100.0, 101.5) == "ran for 1.5 s"
    assert ran(100.0, 5.0) == "ran for 0.0 s"
    assert ran(0.0, 1e10) == "ran for 366 d 0 h"


def test_what_is_missing_in_inputs_is_told_with_the_submission(bench):
    bench.handle(ev.Submitted(JOB, job(), ["/inputs: pipe: not a file, folder or link", "/inputs: 3 more"]))
    assert told(bench)[0].message == (
        "submitted; for 1 node; left out of its inputs: "
        "/inputs: pipe: not a file, folder or link; /inputs: 3 more"
    )


def fetching(*amounts: tuple[int, int | None]) -> say.Heartbeat:
    inputs = tuple(say.InputProgress(done=done, total=total) for done, total in amounts)
    line = say.ExecutionProgress(execution_id=execution_id(A), state=ComputeState.PREPARING, inputs=inputs)
    return say.Heartbeat(executions=(line,))


def test_how_much_of_the_inputs_is_fetched_is_told_and_stored_with_the_history_only(bench):
    run_on(bench, job(), A)
    bench.receive(A, fetching((10**9, 5 * 10**9)))
    actions = bench.receive(A, fetching((2 * 10**9, 5 * 10**9)))
    assert [type(action) for action in actions] == [ev.Append]
    assert [(e.kind, e.message) for e in told(bench)][-3:] == [
        (K.PREPARING, "preparing"),
        (K.PREPARING, "fetching inputs: 1 GB of 5 GB"),
        (K.PREPARING, "fetching inputs: 2 GB of 5 GB"),
    ]


def test_what_else_a_preparation_waits_for_is_told(bench):
    run_on(bench, job(), A)

    def line(state: ComputeState) -> say.Heartbeat:
        message = "compiling app.wasm (26 MB)"
        told = say.ExecutionProgress(execution_id=execution_id(A), state=state, message=message)
        return say.Heartbeat(executions=(told,))

    bench.receive(A, line(ComputeState.PREPARING))
    bench.receive(A, line(ComputeState.RUNNING))
    assert [(e.kind, e.message) for e in told(bench)][-3:] == [
        (K.PREPARING, "preparing"),
        (K.PREPARING, "compiling app.wasm (26 MB)"),
        (K.RUNNING, "running"),
    ]


def test_a_node_tells_a_few_times_only_how_much_it_has_fetched(bench):
    run_on(bench, job(), A)
    for done in range(100):
        bench.receive(A, fetching((done, None)))
    assert sum("fetching" in event.message for event in told(bench)) == MAX_PREPARATION_EVENTS


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ([(5, 10)], "5 bytes of 10 bytes"),
        ([(5, None)], "5 bytes"),
        ([(5, 10), (20, 20)], "25 bytes of 30 bytes (/0 5 bytes of 10 bytes)"),
        ([(5, 10), (1, None)], "6 bytes (/0 5 bytes of 10 bytes, /1 1 byte)"),
        ([(5, 5), (6, 6)], "11 bytes of 11 bytes"),
        ([(0, 1)] * 7, "0 bytes of 7 bytes (" + ", ".join(f"/{n} 0 bytes of 1 byte" for n in range(5)) + ")"),
    ],
)
def test_the_text_names_the_inputs_that_are_not_here_yet(inputs, text):
    told = [say.InputProgress(done=done, total=total) for done, total in inputs]
    assert fetching_text(told, [f"/{n}" for n in range(9)]) == f"fetching inputs: {text}"


def test_inputs_that_the_job_does_not_have_are_not_named():
    told = [say.InputProgress(done=0, total=1)] * 3
    assert fetching_text(told, ["/data"]) == "fetching inputs: 0 bytes of 3 bytes"


def test_texts_of_strangers_are_cut(bench):
    run_on(bench, job(), A)
    bench.receive(A, say.ExecutionFailed(job_id=JOB, execution_id=execution_id(A), reason="x" * 4096))
    bench.add_nodes(B)
    bench.receive(B, say.BidDeclined(job_id=JOB, round=1, reason="y" * 4096))
    lengths = {event.kind: len(event.message) for event in told(bench)}
    assert (lengths[K.FAILED], lengths[K.DECLINED]) == (MAX_TEXT, MAX_BIDDING_TEXT)
    assert bench.states()[A] is S.FAILED
