"""An event that raises anywhere leaves both machines as they were: every event of a life, every place."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.components.ledger import RETRY_FAULTY_DEADLINE
from bacalhau_p2p.components.protocol import TimePassed
from bacalhau_p2p.compute import events as cv
from bacalhau_p2p.compute import machine as compute
from bacalhau_p2p.compute.bidding import Findings
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.requester import machine as requester
from tests.support.machines.compute_bench import FIRST, JOB, ComputeBench, message_about, small_job
from tests.support.machines.fingerprint import fingerprint
from tests.support.machines.requester_bench import A, B, C, RequesterBench, job
from tests.support.results import result_cid

RESULT = PublishedResult(cid=result_cid("result"), location=SpecConfig(type="ipfs"))
WITH_INPUT = small_job(
    task={"InputSources": [{"Target": "/i", "Source": {"Type": "ipfs", "Params": {"CID": "bafkqaaa"}}}]}
)


class Broken(Exception):
    """Raised by a list of actions."""


class FailingActions(list):
    """Raises when so many actions were asked for."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self.good = good

    def append(self, action) -> None:
        if len(self) >= self.good:
            raise Broken
        super().append(action)


@pytest.fixture
def breaking(monkeypatch):
    """Handles each event with a failure at every place first, and compares the machine's state."""
    handled = []

    def install(module, machine_type):
        original = machine_type.handle
        handlers = dict(module._HANDLERS)

        def handle(machine, event, now):
            before = fingerprint(machine)
            for good in range(100):
                machine._ledger.actions = FailingActions(good)
                try:
                    handlers_failing_at_the_end(machine, event, now, original)
                except Broken:
                    assert fingerprint(machine) == before, (good, event)
                    assert list(machine._ledger.actions) == []
                    if good > machine_done[0]:
                        break
            machine._ledger.actions = []
            machine._ledger.faults.clear()
            handled.append(type(event))
            return original(machine, event, now)

        machine_done = [0]

        def handlers_failing_at_the_end(machine, event, now, original):
            def failing(self, event, now):
                handlers[type(event)](self, event, now)
                machine_done[0] = len(self._ledger.actions)
                raise Broken

            with monkeypatch.context() as patch:
                patch.setitem(module._HANDLERS, type(event), failing)
                machine_done[0] = 100
                original(machine, event, now)

        monkeypatch.setattr(machine_type, "handle", handle)

    install(compute, compute.ComputeMachine)
    install(requester, requester.RequesterMachine)
    return handled


def test_an_event_that_raises_leaves_the_compute_machine_as_it_was(breaking):
    bench = ComputeBench()
    bench.announce(WITH_INPUT)
    bench.handle(cv.Inspected("alice", JOB, Findings(disk=7)))
    bench.receive(message_about(say.BidAccepted))
    bench.handle(cv.Prepared(FIRST))
    bench.wait(12)
    bench.handle(cv.RunFinished(FIRST, result_cid("result"), b"sealed"))
    bench.receive(message_about(say.ResultAccepted))
    bench.handle(cv.Published(FIRST, RESULT))
    bench.wait(300)
    bench.announce(job_id="j-2")
    bench.announce(WITH_INPUT, job_id="j-3")
    bench.receive(say.JobClosed(job_id="j-3"))
    bench.receive(message_about(say.BidAccepted, "e-2"))
    bench.receive(message_about(say.CancelExecution, "e-2"))
    bench.announce(job_id="j-4")
    bench.handle(cv.HandBack())
    assert {cv.AnnouncementReceived, cv.Inspected, TimePassed, cv.HandBack} <= set(breaking)


def test_an_event_that_raises_leaves_the_requesters_machine_as_it_was(breaking):
    bench = RequesterBench()
    bench.add_nodes(A, B, C)
    bench.submit(job(2, verifier="deterministic"))
    bench.bid(A)
    bench.bid(B)
    bench.bid(C)
    bench.wait(3)
    bench.propose(A)
    bench.propose(B)
    bench.propose(C)
    bench.judge(accepted=[A, B])
    bench.publish(A)
    bench.wait(30)
    bench.wait(300)
    assert TimePassed in breaking


def test_a_deadline_that_raises_is_handled_again_later_and_the_others_go_on(monkeypatch):
    bench = ComputeBench()
    bench.announce(job_id="j-1")
    bench.announce(job_id="j-2")
    original = compute.transitions.overdue

    def overdue(execution):
        if execution.job_id == "j-1":
            raise RuntimeError("bug")
        return original(execution)

    monkeypatch.setattr(compute.transitions, "overdue", overdue)
    bench.wait(compute.transitions.ACCEPTED_LATE_FOR)
    assert (bench.state("e-1"), bench.state("e-2")) == ("Bid", "Expired")
    ((name, error),) = bench.machine.take_faults()
    assert (name, str(error)) == ("execution e-1", "bug")
    monkeypatch.undo()
    bench.wait(RETRY_FAULTY_DEADLINE)
    assert bench.state("e-1") == "Expired"
