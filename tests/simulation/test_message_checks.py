"""The simulator's checks on messages notice what is wrong, and only that (`checks.messages`)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.components.protocol import Broadcast, Send
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from tests.simulation.checks.messages import STRANGER, MessageChecks
from tests.simulation.checks.violation import Violation
from tests.simulation.nodes.store import SimulatedStore

REQUESTER, NODE = PeerID("r0"), PeerID("c1")
ABOUT = {"job_id": JobID("j0"), "execution_id": ExecutionID("e-c1-1")}
BID = say.Bid(**ABOUT, reserved_for=3)
ROUND_ENDS = (Broadcast(say.JobClosed(job_id=JobID("j0"), reason="placed")),)


@pytest.fixture
def store():
    return SimulatedStore()


@pytest.fixture
def checks():
    return MessageChecks(SimpleNamespace(now=1.0), {})


def test_a_stranger_may_bid_under_an_unknown_id(checks, store):
    checks.handled(REQUESTER, store, Arrival(STRANGER, BID), ROUND_ENDS)


def test_a_stranger_that_bids_under_the_id_of_another_changes_nothing(checks, store):
    checks.handled(REQUESTER, store, Arrival(NODE, BID), ())
    with pytest.raises(Violation, match="a stranger's bid led to"):
        checks.handled(REQUESTER, store, Arrival(STRANGER, BID), ROUND_ENDS)


def test_a_requester_that_was_started_again_has_forgotten_its_bids(checks, store):
    checks.handled(REQUESTER, store, Arrival(NODE, BID), ())
    checks.stopped(SimpleNamespace(peer=REQUESTER, disk=SimpleNamespace(stores=[store])))
    checks.handled(REQUESTER, store, Arrival(STRANGER, BID), ROUND_ENDS)


def test_the_id_of_a_rejected_bid_stays_free(checks, store):
    rejected = say.BidRejected(**ABOUT, reason="the job is over")
    checks.handled(REQUESTER, store, Arrival(NODE, BID), (Send(NODE, rejected, 60.0),))
    checks.handled(REQUESTER, store, Arrival(STRANGER, BID), ROUND_ENDS)


def test_no_other_message_of_a_stranger_changes_anything(checks, store):
    with pytest.raises(Violation, match="a stranger's cancel_execution led to"):
        checks.handled(REQUESTER, store, Arrival(STRANGER, say.CancelExecution(**ABOUT)), ROUND_ENDS)


def test_a_copy_of_a_bid_that_comes_late_is_no_word_of_the_run(checks, store):
    def hears(message, now):
        checks._timeline.now = now
        checks.handled(REQUESTER, store, Arrival(NODE, message), ())
        return checks.last_word(REQUESTER, BID.execution_id)

    assert hears(BID, 1.0) == 1.0
    assert hears(BID, 40.0) == 1.0
    assert hears(say.ExecutionFailed(**ABOUT, reason="no disk"), 50.0) == 50.0
    assert hears(BID, 60.0) == 50.0
