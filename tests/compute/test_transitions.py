"""The table of an execution's transitions at its compute node: `transitions` and `ledger`."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.components.transitions import InvalidTransition
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute import transitions
from bacalhau_p2p.model.state import ComputeState
from tests.support.machines.compute_bench import FIRST, ComputeBench, message_about

S = ComputeState


@pytest.fixture
def bid():
    bench = ComputeBench()
    bench.announce()
    return bench


def test_an_event_without_a_row_is_our_bug_and_changes_nothing(bid):
    execution = bid.machine.executions[FIRST]
    with pytest.raises(InvalidTransition, match=r"e-1 is Bid.*RunFinished"):
        transitions.move(bid.machine._ledger, execution, ev.RunFinished(FIRST, "bafy", b""), now=1)
    assert bid.machine.executions[FIRST] is execution


def test_a_terminal_state_has_no_row():
    assert [key for key in transitions.TRANSITIONS if key[0] is not None and key[0].terminal] == []


def test_every_row_that_ends_an_execution_cleans_up_and_keeps_no_room():
    holds_room = {S.BID, S.PREPARING, S.RUNNING}
    for (state, event), row in transitions.TRANSITIONS.items():
        if row.to.terminal:
            assert transitions.clean_up in row.actions
        if state in holds_room and row.to not in holds_room and event is not transitions.RoomLost:
            assert transitions.release_room in row.actions


def test_a_bid_is_stored_when_it_is_accepted(bid):
    assert [action for action in bid.done if isinstance(action, ev.Store)] == []
    (stored,) = [a.record for a in bid.receive(message_about(say.BidAccepted)) if isinstance(a, ev.Store)]
    assert (stored.id, stored.state) == (FIRST, S.PREPARING)


def test_a_rejected_bid_is_not_stored(bid):
    actions = bid.receive(message_about(say.BidRejected, reason="other bids were better"))
    assert [type(action) for action in actions] == [ev.CleanUp]
    assert bid.machine.executions[FIRST].message == "other bids were better"


def test_an_execution_without_room_after_a_restart_fails(bid):
    (stored,) = [a.record for a in bid.receive(message_about(say.BidAccepted)) if isinstance(a, ev.Store)]
    again = ComputeBench(disk=1)
    actions = again.handle(ev.Resumed(stored.replace(input_disk=2)))
    (failed,) = [action.message for action in actions if isinstance(action, ev.Send)]
    assert (failed.kind, failed.permanent) == ("execution_failed", False)
    assert again.state() is S.FAILED
    assert again.machine.capacity.holders == frozenset()


def test_two_events_at_the_same_deadline_are_both_handled():
    bench = ComputeBench()
    bench.announce(job_id="j-1")
    bench.announce(job_id="j-2")
    bench.wait(transitions.ACCEPTED_LATE_FOR)
    assert (bench.state("e-1"), bench.state("e-2")) == (S.EXPIRED, S.EXPIRED)
