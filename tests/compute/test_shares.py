"""What one requester may hold of a node while others ask, and that nobody is kept out for good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute import shares
from bacalhau_p2p.compute.shares import ASKED_LATELY, ShareRules
from bacalhau_p2p.compute.transitions import RESERVED_FOR
from bacalhau_p2p.compute.unused_bids import FIRST_PAUSE
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.state import ComputeState
from tests.support.machines.compute_bench import ComputeBench, small_job
from tests.support.machines.machine_bench import messages_in

ALICE, BOB, CAROL = PeerID("alice"), PeerID("bob"), PeerID("carol")
LEAVES_ROOM = "leaves room for other requesters"


class Bench(ComputeBench):
    """A node with four cores. Jobs take one, and are accepted at once."""

    def __init__(self, *, known: Collection[PeerID] = (ALICE, CAROL), **rules) -> None:
        super().__init__(cpu=4, rules=ShareRules(**rules), known=known)
        self.jobs = 0

    def ask(self, author: PeerID, *, cpu: str = "1") -> str | ExecutionID:
        """Announce a job; the id of the execution that it is bid for, or the reason why there is no bid.
        Without one, it finds another node."""
        self.jobs += 1
        (answer,) = messages_in(self.announce(small_job(cpu=cpu), f"j-{self.jobs}", author=author))
        if isinstance(answer, say.Bid):
            return answer.execution_id
        self.receive(say.JobClosed(job_id=answer.job_id), author)
        return answer.reason

    def run(self, author: PeerID, **terms) -> ExecutionID:
        """Begin a run."""
        execution_id = self.ask(author, **terms)
        self.accept(author, execution_id)
        self.handle(ev.Prepared(execution_id))
        return execution_id

    def accept(self, author: PeerID, execution_id: ExecutionID) -> None:
        job_id = self.machine.executions[execution_id].job_id
        self.receive(say.BidAccepted(job_id=job_id, execution_id=execution_id), author)

    def end(self, execution_id: ExecutionID) -> None:
        self.handle(ev.RunFinished(execution_id, "cid", b"sealed"))

    def held(self) -> Counter[PeerID]:
        executions = self.machine.executions
        return Counter(executions[name].requester_id for name in self.machine.capacity.holders)


def test_a_requester_may_use_the_whole_node_while_nobody_else_asks():
    bench = Bench()
    for _ in range(4):
        bench.run(ALICE)
    assert bench.held() == {ALICE: 4}
    assert bench.ask(ALICE) == "is busy", "its own jobs that wait change nothing"


def test_a_requester_that_has_accepted_no_bid_gets_bids_for_its_share_at_most():
    """It may never accept one, and the next job of another requester must not wait for that."""
    bench = Bench(known=())
    assert [bench.ask(ALICE) for _ in range(4)] == ["e-1", "e-2", LEAVES_ROOM, LEAVES_ROOM]
    bench.run(BOB)
    bench.run(BOB)


def test_a_requester_may_use_the_whole_node_as_soon_as_it_accepts_a_bid():
    bench = Bench(known=())
    first = bench.ask(ALICE)
    (bid,) = messages_in(bench.announce(small_job(cpu="2"), "large", author=ALICE))
    assert bid.reason == LEAVES_ROOM
    (late,) = messages_in(bench.receive(say.BidAccepted(job_id="j-1", execution_id=first), ALICE))
    assert (late.job_id, late.late) == ("large", True)


def test_a_requester_that_leaves_a_bid_unused_gets_its_share_until_it_accepts_one():
    bench = Bench()
    bench.ask(ALICE)
    bench.now += RESERVED_FOR
    bench.handle(ev.TimePassed())
    bench.now += FIRST_PAUSE
    first, _, refused = [bench.ask(ALICE) for _ in range(3)]
    assert refused == LEAVES_ROOM
    bench.accept(ALICE, first)
    assert bench.ask(ALICE) in bench.machine.executions


def test_a_requester_that_holds_its_share_gets_no_more_once_others_ask():
    bench = Bench()
    first, second, *_ = [bench.run(ALICE) for _ in range(4)]
    assert bench.ask(BOB) == "is busy"
    bench.end(first)
    assert bench.ask(ALICE) == LEAVES_ROOM
    bench.run(BOB)
    bench.end(second)
    assert bench.ask(ALICE) == LEAVES_ROOM
    bench.run(BOB)
    assert bench.held() == {ALICE: 2, BOB: 2}


def test_a_requester_may_hold_its_share_however_many_others_ask():
    """Names cost nothing: they must not keep out those who use the node."""
    bench = Bench()
    first = bench.run(ALICE, cpu="4")
    for number in range(50):
        bench.ask(PeerID(f"stranger-{number}"))
    bench.end(first)
    bench.run(ALICE)
    assert bench.ask(ALICE) == LEAVES_ROOM
    assert bench.held() == {ALICE: 1}


def test_a_job_larger_than_the_share_runs_if_its_requester_has_no_other():
    bench = Bench()
    first = bench.run(ALICE, cpu="4")
    assert bench.ask(BOB) == "is busy"
    bench.end(first)
    bench.run(ALICE, cpu="3")
    assert bench.ask(ALICE) == LEAVES_ROOM


def test_room_is_not_left_for_those_who_have_stopped_asking():
    bench = Bench()
    first, *_ = [bench.run(ALICE) for _ in range(4)]
    bench.ask(BOB)
    bench.end(first)
    bench.now += ASKED_LATELY
    bench.run(ALICE)
    assert bench.held() == {ALICE: 4}


def test_those_whose_jobs_never_fit_do_not_ask_for_room():
    bench = Bench()
    assert bench.ask(BOB, cpu="5") == "is too small for the requested resources: CPU"
    for _ in range(4):
        bench.run(ALICE)
    assert bench.held() == {ALICE: 4}


def test_those_who_leave_bids_unused_do_not_ask_for_room():
    bench = Bench()
    unused = bench.ask(BOB)
    bench.now += RESERVED_FOR
    bench.handle(ev.TimePassed())
    first, *_ = [bench.run(ALICE) for _ in range(4)]
    assert bench.ask(BOB) == "does not bid for a while, because the requester left earlier bids unanswered"
    bench.end(first)
    bench.run(ALICE)
    assert bench.machine.executions[unused].state is ComputeState.BID


def test_bids_that_are_accepted_late_do_not_exceed_the_share():
    bench = Bench()
    late = [bench.ask(ALICE) for _ in range(4)]
    bench.now += RESERVED_FOR
    bench.handle(ev.TimePassed())
    last = bench.run(CAROL, cpu="4")
    bench.ask(BOB)
    bench.end(last)
    for execution_id in late:
        bench.accept(ALICE, execution_id)
    assert bench.held() == {ALICE: 2}


@pytest.mark.parametrize(("share", "held"), [(0.25, 1), (0.5, 2), (0.75, 3), (1.0, 4)])
def test_the_operator_sets_the_share(share, held):
    bench = Bench(share=share)
    first = bench.run(CAROL, cpu="4")
    bench.ask(BOB)
    bench.end(first)
    for _ in range(4):
        bench.ask(ALICE)
    assert bench.held() == {ALICE: held}


def test_the_operator_limits_the_jobs_of_a_requester_even_on_an_idle_node():
    bench = Bench(jobs=2)
    first, _ = [bench.run(ALICE, cpu="0.1") for _ in range(2)]
    assert bench.ask(ALICE, cpu="0.1") == "runs at most 2 jobs at a time for one requester"
    bench.run(BOB, cpu="0.1")
    bench.end(first)
    bench.run(ALICE, cpu="0.1")
    assert bench.held() == {ALICE: 2, BOB: 1}


def test_requesters_that_were_turned_away_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(shares, "MAX_ASKING", 10)
    bench = Bench()
    bench.run(ALICE, cpu="4")
    for number in range(50):
        bench.ask(PeerID(f"stranger-{number}"))
    assert len(bench.machine._ledger.shares._turned_away) <= 10


@pytest.mark.parametrize("greedy", [[ALICE], [ALICE, CAROL]], ids=["one", "two"])
def test_nobody_starves_beside_requesters_that_always_want_more(greedy):
    """Greedy requesters announce a hundred times as often as Bob, and their jobs are as long as his. Bob gets
    his share, and they get theirs."""
    bench = Bench()
    running: list[tuple[float, ExecutionID]] = []
    begun: Counter[PeerID] = Counter()

    def announce(author: PeerID) -> None:
        answer = bench.ask(author)
        if answer in bench.machine.executions:
            bench.accept(author, answer)
            bench.handle(ev.Prepared(answer))
            running.append((bench.now + 10, answer))
            begun[author] += 1

    for second in range(2000):
        bench.now += 0.1
        bench.handle(ev.TimePassed())
        for ends, execution_id in list(running):
            if ends <= bench.now:
                running.remove((ends, execution_id))
                bench.end(execution_id)
        for author in greedy:
            announce(author)
        if second % 100 == 50:
            announce(BOB)
    asked_by_bob = 20
    assert begun[BOB] >= asked_by_bob * 0.4
    assert sum(begun[each] for each in greedy) >= 30
