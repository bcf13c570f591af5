"""Checks on histories: in order, without a gap, and of one mind with the records."""

from __future__ import annotations

from collections.abc import Collection

from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.requester.history import MAX_BIDDING_EVENTS
from tests.simulation.checks.violation import require
from tests.simulation.nodes.store import SimulatedStore


class HistoryChecks:
    def __init__(self, disturbed: Collection[JobID]) -> None:
        """Of `disturbed` jobs less is expected: records of theirs were refused."""
        self._disturbed = disturbed

    def check(self, store: SimulatedStore, job_id: JobID) -> None:
        """After each commit that concerns the job."""
        events, job = store.history(job_id), store.records.get(job_id)
        if not isinstance(job, Job):
            return
        numbers = [event.number for event in events]
        first = numbers[0] if numbers and job_id in self._disturbed else 1
        expected = list(range(first, first + len(numbers)))
        require(numbers == expected, "history", f"{job_id}: its events have the numbers {numbers}")
        times = [event.time for event in events]
        require(
            times == sorted(times), "history", f"{job_id}: its events are not in the order of their times"
        )
        if job_id in self._disturbed:
            return
        require(bool(events), "history", f"{job_id} has no history")
        begun = [event.kind is EventKind.SUBMITTED for event in events]
        require(begun == [True, *[False] * (len(events) - 1)], "history", f"{job_id} is not submitted once")
        ended = [event.state for event in events if event.kind is EventKind.ENDED]
        require(
            ended == [job.state] * job.state.terminal, "history", f"{job_id} is {job.state}, told: {ended}"
        )
        require(not ended or events[-1].state == job.state, "history", f"{job_id} goes on after its end")
        self._check_executions(store, job_id)

    def _check_executions(self, store: SimulatedStore, job_id: JobID) -> None:
        events = store.history(job_id)
        told = {event.execution_id: event.state for event in events if event.execution_id}
        crowded = len(events) >= MAX_BIDDING_EVENTS  # of bids nothing more is told
        for record in store.records.values():
            if isinstance(record, Execution) and record.job_id == job_id:
                if crowded and record.state in (ExecutionState.BID_RECEIVED, ExecutionState.BID_REJECTED):
                    continue
                what = f"{record.id} is {record.state}, told: {told.get(record.id)}"
                require(told.get(record.id) == record.state, "history", what)
