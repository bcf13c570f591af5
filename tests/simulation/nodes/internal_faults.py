"""Faults of a node itself, where its driver meets them: a handler that raises, a record that is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from bacalhau_p2p.components.commit_plan import Commit, QueuedEvent
from bacalhau_p2p.components.event_faults import ids_of
from bacalhau_p2p.compute import events as cv
from bacalhau_p2p.compute.machine import ComputeMachine
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import Job
from bacalhau_p2p.requester import events as rv
from bacalhau_p2p.requester.machine import RequesterMachine
from tests.simulation.nodes.process import Process

REASON = "it cannot be stored: a simulated fault"


class HandlerRaised(Exception):
    """A planned fault of a handler."""


class InternalFaults:
    """The planned faults of one machine."""

    def __init__(self, process: Process, machine: Any) -> None:
        self._process = process
        self._machine = machine
        self._isolated = machine._ledger.isolated
        machine._ledger.isolated = self._isolated_and_perhaps_raising
        self._refused: set[object] = set()

    def handle(self, queued: QueuedEvent, now: float) -> tuple[QueuedEvent, list[Any]]:
        """As the driver does: an event whose handler raises is dropped, and has changed nothing."""
        event = queued.event
        resumes = isinstance(event, cv.Resumed | rv.Resumed)  # it would be lost until the next start
        if resumes or not self._process.handler_raises(self._jobs_of(event)):
            return queued, list(self._machine.handle(event, now))
        try:
            with self._machine._ledger.all_or_nothing():
                self._machine.handle(event, now)
                raise HandlerRaised
        except HandlerRaised:
            if queued.refuse is not None:
                queued.refuse("its handler raised")
        return replace(queued, confirm=None, refuse=None, note=None), []

    def storable(self, commit: Commit) -> tuple[Commit, list[Any]]:
        """The commit without the records that are refused, and those that the machine must be told of."""
        refused = [each for each in commit.records if self._process.refuses(_job_of(each))]
        kept = tuple(each for each in commit.records if each not in refused)
        return replace(commit, records=kept), refused

    @contextmanager
    def _isolated_and_perhaps_raising(self, name: str) -> Iterator[None]:
        with self._isolated(name):
            yield
            what, _, which = name.rpartition(" ")
            jobs = self._jobs_named(which) if what in ("job", "execution") else set()
            if self._process.handler_raises(jobs):
                raise HandlerRaised

    def _jobs_of(self, event: Any) -> set[JobID]:
        message = getattr(event, "message", event)
        lines = getattr(message, "executions", ())
        names = ids_of(event)
        for line in lines if isinstance(lines, tuple) else ():
            names |= {getattr(line, "execution_id", ""), getattr(line, "job_id", "")}
        return {job for name in names if name for job in self._jobs_named(name)}

    def _jobs_named(self, name: str) -> set[JobID]:
        """The job of this id, or of the execution of this id."""
        if isinstance(self._machine, ComputeMachine):
            execution = self._machine.executions.get(ExecutionID(name))
            return {execution.job_id if execution is not None else JobID(name)}
        assert isinstance(self._machine, RequesterMachine)
        return {self._machine._ledger.job_of.get(ExecutionID(name), JobID(name))}


def _job_of(record: Any) -> JobID:
    return record.id if isinstance(record, Job) else record.job_id
