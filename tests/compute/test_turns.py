"""A large job that waits is not overtaken by small ones for ever: `turns`, `room`, `capacity`."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.room import NOT_ITS_TURN
from bacalhau_p2p.compute.turns import LONGEST_TURN, PATIENCE
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.job import JobSpec
from tests.support.machines.compute_bench import ComputeBench, small_job

ALICE, BOB = PeerID("alice"), PeerID("bob")
LARGE = small_job(cpu="4")
REANNOUNCED = 20
"""Seconds between two announcements of a job that waits."""


class Bench(ComputeBench):
    """A node with 4 cores, on which small jobs of half a core run."""

    def __init__(self) -> None:
        super().__init__(cpu=4)
        self.small = 0
        self.running: dict[ExecutionID, tuple[PeerID, str]] = {}
        """Executions that run, with their requesters and jobs, the oldest first."""

    def offer(self, spec: JobSpec, job_id: str, author: PeerID = ALICE) -> list[say.Message]:
        return self.take(self.announce(spec, job_id, author=author))

    def take(self, actions: list[ev.Action]) -> list[say.Message]:
        """Accept every bid; what else was sent."""
        others = []
        for action in actions:
            message = getattr(action, "message", None)
            if isinstance(message, say.Bid):
                accepted = say.BidAccepted(job_id=message.job_id, execution_id=message.execution_id)
                self.receive(accepted, author=action.to)
                self.handle(ev.Prepared(message.execution_id))
                self.running[message.execution_id] = action.to, message.job_id
            elif message is not None:
                others.append(message)
        return others

    def end(self, execution_id: ExecutionID) -> None:
        del self.running[execution_id]
        self.take(self.handle(ev.StepFailed(execution_id, "ended", False)))

    def pass_seconds(self, seconds: int, *, stuck: str = "") -> None:
        """Each second the oldest run ends, but not that of `stuck`, and Alice announces another small job."""
        for _ in range(seconds):
            self.take(self.wait(1.0))
            oldest = next((key for key, (_, job) in self.running.items() if job != stuck), None)
            if oldest is not None:
                self.end(oldest)
            self.small += 1
            self.offer(small_job(), f"small-{self.small}")

    def has(self, job_id: str) -> bool:
        return any(job == job_id for _, job in self.running.values())


@pytest.fixture
def bench():
    bench = Bench()
    for number in range(8):
        bench.offer(small_job(), f"first-{number}")
    assert len(bench.running) == 8
    return bench


def test_a_large_job_gets_its_turn_however_many_small_ones_come(bench):
    for second in range(100):
        if second % REANNOUNCED == 0:
            bench.offer(LARGE, "large")
        bench.pass_seconds(1)
        if bench.has("large"):
            return
    pytest.fail("the large job starves")


def test_until_it_has_waited_for_long_small_jobs_use_the_room(bench):
    bench.offer(LARGE, "large")
    bench.pass_seconds(int(PATIENCE) - 1)
    assert len(bench.running) == 8


@pytest.fixture
def waiting(bench):
    """It is the turn of the large job, and four small ones still run."""
    bench.offer(LARGE, "large")
    bench.pass_seconds(int(PATIENCE) + 3)
    assert len(bench.running) == 4
    return bench


def test_who_must_wait_for_it_is_told_why_and_gets_a_bid_afterwards(waiting):
    declined = waiting.offer(small_job(), "late")[-1]
    assert (declined.kind, declined.reason, declined.busy) == ("bid_declined", NOT_ITS_TURN, True)
    while not waiting.has("large"):
        waiting.end(next(iter(waiting.running)))
    assert not waiting.has("late")
    waiting.end(next(iter(waiting.running)))
    assert waiting.has("late")


def test_a_more_urgent_job_does_not_wait(waiting):
    waiting.offer(small_job(Priority=1), "urgent")
    assert waiting.has("urgent")


def test_when_it_is_placed_elsewhere_small_jobs_go_on(waiting):
    waiting.receive(say.JobClosed(job_id=JobID("large")), author=ALICE)
    waiting.pass_seconds(2)
    assert len(waiting.running) == 8


def test_its_turn_does_not_last_for_ever_and_is_followed_by_a_pause(bench):
    _, stuck = next(iter(bench.running.values()))
    for _ in range(int((PATIENCE + LONGEST_TURN) / REANNOUNCED) + 1):
        bench.offer(LARGE, "large")
        bench.pass_seconds(REANNOUNCED, stuck=stuck)
    bench.offer(small_job(), "after")
    assert len(bench.running) == 8


def test_a_job_that_waits_for_more_than_room_keeps_none_from_others(bench):
    """Since Bob was turned away, Alice may hold half of the node, and she does."""
    bench.offer(LARGE, "large")
    bench.offer(small_job(), "bobs", BOB)
    bench.pass_seconds(int(PATIENCE) + 3, stuck="bobs")
    bench.offer(small_job(), "bobs-second", BOB)
    assert bench.has("bobs")
    assert bench.has("bobs-second")


def test_a_job_that_takes_nothing_of_what_it_lacks_does_not_wait():
    bench = Bench()
    room = bench.machine.capacity
    needs_memory = small_job(cpu="0.1", task={"Resources": {"CPU": "0.1", "Memory": "2GB"}})
    bench.offer(small_job(task={"Resources": {"CPU": "0.1", "Memory": "1GB"}}), "first")
    bench.offer(needs_memory, "large")
    bench.take(bench.wait(PATIENCE + 1))
    bench.offer(small_job(task={"Resources": {"CPU": "0.1", "Memory": "500MB"}}), "wants-memory")
    assert room.available.memory > 500_000_000
    assert not bench.has("wants-memory")
