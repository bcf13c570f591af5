"""Counts jobs and executions that begin, move on and end."""

from __future__ import annotations

from collections.abc import Hashable

from prometheus_client import CollectorRegistry, Counter, Histogram

from bacalhau_p2p.components.commit_plan import record_key
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.metrics.families import DURATIONS, PREFIX
from bacalhau_p2p.model.base import Model, UnixSeconds
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.state import ExecutionState, JobState

MAX_FOLLOWED = 20_000
"""Jobs and executions whose latest state is remembered; beyond, the oldest are forgotten."""


class Progress:
    """The counters and histograms of one node. Give it every version of every record."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._states: dict[Hashable, tuple[str, UnixSeconds]] = {}
        """The state of what has not ended, and since when."""

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(PREFIX + name, text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(PREFIX + name, text, labels, registry=registry, buckets=DURATIONS)

        self._submitted = counter("jobs_submitted", "Jobs that this requester accepted")
        self._ended = counter("jobs_ended", "Jobs of this requester that ended, by their last state", "state")
        self._queued = histogram("job_queue_seconds", "From a job's submission to its first accepted bid")
        self._lasted = histogram("job_duration_seconds", "From a job's submission to its end", "state")
        self._accepted = counter("bids_accepted", "Bids that this requester accepted")
        self._executions = counter(
            "executions_ended", "Executions of this requester's jobs that ended, by their last state", "state"
        )
        self._runs = counter(
            "compute_executions_ended",
            "Executions on this compute node that ended, by their last state",
            "state",
        )
        self._phases = histogram(
            "compute_phase_seconds", "Time that executions on this compute node spent in a state", "state"
        )

    def count(self, record: Model) -> None:
        """Count what has changed since the version before."""
        match record:
            case Job():
                self._job(record)
            case Execution():
                self._execution(record)
            case ComputeExecution():
                self._run(record)

    def _job(self, job: Job) -> None:
        before, _ = self._move(job, job.state, job.modified, ended=job.state.terminal)
        if before is None and job.revision == 1:
            self._submitted.inc()
        if before in (None, JobState.PENDING, JobState.QUEUED) and job.state == JobState.RUNNING:
            self._queued.observe(max(0.0, job.modified - job.created))
        if job.state.terminal:
            self._ended.labels(job.state).inc()
            self._lasted.labels(job.state).observe(max(0.0, job.modified - job.created))

    def _execution(self, execution: Execution) -> None:
        state = execution.state
        before, _ = self._move(execution, state, execution.modified, ended=state.terminal)
        if before is None and state == ExecutionState.BID_ACCEPTED:
            self._accepted.inc()
        if state.terminal:
            self._executions.labels(state).inc()

    def _run(self, execution: ComputeExecution) -> None:
        state = execution.state
        before, lasted = self._move(execution, state, execution.modified, ended=state.terminal)
        if before is not None and before != state:
            self._phases.labels(before).observe(lasted)
        if state.terminal:
            self._runs.labels(state).inc()

    def _move(self, record: Model, state: str, now: UnixSeconds, *, ended: bool) -> tuple[str | None, float]:
        """The state before, or None if the record is new here, and the seconds that it lasted."""
        key = type(record), record_key(record)
        before, since = self._states.get(key, (None, now))
        if ended:
            self._states.pop(key, None)
        elif before != state:
            self._states[key] = state, now
            if len(self._states) > MAX_FOLLOWED:
                del self._states[next(iter(self._states))]
        return before, max(0.0, now - since)
