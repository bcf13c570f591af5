"""The requester's promises, without trio, clock or network."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.proposals import decode_proposal, encode_proposal
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Proposal, PublishedResult
from bacalhau_p2p.model.job import JobSpec, SpecConfig
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.model.state import ComputeState, ExecutionState, JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.contact import LOST_AFTER_BREAK, LOST_AFTER_SURVIVING, LOST_WITHOUT_ANOTHER
from bacalhau_p2p.requester.machine import ATTEMPTS, Host, RequesterMachine
from bacalhau_p2p.requester.rounds import FIRST_WINDOW, LONGEST_FIRST_WINDOW, REANNOUNCE_AFTER_NEWS, Pace
from bacalhau_p2p.verifiers.interface import Verdict

S = ExecutionState
JOB = JobID("j-1")
A, B, C, D = (PeerID(name) for name in ("alice", "bob", "carol", "dave"))
ROOM = Resources(cpu=8, memory=2**34, disk=2**40)


def job(count: int = 1, *, verifier: str = "noop", **extra: object) -> JobSpec:
    return job_from_mapping(
        {"Count": count, "Verifier": {"Type": verifier}, "Tasks": [{"Engine": {"Type": "noop"}}], **extra}
    )


class Bench:
    """A machine, the clock, and everything that it asked for."""

    def __init__(self, **of_host: float) -> None:
        self.now = 0.0
        self.done: list[ev.Action] = []
        self.machine = RequesterMachine(
            Host(
                peer_id=PeerID("me"),
                addresses=lambda: (),
                open_proposal=decode_proposal,
                dice=lambda: 0.5,
                **of_host,
            )
        )

    def give(self, event: ev.Event) -> list[ev.Action]:
        actions = self.machine.handle(event, self.now)
        self.done += actions
        return actions

    def hear(self, author: PeerID, message: say.Message) -> list[ev.Action]:
        return self.give(ev.MessageReceived(author, message))

    def wait(self, seconds: float) -> list[ev.Action]:
        """Let time pass, stopping at every deadline."""
        end, actions = self.now + seconds, []
        while (due := self.machine.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            actions += self.give(ev.TimePassed())
        self.now = end
        return actions

    def know(self, *nodes: PeerID) -> None:
        for node in nodes:
            compute = ComputeInfo(
                engines=("noop",), publishers=("ipfs",), max_capacity=ROOM, available_capacity=ROOM
            )
            self.give(ev.NodeSeen(NodeInfo(id=node, compute=compute)))

    def submit(self, spec: JobSpec) -> list[ev.Action]:
        return self.give(ev.Submitted(JOB, spec))

    def bid(
        self, node: PeerID, load: float = 0.0, attempt: int = 1, *, outlives: bool = False
    ) -> list[ev.Action]:
        message = say.Bid(
            job_id=JOB,
            execution_id=execution_id(node, attempt),
            reserved_for=30,
            load=load,
            outlives_node=outlives,
        )
        return self.hear(node, message)

    def propose(self, node: PeerID, cid: str = "bafy-right", attempt: int = 1) -> list[ev.Action]:
        proposal = Proposal(
            job_id=JOB, execution_id=execution_id(node, attempt), node_id=node, result_cid=cid
        )
        return self.hear(node, proposed(node, proposal, attempt))

    def publish(self, node: PeerID, cid: str = "bafy-right", attempt: int = 1) -> list[ev.Action]:
        result = PublishedResult(cid=cid, location=SpecConfig(type="ipfs"))
        message = say.ResultPublished(job_id=JOB, execution_id=execution_id(node, attempt), result=result)
        return self.hear(node, message)

    def fail(self, node: PeerID, *, permanent: bool = False, attempt: int = 1) -> list[ev.Action]:
        return self.hear(
            node,
            say.ExecutionFailed(
                job_id=JOB,
                execution_id=execution_id(node, attempt),
                reason="no such image",
                permanent=permanent,
            ),
        )

    def judge(self, accepted: Iterable[PeerID], rejected: Iterable[PeerID] = (), reason: str = "") -> None:
        self.give(
            ev.Verified(
                JOB,
                Verdict(
                    accepted=frozenset(execution_id(node) for node in accepted),
                    rejected=frozenset(execution_id(node) for node in rejected),
                    reason=reason,
                ),
            )
        )

    @property
    def job(self):
        return self.machine.jobs[JOB].job

    def states(self) -> dict[PeerID, ExecutionState]:
        """The state of each node's latest execution."""
        return {e.node_id: e.state for e in self.machine.jobs[JOB].executions.values()}


def execution_id(node: PeerID, attempt: int = 1) -> ExecutionID:
    return ExecutionID(f"e-{node}-{attempt}")


def proposed(node: PeerID, proposal: Proposal, attempt: int = 1) -> say.ResultProposed:
    return say.ResultProposed(
        job_id=JOB, execution_id=execution_id(node, attempt), sealed=encode_proposal(proposal)
    )


def sent(actions: Iterable[ev.Action]) -> list[tuple[PeerID, str]]:
    """Who was told what."""
    return [(action.to, action.message.kind) for action in actions if isinstance(action, ev.Send)]


def announced(actions: Iterable[ev.Action]) -> list[say.JobAnnounced]:
    return [
        action.message
        for action in actions
        if isinstance(action, ev.Broadcast) and isinstance(action.message, say.JobAnnounced)
    ]


@pytest.fixture
def bench():
    return Bench()


def run_to_proposals(bench: Bench, spec: JobSpec, *nodes: PeerID) -> None:
    bench.know(*nodes)
    bench.submit(spec)
    for node in nodes:
        bench.bid(node)


# --- the journey ----------------------------------------------------------------------------


def test_a_job_is_stored_before_it_is_announced(bench):
    actions = bench.submit(job())
    kinds = [type(action) for action in actions]
    assert kinds == [ev.Store, ev.Broadcast]
    assert bench.job.state is JobState.PENDING


def test_a_job_travels_from_bid_to_completed(bench):
    bench.know(A)
    bench.submit(job())
    assert sent(bench.bid(A)) == [(A, "bid_accepted")]
    assert bench.job.state is JobState.RUNNING
    (verify,) = [action for action in bench.propose(A) if isinstance(action, ev.Verify)]
    assert [proposal.node_id for proposal in verify.proposals] == [A]
    bench.judge(accepted=[A])
    assert bench.states() == {A: S.RESULT_ACCEPTED}
    bench.publish(A)
    assert (bench.job.state, bench.states()) == (JobState.COMPLETED, {A: S.COMPLETED})


def test_one_wrong_result_of_three_is_rejected_and_the_job_completes(bench):
    run_to_proposals(bench, job(3, verifier="deterministic"), A, B, C)
    bench.propose(A)
    bench.propose(B, "bafy-wrong")
    assert any(isinstance(action, ev.Verify) for action in bench.propose(C))
    bench.judge(accepted=[A, C], rejected=[B], reason="differs from 2 others")
    assert bench.states() == {A: S.RESULT_ACCEPTED, B: S.RESULT_REJECTED, C: S.RESULT_ACCEPTED}
    bench.publish(A)
    assert bench.job.state is JobState.RUNNING
    bench.publish(C)
    assert bench.job.state is JobState.COMPLETED
    assert "1 of 3 results rejected" in bench.job.message


def test_no_agreement_fails_the_job_with_the_verifiers_reason(bench):
    run_to_proposals(bench, job(2, verifier="deterministic"), A, B)
    bench.propose(A)
    bench.propose(B, "bafy-other")
    bench.judge(accepted=[], rejected=[A, B], reason="no 2 of 2 results agree")
    assert (bench.job.state, bench.job.message) == (JobState.FAILED, "no 2 of 2 results agree")


# --- bidding --------------------------------------------------------------------------------


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
    bench.give(ev.NodeSeen(NodeInfo(id=B, compute=ComputeInfo(engines=("docker",)))))
    bench.give(ev.NodeSeen(NodeInfo(id=C)))
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


# --- trouble --------------------------------------------------------------------------------


def test_a_failed_execution_is_replaced_on_another_node(bench):
    bench.know(A, B)
    bench.submit(job())
    bench.bid(A, load=0)
    bench.bid(B, load=0.5)
    assert announced(bench.fail(A))
    bench.bid(A, attempt=2)
    assert sent(bench.bid(B, attempt=2)) == [(B, "bid_accepted"), (A, "bid_rejected")]


def test_a_permanent_failure_ends_the_job_at_once_with_its_cause(bench):
    bench.know(A)
    bench.submit(job())
    bench.bid(A)
    bench.fail(A, permanent=True)
    assert (bench.job.state, bench.job.message) == (JobState.FAILED, "no such image")


def test_one_untrusted_node_cannot_end_a_verified_job(bench):
    run_to_proposals(bench, job(3, verifier="deterministic"), A, B, C)
    bench.fail(A, permanent=True)
    assert bench.job.state is JobState.RUNNING
    bench.fail(B, permanent=True)
    assert bench.job.state is JobState.FAILED


def test_a_slot_gets_three_attempts(bench):
    bench.know(A)
    bench.submit(job())
    for attempt in range(1, ATTEMPTS + 1):
        bench.bid(A, attempt=attempt)
        bench.fail(A, attempt=attempt)
    assert bench.job.state is JobState.FAILED
    assert bench.job.message == "no such image (attempt 3 of 3)"


def beat(node: PeerID) -> say.Heartbeat:
    running = say.ExecutionProgress(execution_id=execution_id(node), state=ComputeState.RUNNING)
    return say.Heartbeat(executions=(running,))


def test_a_silent_node_loses_its_execution(bench):
    bench.know(A, B)
    bench.submit(job())
    bench.bid(A)
    bench.wait(1)
    for _ in range(10):
        bench.wait(5)
        bench.hear(A, beat(A))
    assert bench.states() == {A: S.BID_ACCEPTED}
    actions = bench.wait(21)
    assert bench.states()[A] is S.LOST
    assert (A, "cancel_execution") in sent(actions)
    assert announced(actions)


def test_a_broken_connection_loses_it_sooner_unless_it_comes_back(bench):
    bench.know(A, B)
    bench.submit(job())
    bench.bid(A)
    bench.wait(1)
    bench.give(ev.ConnectionBroke(A))
    bench.wait(LOST_AFTER_BREAK / 2)
    bench.give(ev.ConnectionStands(A))
    bench.wait(LOST_AFTER_BREAK)
    assert bench.states() == {A: S.BID_ACCEPTED}
    bench.give(ev.ConnectionBroke(A))
    bench.wait(LOST_AFTER_BREAK + 0.1)
    assert bench.states() == {A: S.LOST}


def test_a_node_is_waited_for_longer_while_no_other_can_take_its_place(bench):
    bench.know(A, B)
    bench.submit(job())
    bench.bid(A)
    bench.wait(1)
    bench.give(ev.ConnectionBroke(A))
    bench.give(ev.ConnectionBroke(B))
    bench.wait(LOST_WITHOUT_ANOTHER - 5)
    assert bench.states() == {A: S.BID_ACCEPTED}
    assert bench.job.message == (
        f"waiting for node {A[-8:]}, which cannot be reached: no other node can take its place"
    )
    bench.give(ev.ConnectionStands(A))
    bench.hear(A, beat(A))
    assert (bench.states(), bench.job.message) == ({A: S.BID_ACCEPTED}, "")
    bench.give(ev.ConnectionBroke(A))
    bench.wait(LOST_WITHOUT_ANOTHER + 1)
    assert bench.states() == {A: S.LOST}
    assert bench.job.state is JobState.QUEUED
    assert "cannot be reached" in bench.job.message or "fell silent" in bench.job.message


def test_a_node_that_is_waited_for_is_replaced_by_the_first_that_comes(bench):
    bench.know(A)
    bench.submit(job())
    bench.bid(A)
    bench.give(ev.ConnectionBroke(A))
    bench.wait(LOST_AFTER_BREAK + 5)
    assert bench.states() == {A: S.BID_ACCEPTED}
    bench.know(B)
    assert announced(bench.wait(0.1))
    assert bench.states() == {A: S.LOST}


def lose_contact(bench: Bench, *, outlives: bool = True) -> None:
    """A runs the job, B could, and the connection to A breaks."""
    bench.know(A, B)
    bench.submit(job())
    bench.bid(A, outlives=outlives)
    bench.wait(1)
    bench.hear(A, beat(A))
    bench.give(ev.ConnectionBroke(A))


def test_a_node_whose_run_outlives_it_is_waited_for_though_another_could_take_its_place(bench):
    lose_contact(bench)
    assert announced(bench.wait(LOST_AFTER_SURVIVING - 1)) == []
    assert bench.states() == {A: S.BID_ACCEPTED}
    assert bench.job.message == (
        f"waiting for node {A[-8:]}, which cannot be reached: "
        "what it runs goes on without it, and is taken up when it is back"
    )
    bench.give(ev.ConnectionStands(A))
    bench.hear(A, beat(A))
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


def test_silence_without_a_broken_connection_is_borne_as_long(bench):
    lose_contact(bench)
    bench.give(ev.ConnectionStands(A))
    bench.wait(LOST_AFTER_SURVIVING - 1)
    assert bench.states() == {A: S.BID_ACCEPTED}
    bench.wait(1)
    assert bench.states() == {A: S.LOST}


def test_a_result_of_a_run_that_outlives_its_node_is_waited_for_as_long(bench):
    lose_contact(bench)
    bench.give(ev.ConnectionStands(A))
    bench.propose(A)
    bench.give(ev.ConnectionBroke(A))
    bench.wait(40)
    assert bench.states() == {A: S.RESULT_PROPOSED}
    bench.judge(accepted=[A])
    bench.wait(LOST_AFTER_SURVIVING - 41)
    assert bench.states() == {A: S.RESULT_ACCEPTED}
    bench.wait(1)
    assert bench.states() == {A: S.LOST}


@pytest.mark.parametrize("drained", [False, True])
def test_a_node_that_says_itself_that_its_run_is_gone_is_replaced_at_once(bench, drained):
    lose_contact(bench)
    bench.wait(30)
    actions = bench.give(ev.ConnectionStands(A))
    assert sent(actions) == [(A, "reconcile")]
    unknown = say.ExecutionFailed(
        job_id=JOB, execution_id=execution_id(A), reason="this node knows nothing of it", drained=drained
    )
    assert announced(bench.hear(A, unknown))
    assert bench.states() == {A: S.LOST if drained else S.FAILED}


def test_a_restarted_requester_still_knows_which_runs_outlive_their_nodes(bench):
    lose_contact(bench)
    entry = bench.machine.jobs[JOB]
    again = Bench()
    again.know(B)
    again.give(ev.Resumed(entry.job, tuple(entry.executions.values())))
    again.wait(LOST_AFTER_SURVIVING - 1)
    assert again.states() == {A: S.BID_ACCEPTED}
    again.wait(1)
    assert again.states() == {A: S.LOST}


def test_waiting_for_runs_that_outlive_their_nodes_can_be_turned_off():
    bench = Bench(lost_after_surviving=0.0)
    lose_contact(bench)
    bench.wait(LOST_AFTER_BREAK + 0.1)
    assert bench.states() == {A: S.LOST}


def test_a_run_that_dies_with_its_node_is_replaced_as_soon_as_its_node_is_missed(bench):
    lose_contact(bench, outlives=False)
    bench.wait(LOST_AFTER_BREAK + 0.1)
    assert bench.states() == {A: S.LOST}


def test_a_node_is_told_when_it_works_on_what_is_over_here(bench):
    bench.know(A)
    bench.submit(job())
    bench.bid(A)
    bench.wait(LOST_WITHOUT_ANOTHER + 1)
    assert sent(bench.propose(A)) == [(A, "cancel_execution")]
    unknown = say.Heartbeat(
        executions=(say.ExecutionProgress(execution_id=ExecutionID("e-9"), state=ComputeState.RUNNING),)
    )
    assert sent(bench.hear(A, unknown)) == [(A, "cancel_execution")]


def test_cancelling_stops_every_execution(bench):
    run_to_proposals(bench, job(2), A, B)
    actions = bench.give(ev.CancelRequested(JOB, "changed my mind"))
    assert sorted(sent(actions)) == [(A, "cancel_execution"), (B, "cancel_execution")]
    assert (bench.job.state, bench.job.message) == (JobState.STOPPED, "changed my mind")


def test_the_total_time_out_ends_the_job(bench):
    bench.know(A)
    bench.submit(job(Tasks=[{"Engine": {"Type": "noop"}, "Timeouts": {"TotalTimeout": 60}}]))
    bench.bid(A)
    beat = say.Heartbeat(
        executions=(say.ExecutionProgress(execution_id=execution_id(A), state=ComputeState.RUNNING),)
    )
    for _ in range(13):
        bench.wait(5)
        if not bench.job.state.terminal:
            bench.hear(A, beat)
    assert bench.job.state is JobState.FAILED
    assert "total time-out of 60 s" in bench.job.message


# --- lies -----------------------------------------------------------------------------------


def test_only_the_node_of_an_execution_speaks_for_it(bench):
    bench.know(A)
    bench.submit(job())
    bench.bid(A)
    before = (bench.job, bench.states())
    proposal = Proposal(job_id=JOB, execution_id=execution_id(A), node_id=A, result_cid="bafy-forged")
    assert bench.hear(B, proposed(A, proposal)) == []
    assert bench.hear(B, say.ExecutionFailed(job_id=JOB, execution_id=execution_id(A), reason="x")) == []
    assert (bench.job, bench.states()) == before
    assert bench.machine.ignored == 2


def test_nobody_can_bid_under_the_id_of_anothers_execution(bench):
    run_to_proposals(bench, job(), A)
    other = JobID("j-2")
    bench.give(ev.Submitted(other, job()))
    stolen = say.Bid(job_id=other, execution_id=execution_id(A), reserved_for=30)
    assert bench.hear(B, stolen) == []
    assert bench.machine.jobs[other].executions == {}
    line = say.ExecutionProgress(execution_id=execution_id(A), state=ComputeState.RUNNING)
    for _ in range(5):
        bench.wait(15)
        bench.hear(A, say.Heartbeat(executions=(line,)))
    assert bench.states() == {A: S.BID_ACCEPTED}


def test_a_proposal_of_another_node_cannot_be_replayed(bench):
    run_to_proposals(bench, job(2, verifier="deterministic"), A, B)
    honest = Proposal(job_id=JOB, execution_id=execution_id(A), node_id=A, result_cid="bafy-right")
    bench.hear(A, proposed(A, honest))
    bench.hear(B, proposed(B, honest))
    assert bench.states() == {A: S.RESULT_PROPOSED, B: S.FAILED}


def test_publishing_something_else_than_was_verified_fails_the_execution(bench):
    bench.know(A)
    bench.submit(job())
    bench.bid(A)
    bench.propose(A)
    bench.judge(accepted=[A])
    bench.publish(A, "bafy-swapped")
    assert bench.states() == {A: S.FAILED}
    assert bench.job.state is JobState.RUNNING


def test_a_node_that_dies_after_acceptance_does_not_matter_if_a_twin_publishes(bench):
    run_to_proposals(bench, job(2, verifier="deterministic"), A, B)
    bench.propose(A)
    bench.propose(B)
    bench.judge(accepted=[A, B])
    bench.fail(A)
    assert bench.job.state is JobState.RUNNING
    bench.publish(B)
    assert bench.job.state is JobState.COMPLETED


def restarted(bench: Bench) -> Bench:
    """The requester killed and started again, from what it had asked to be kept."""
    kept: dict[str, Execution] = {}
    for action in bench.done:
        if isinstance(action, ev.Store) and isinstance(action.record, Execution):
            kept[action.record.id] = action.record
    again = Bench()
    again.now, again.done = bench.now, list(bench.done)
    again.know(A, B, C, D)
    again.give(ev.Resumed(bench.job, tuple(kept.values())))
    return again


def refill(bench: Bench, node: PeerID) -> None:
    """The open slot of the job goes to this node."""
    bench.wait(40)
    bench.bid(node)
    bench.wait(1)
    assert bench.states()[node] is S.BID_ACCEPTED


def test_attempts_are_counted_over_all_lives_of_the_requester(bench):
    bench.know(A, B, C, D)
    bench.submit(job())
    for node in (A, B, C):
        refill(bench, node)
        bench = restarted(bench)
        assert bench.job.state is JobState.RUNNING
        bench.fail(node)
    assert bench.job.state is JobState.FAILED
    assert bench.job.message == f"no such image (attempt {ATTEMPTS} of {ATTEMPTS})"


def test_attempts_are_counted_for_each_slot(bench):
    run_to_proposals(bench, job(2), A, B)
    bench.fail(A)
    refill(bench, C)
    bench.fail(C)
    bench = restarted(bench)
    assert [slot.attempts for slot in bench.machine.jobs[JOB].slots] == [2, 1]
    refill(bench, D)
    bench.fail(B)
    bench.wait(1)
    assert bench.job.state is JobState.RUNNING
    bench.fail(D)
    assert bench.job.state is JobState.FAILED


def test_what_a_node_handed_back_is_no_attempt_after_a_restart_either(bench):
    bench.know(A, B, C, D)
    bench.submit(job())
    refill(bench, A)
    back = say.ExecutionFailed(
        job_id=JOB, execution_id=execution_id(A), reason="its node was stopped", drained=True
    )
    bench.hear(A, back)
    bench = restarted(bench)
    assert [slot.attempts for slot in bench.machine.jobs[JOB].slots] == [0]


def test_a_second_witness_ends_the_job_though_the_requester_was_restarted_after_the_first(bench):
    run_to_proposals(bench, job(2, verifier="deterministic"), A, B)
    bench.fail(A, permanent=True)
    bench = restarted(bench)
    assert bench.job.state is JobState.RUNNING
    bench.fail(B, permanent=True)
    assert (bench.job.state, bench.job.message) == (JobState.FAILED, "no such image")


def test_nodes_that_failed_a_job_are_tried_last_after_a_restart_too(bench):
    bench.know(A, B)
    bench.submit(job())
    refill(bench, A)
    bench.fail(A)
    bench = restarted(bench)
    bench.bid(A, attempt=2, load=0.0)
    bench.bid(B, load=0.9)
    bench.wait(1)
    assert bench.states()[B] is S.BID_ACCEPTED


def test_a_restart_does_not_run_again_what_a_twin_publishes(bench):
    run_to_proposals(bench, job(2, verifier="deterministic"), A, B)
    bench.propose(A)
    bench.propose(B)
    bench.judge(accepted=[A, B])
    bench.fail(A)
    entry = bench.machine.jobs[JOB]
    again = Bench()
    assert announced(again.give(ev.Resumed(entry.job, tuple(entry.executions.values())))) == []
    again.publish(B)
    assert again.job.state is JobState.COMPLETED


def test_if_every_twin_dies_the_job_runs_again(bench):
    run_to_proposals(bench, job(2, verifier="deterministic"), A, B)
    bench.propose(A)
    bench.propose(B)
    bench.judge(accepted=[A, B])
    bench.fail(A)
    assert announced(bench.fail(B))


def test_a_late_refill_is_judged_beside_those_accepted_before(bench):
    run_to_proposals(bench, job(3, verifier="deterministic"), A, B, C)
    for node in (A, B, C):
        bench.propose(node)
    bench.fail(C)
    bench.know(D)
    bench.judge(accepted=[A, B], rejected=[C])
    bench.wait(5)
    bench.bid(D)
    (verify,) = [action for action in bench.propose(D) if isinstance(action, ev.Verify)]
    assert {proposal.node_id for proposal in verify.proposals} == {A, B, D}


def test_messages_after_the_end_change_nothing(bench):
    test_a_job_travels_from_bid_to_completed(bench)
    before = (bench.job, bench.states())
    bench.publish(A)
    bench.propose(A)
    bench.fail(A)
    bench.judge(accepted=[], rejected=[A])
    assert (bench.job, bench.states()) == before


def test_an_ended_job_is_forgotten_after_a_while(bench):
    test_a_job_travels_from_bid_to_completed(bench)
    bench.wait(1000)
    assert bench.machine.jobs == {}
    assert bench.machine.next_deadline() is None


def test_a_restart_resumes_where_the_store_stood(bench):
    run_to_proposals(bench, job(2), A, B)
    entry = bench.machine.jobs[JOB]
    again = Bench()
    again.give(ev.Resumed(entry.job, tuple(entry.executions.values())))
    again.propose(A)
    again.propose(B)
    again.judge(accepted=[A, B])
    again.publish(A)
    again.publish(B)
    assert again.job.state is JobState.COMPLETED
