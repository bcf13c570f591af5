"""Handles on submitted jobs.

They work the same whether the requester is in this process or behind HTTP: each has a `Backend`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import anyio

from bacalhau_p2p.client import live, views
from bacalhau_p2p.client.backend import Backend
from bacalhau_p2p.client.results import Result, alike
from bacalhau_p2p.errors import JobFailed, JobNotFinished
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.history import HistoryEvent
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.logs import LogPiece, LogQuery
from bacalhau_p2p.model.parsing import job_from_mapping, parse_job
from bacalhau_p2p.model.state import ExecutionState, JobState

JobLike = JobSpec | Mapping[str, Any] | str | bytes
"""A job in any form that can be submitted: a spec, a mapping in Bacalhau's shape, JSON or YAML text."""


def spec_of(job: JobLike) -> JobSpec:
    """The specification of a job in any form. Raises InvalidJob."""
    if isinstance(job, JobSpec):
        return job
    return parse_job(job) if isinstance(job, str | bytes) else job_from_mapping(job)


class JobHandle:
    """A submitted job."""

    def __init__(self, backend: Backend, job_id: JobID) -> None:
        self._backend = backend
        self.id = job_id
        self._known: Job | None = None
        """As it was when it was last asked about."""
        self._known_executions: Sequence[Execution] = ()
        self._displays = live.Displays()

    def __repr__(self) -> str:
        return f"<JobHandle {self.id}{f' {self._known.state}' if self._known is not None else ''}>"

    def _repr_html_(self) -> str:
        return views.job(self.id, self._known, self._known_executions)

    def _ipython_display_(self) -> None:
        self._displays.show(self)

    async def _changes(self) -> AsyncGenerator[None, None]:
        """For a view of this handle: asks about the job again whenever something has happened to it, and
        says so."""
        refreshed = -live.REFRESH
        async with aclosing(self.events()) as events:
            async for _ in events:
                if anyio.current_time() - refreshed >= live.REFRESH:
                    refreshed = anyio.current_time()
                    await self._refresh()
                    yield
        await self._refresh()

    async def _refresh(self) -> None:
        await self.executions()
        await self.status()

    async def status(self) -> Job:
        """The job as its requester has it now."""
        self._known = await self._backend.job(self.id)
        self._displays.refresh(self)
        return self._known

    async def executions(self) -> Sequence[Execution]:
        """The executions of the job, in the order of their bids."""
        self._known_executions = await self._backend.executions(self.id)
        self._displays.refresh(self)
        return self._known_executions

    async def events(self, *, after: int = 0) -> AsyncGenerator[HistoryEvent, None]:
        """What has happened to the job so far, then what happens, until it has ended.

        The events have the numbers 1, 2, 3, ...; `after` is the number of the last one that is not wanted any
        more. Leaving the loop, or cancelling it, does nothing to the job. A stream that breaks goes on where
        it was.
        """
        async with aclosing(self._backend.events(self.id, after)) as events:
            async for event in events:
                yield event

    async def logs(
        self, *, follow: bool = False, tail: int | None = None, execution: str = ""
    ) -> AsyncGenerator[LogPiece, None]:
        """What the job has written to stdout and stderr, as it came: `piece.stream` and `piece.data`.

        With `follow` also what it writes, until it has ended. `tail`: only so many lines of each stream that
        are there already. `execution`: the beginning of an execution's id; by default the latest one, or one
        with a result. Leaving the loop does nothing to the job. Raises LogsUnavailable.
        """
        query = LogQuery(execution=execution, follow=follow, tail=tail)
        async with aclosing(self._backend.logs(self.id, query)) as pieces:
            async for piece in pieces:
                if piece is not None:
                    yield piece

    async def wait(self, timeout: float | None = None) -> Job:
        """The job once it has ended, or as it is after `timeout` seconds. Cancelled: the job continues."""
        self._known = await self._backend.wait(self.id, timeout)
        self._displays.refresh(self)
        return self._known

    async def wait_result(self, timeout: float | None = None, *, check: bool = False) -> Result:
        """The result of the job once it has completed.

        Raises JobFailed with the job's own message if it failed or was stopped, JobNotFinished if it has
        not ended after `timeout` seconds; with `check` also JobFailed if its exit code is not 0.
        Cancelled: the job continues.
        """
        job, executions = await self._ended(timeout)
        _require_completed(job, executions)
        result = Result(self._backend, job, executions)
        if check:
            result.check()
        return result

    async def results(
        self, timeout: float | None = None, *, check: bool = False, partial: bool = False
    ) -> Sequence[Result]:
        """The results of the job once it has completed: one of each partition in their order, and of an ops
        job one of each node. A job that is neither has one.

        With `partial` also of a job that has failed or was stopped: what there is. Otherwise raises as
        `wait_result`. Cancelled: the job continues.
        """
        job, executions = await self._ended(timeout)
        if not partial:
            _require_completed(job, executions)
        groups = alike(job, executions)
        if not groups and not partial:
            raise JobNotFinished(f"job {self.id} has completed, but has no published result")
        results = [Result(self._backend, job, group) for group in groups]
        if check:
            for result in results:
                result.check()
        return results

    async def _ended(self, timeout: float | None) -> tuple[Job, Sequence[Execution]]:
        """The job and its executions once it has ended. Raises JobNotFinished."""
        job, executions = await self._backend.wait_with_executions(self.id, timeout)
        self._known, self._known_executions = job, executions
        self._displays.refresh(self)
        if not job.state.terminal:
            waited = "" if timeout is None else f" after {timeout:g} s"
            reason = f": {job.message}" if job.message else ""
            raise JobNotFinished(f"job {self.id} is {job.state.lower()}{waited}{reason}")
        return job, executions

    async def cancel(self, reason: str = "cancelled by the user") -> None:
        """Stop the job. Does nothing if it has ended."""
        await self._backend.cancel(self.id, reason)


def _require_completed(job: Job, executions: Sequence[Execution]) -> None:
    """Raises JobFailed for a job that has ended without its results."""
    if job.state is not JobState.COMPLETED:
        message = job.message or f"job {job.id} has {job.state.lower()}"
        if job.state is JobState.STOPPED and job.message:
            message = f"{message} (job {job.id} was stopped)"
        raise JobFailed(message, last_lines=_last_lines(executions))


def _last_lines(executions: Sequence[Execution]) -> str:
    """The end of what the latest execution wrote that failed: it stands below the reason."""
    failed = [execution for execution in executions if execution.state is ExecutionState.FAILED]
    latest = max(failed, key=lambda execution: execution.modified, default=None)
    return latest.message.partition("\n")[2] if latest is not None else ""
