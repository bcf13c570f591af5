"""When an execution is lost because its node is silent: `liveness` and `supervision`."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.execution_transitions import RETRY_PAUSES
from bacalhau_p2p.requester.liveness import (
    FORGET_DISCONNECTED,
    LOST_AFTER_DISCONNECT,
    LOST_AFTER_SURVIVING,
    LOST_WITHOUT_REPLACEMENT,
    MAX_DISCONNECTED,
    Liveness,
)
from tests.support.machines.requester_bench import (
    JOB,
    A,
    B,
    RequesterBench,
    S,
    announced,
    execution_id,
    heartbeat_of,
    job,
    restarted,
    sent,
)


def test_an_execution_is_lost_when_its_node_sends_no_heartbeats(bench):
    bench.add_nodes(A, B)
    bench.submit(job())
    bench.bid(A)
    bench.wait(1)
    for _ in range(10):
        bench.wait(5)
        bench.receive(A, heartbeat_of(A))
    assert bench.states() == {A: S.BID_ACCEPTED}
    actions = bench.wait(21)
    assert bench.states()[A] is S.LOST
    assert (A, "cancel_execution") in sent(actions)
    assert announced(actions)


def test_a_broken_connection_loses_the_execution_sooner_unless_it_comes_back(bench):
    bench.add_nodes(A, B)
    bench.submit(job())
    bench.bid(A)
    bench.wait(1)
    bench.handle(ev.NodeDisconnected(A))
    bench.wait(LOST_AFTER_DISCONNECT / 2)
    bench.handle(ev.NodeConnected(A))
    bench.wait(LOST_AFTER_DISCONNECT)
    assert bench.states() == {A: S.BID_ACCEPTED}
    bench.handle(ev.NodeDisconnected(A))
    bench.wait(LOST_AFTER_DISCONNECT + 0.1)
    assert bench.states() == {A: S.LOST}


def test_an_execution_is_kept_longer_while_no_other_node_can_run_it(bench):
    bench.add_nodes(A, B)
    bench.submit(job())
    bench.bid(A)
    bench.wait(1)
    bench.handle(ev.NodeDisconnected(A))
    bench.handle(ev.NodeDisconnected(B))
    bench.wait(LOST_WITHOUT_REPLACEMENT - 5)
    assert bench.states() == {A: S.BID_ACCEPTED}
    assert bench.job.message == (
        f"waiting for node {A[-8:]}, which is unreachable: no other node can run the job"
    )
    bench.handle(ev.NodeConnected(A))
    bench.receive(A, heartbeat_of(A))
    assert (bench.states(), bench.job.message) == ({A: S.BID_ACCEPTED}, "")
    bench.handle(ev.NodeDisconnected(A))
    bench.wait(LOST_WITHOUT_REPLACEMENT + 1)
    assert bench.states() == {A: S.LOST}
    assert bench.job.state is JobState.QUEUED
    assert "lost contact" in bench.job.message


def test_a_job_waits_for_a_silent_node_whatever_its_other_nodes_say(bench):
    bench.add_nodes(A, B)
    bench.submit(job(count=2))
    bench.bid(A)
    bench.bid(B)
    bench.wait(1)
    bench.handle(ev.NodeDisconnected(A))
    bench.wait(LOST_AFTER_DISCONNECT + 5)
    waiting = f"waiting for node {A[-8:]}, which is unreachable: no other node can run the job"
    assert (bench.states(), bench.job.message) == ({A: S.BID_ACCEPTED, B: S.BID_ACCEPTED}, waiting)
    bench.receive(B, heartbeat_of(B))
    assert bench.job.message == waiting
    bench.handle(ev.NodeConnected(A))
    bench.receive(A, heartbeat_of(A))
    assert bench.job.message == ""


def test_the_first_new_node_replaces_one_that_is_waited_for(bench):
    bench.add_nodes(A)
    bench.submit(job())
    bench.bid(A)
    bench.handle(ev.NodeDisconnected(A))
    bench.wait(LOST_AFTER_DISCONNECT + 5)
    assert bench.states() == {A: S.BID_ACCEPTED}
    bench.add_nodes(B)
    assert announced(bench.wait(0.1))
    assert bench.states() == {A: S.LOST}


def lose_contact(bench: RequesterBench, *, outlives: bool = True) -> None:
    """A runs the job, B could, and the connection to A breaks."""
    bench.add_nodes(A, B)
    bench.submit(job())
    bench.bid(A, outlives=outlives)
    bench.wait(1)
    bench.receive(A, heartbeat_of(A))
    bench.handle(ev.NodeDisconnected(A))


def test_a_run_that_outlives_its_node_is_kept_though_another_node_could_run_it(bench):
    lose_contact(bench)
    assert announced(bench.wait(LOST_AFTER_SURVIVING - 1)) == []
    assert bench.states() == {A: S.BID_ACCEPTED}
    assert bench.job.message == (
        f"waiting for node {A[-8:]}, which is unreachable: what it runs continues without it"
    )
    bench.handle(ev.NodeConnected(A))
    bench.receive(A, heartbeat_of(A))
    assert (bench.states(), bench.job.message) == ({A: S.BID_ACCEPTED}, "")
    bench.propose(A)
    bench.judge(accepted=[A])
    bench.publish(A)
    assert bench.job.state is JobState.COMPLETED


def test_a_run_that_outlives_its_node_is_lost_when_the_node_stays_away(bench):
    lose_contact(bench)
    actions = bench.wait(LOST_AFTER_SURVIVING)
    assert bench.states() == {A: S.LOST}
    assert (A, "cancel_execution") in sent(actions)
    assert announced(actions)


def test_missing_heartbeats_on_an_open_connection_are_tolerated_as_long(bench):
    lose_contact(bench)
    bench.handle(ev.NodeConnected(A))
    bench.wait(LOST_AFTER_SURVIVING - 1)
    assert bench.states() == {A: S.BID_ACCEPTED}
    bench.wait(1)
    assert bench.states() == {A: S.LOST}


def test_the_result_of_a_run_that_outlives_its_node_is_waited_for_as_long(bench):
    lose_contact(bench)
    bench.handle(ev.NodeConnected(A))
    bench.propose(A)
    bench.handle(ev.NodeDisconnected(A))
    bench.wait(40)
    assert bench.states() == {A: S.RESULT_PROPOSED}
    bench.judge(accepted=[A])
    bench.wait(LOST_AFTER_SURVIVING - 41)
    assert bench.states() == {A: S.RESULT_ACCEPTED}
    bench.wait(1)
    assert bench.states() == {A: S.LOST}


@pytest.mark.parametrize("drained", [False, True])
def test_a_node_that_reports_its_run_as_gone_is_replaced_soon(bench, drained):
    lose_contact(bench)
    bench.wait(30)
    actions = bench.handle(ev.NodeConnected(A))
    assert sent(actions) == [(A, "reconcile")]
    unknown = say.ExecutionFailed(
        job_id=JOB, execution_id=execution_id(A), reason="unknown on the node", drained=drained
    )
    assert announced([*bench.receive(A, unknown), *([] if drained else bench.wait(RETRY_PAUSES[0]))])
    assert bench.states() == {A: S.LOST if drained else S.FAILED}


def test_a_restarted_requester_still_knows_which_runs_outlive_their_nodes(bench):
    lose_contact(bench)
    again = restarted(bench, [B])
    again.wait(LOST_AFTER_SURVIVING - 1)
    assert again.states() == {A: S.BID_ACCEPTED}
    again.wait(1)
    assert again.states() == {A: S.LOST}


def test_waiting_for_runs_that_outlive_their_nodes_can_be_turned_off():
    bench = RequesterBench(lost_after_surviving=0.0)
    lose_contact(bench)
    bench.wait(LOST_AFTER_DISCONNECT + 0.1)
    assert bench.states() == {A: S.LOST}


def test_a_run_that_ends_with_its_node_is_replaced_as_soon_as_the_node_is_unreachable(bench):
    lose_contact(bench, outlives=False)
    bench.wait(LOST_AFTER_DISCONNECT + 0.1)
    assert bench.states() == {A: S.LOST}


def test_a_heartbeat_that_arrives_late_counts_from_its_arrival(bench):
    lose_contact(bench)
    bench.wait(LOST_AFTER_SURVIVING / 2)
    bench.receive(A, heartbeat_of(A))
    bench.handle(ev.NodeDisconnected(A))
    bench.wait(LOST_AFTER_SURVIVING - 1)
    assert bench.states() == {A: S.BID_ACCEPTED}
    bench.wait(1)
    assert bench.states() == {A: S.LOST}


def test_peers_that_left_are_forgotten():
    liveness = Liveness(PeerID("me"))
    for number in range(MAX_DISCONNECTED + 5):
        liveness.note_disconnected(PeerID(f"peer-{number}"), now=1.0)
    assert len(liveness.disconnected_at) == MAX_DISCONNECTED
    liveness.note_disconnected(PeerID("peer-9"), now=2.0)
    liveness.note_disconnected(PeerID("late"), now=1.5 + FORGET_DISCONNECTED)
    assert list(liveness.disconnected_at) == ["peer-9", "late"]
