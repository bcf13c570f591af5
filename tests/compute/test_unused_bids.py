"""Room is not held for requesters that do not use it: `unused_bids`, and bids that nobody answers."""

from __future__ import annotations

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.compute.transitions import PROMPT, RESERVED_FOR
from bacalhau_p2p.compute.unused_bids import FIRST_PAUSE, LONGEST_PAUSE, MAX_REQUESTERS, UnusedBids
from bacalhau_p2p.model.base import PeerID
from tests.support.machines.compute_bench import FIRST, ComputeBench, message_about, small_job
from tests.support.machines.machine_bench import messages_in

WHOLE = small_job(cpu="1")


def kinds(actions) -> list[str]:
    return [message.kind for message in messages_in(actions)]


def test_a_bid_that_nobody_answers_holds_its_room_for_three_seconds():
    bench = ComputeBench()
    bench.announce(WHOLE)
    bench.wait(RESERVED_FOR)
    assert (RESERVED_FOR, bench.machine.capacity.holders) == (3.0, frozenset())


def test_a_requester_that_leaves_bids_unused_gets_fewer_and_others_get_the_room():
    bench, held = ComputeBench(), 0.0
    for number in range(120 * 10):  # ten announcements a second for two minutes
        bench.announce(WHOLE, job_id=f"j-{number}")
        bench.wait(0.1)
        held += 0.1 if bench.machine.capacity.holders else 0.0
    assert held < 20


def test_a_requester_that_rejects_bids_at_once_or_accepts_one_gets_bids():
    bench = ComputeBench()
    for number in range(1, 6):
        bench.announce(WHOLE, job_id=f"j-{number}")
        bench.wait(0.5)
        bench.receive(say.BidRejected(job_id=f"j-{number}", execution_id=f"e-{number}"))
    assert kinds(bench.announce(WHOLE, job_id="j-6")) == ["bid"]


def test_a_bid_that_is_rejected_late_counts_as_unused():
    bench = ComputeBench()
    bench.announce(WHOLE)
    bench.wait(PROMPT + 0.1)
    bench.receive(message_about(say.BidRejected))
    (declined,) = messages_in(bench.announce(WHOLE, job_id="j-2"))
    assert (declined.kind, declined.busy) == ("bid_declined", True)


def test_a_bid_that_is_accepted_late_runs_if_there_is_room():
    bench = ComputeBench()
    bench.announce(WHOLE)
    bench.wait(RESERVED_FOR + 1)
    bench.receive(message_about(say.BidAccepted))
    assert (bench.state(), bench.machine.capacity.holders) == ("Preparing", {FIRST})


def test_a_bid_that_is_accepted_late_is_handed_back_if_its_room_is_taken():
    bench = ComputeBench()
    bench.announce(WHOLE)
    bench.wait(RESERVED_FOR)
    bench.wait(FIRST_PAUSE)
    bench.announce(WHOLE, job_id="j-2")
    bench.receive(say.BidAccepted(job_id="j-2", execution_id="e-2"))
    (failed,) = messages_in(bench.receive(message_about(say.BidAccepted)))
    assert (failed.kind, failed.execution_id, failed.drained) == ("execution_failed", FIRST, True)
    (again,) = messages_in(bench.receive(message_about(say.BidAccepted)))
    assert again.drained


def test_pauses_double_up_to_a_limit_and_end_with_an_accepted_bid():
    unused, alice, now = UnusedBids(), PeerID("alice"), 0.0
    for expected in (FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE):
        unused.left_unused(alice, now)
        unused.left_unused(alice, now)  # a second bid of the same time
        assert unused.pauses(alice, now + expected - 0.1)
        now += expected
        assert not unused.pauses(alice, now)
    for _ in range(20):
        unused.left_unused(alice, now)
        now += LONGEST_PAUSE
        assert not unused.pauses(alice, now)
    unused.left_unused(alice, now)
    unused.answered(alice)
    assert not unused.pauses(alice, now)


def test_requesters_are_remembered_up_to_a_limit():
    unused = UnusedBids()
    for number in range(MAX_REQUESTERS + 5):
        unused.left_unused(PeerID(f"p-{number}"), 0.0)
    assert len(unused._pauses) == MAX_REQUESTERS
    assert unused.pauses(PeerID(f"p-{MAX_REQUESTERS}"), 1.0)


def test_those_that_accepted_a_bid_last_are_remembered():
    unused = UnusedBids()
    for number in range(MAX_REQUESTERS):
        unused.accepted(PeerID(f"p-{number}"))
    unused.accepted(PeerID("p-0"))
    unused.accepted(PeerID("new"))
    assert [unused.accepts(PeerID(name)) for name in ("p-0", "p-1", "new")] == [True, False, True]
