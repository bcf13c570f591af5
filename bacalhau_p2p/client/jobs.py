"""Handles on a submitted job and on its result.

They work the same whether the requester is in this process or behind HTTP: each has a `Backend`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Protocol

from bacalhau_p2p.client.calls import LONG_POLL
from bacalhau_p2p.errors import JobFailed, JobNotFinished
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.execution import Execution, Job, PublishedResult, RunOutput
from bacalhau_p2p.model.history import HistoryEvent, HistoryPage
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.logs import LogPiece, LogQuery
from bacalhau_p2p.model.parsing import job_from_mapping, parse_job
from bacalhau_p2p.model.state import ExecutionState, JobState

JobLike = JobSpec | Mapping[str, Any] | str | bytes
"""A job in any form that can be submitted: a spec, a mapping in Bacalhau's shape, JSON or YAML text."""


class Backend(Protocol):
    """A requester, in this process or behind HTTP."""

    async def job(self, job_id: JobID) -> Job:
        """The job as it is now. Raises UnknownJob, AmbiguousID."""
        ...

    async def wait(self, job_id: JobID, timeout: float | None) -> Job:
        """The job once it is in a terminal state, or as it is after `timeout` seconds.

        Raises UnknownJob. Cancelled: the job continues."""
        ...

    async def executions(self, job_id: JobID) -> Sequence[Execution]:
        """The executions of the job, in the order of their bids."""
        ...

    async def history(self, job_id: JobID, after: int, timeout: float) -> HistoryPage:
        """The events of the job that follow number `after`. If there is none, and the job has not ended, it
        waits for one up to `timeout` seconds. Raises UnknownJob."""
        ...

    def logs(self, job_id: JobID, query: LogQuery) -> AsyncGenerator[LogPiece | None, None]:
        """What the job writes to stdout and stderr; None when nothing came for a while. Raises UnknownJob,
        LogsUnavailable."""
        ...

    async def cancel(self, job_id: JobID, reason: str) -> None:
        """Stop the job. Does nothing if it has ended."""
        ...

    async def export(self, cid: str, target: Path, *, hints: Sequence[str] = ()) -> None:
        """Write the content of `cid` to `target`, which must not exist. `hints` are multiaddrs of peers
        that may have it. Raises ContentError; then nothing is left at `target`."""
        ...


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

    def __repr__(self) -> str:
        return f"<JobHandle {self.id}>"

    async def status(self) -> Job:
        """The job as its requester has it now."""
        return await self._backend.job(self.id)

    async def executions(self) -> Sequence[Execution]:
        """The executions of the job, in the order of their bids."""
        return await self._backend.executions(self.id)

    async def events(self, *, after: int = 0) -> AsyncIterator[HistoryEvent]:
        """What has happened to the job so far, then what happens, until it has ended.

        The events have the numbers 1, 2, 3, ...; `after` is the number of the last one that is not wanted any
        more. Leaving the loop, or cancelling it, does nothing to the job.
        """
        while True:
            page = await self._backend.history(self.id, after, LONG_POLL)
            for event in page.events:
                yield event
                after = event.number
            if page.ended:
                return

    async def logs(
        self, *, follow: bool = False, tail: int | None = None, execution: str = ""
    ) -> AsyncIterator[LogPiece]:
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
        return await self._backend.wait(self.id, timeout)

    async def wait_result(self, timeout: float | None = None) -> Result:
        """The result of the job once it has completed.

        Raises JobFailed with the job's own message if it failed or was stopped, JobNotFinished if it has
        not ended after `timeout` seconds. Cancelled: the job continues.
        """
        job = await self._backend.wait(self.id, timeout)
        if not job.state.terminal:
            waited = "" if timeout is None else f" after {timeout:g} s"
            raise JobNotFinished(f"job {self.id} is {job.state.lower()}{waited}")
        if job.state is not JobState.COMPLETED:
            raise JobFailed(job.message or f"job {self.id} has {job.state.lower()}")
        return Result(self._backend, job, await self._backend.executions(self.id))

    async def cancel(self, reason: str = "cancelled by the user") -> None:
        """Stop the job. Does nothing if it has ended."""
        await self._backend.cancel(self.id, reason)


class Result:
    """The result of a completed job: a folder with `stdout`, `stderr`, `exitCode` and its outputs.

    If several executions were accepted, this is the result of the first. A verifier that compares
    results has found them equal. `executions` has all of them.
    """

    def __init__(self, backend: Backend, job: Job, executions: Sequence[Execution]) -> None:
        self._backend = backend
        self.job = job
        self.executions = tuple(e for e in executions if e.state is ExecutionState.COMPLETED)
        if not self.executions:
            raise JobNotFinished(f"job {job.id} has completed, but has no published result")

    def __repr__(self) -> str:
        return f"<Result of job {self.job.id}: {self.cid}>"

    @property
    def published(self) -> PublishedResult | None:
        """Where the result is published; None if the publisher publishes nothing."""
        return self.executions[0].published

    @property
    def cid(self) -> str:
        """The CID of the results folder."""
        if self.published is not None:
            return self.published.cid
        proposal = self.executions[0].proposal
        return proposal.result_cid if proposal else ""

    @property
    def output(self) -> RunOutput:
        """The exit code and the first 2 KiB of stdout and stderr; the folder has all of them."""
        proposal = self.executions[0].proposal
        return proposal.output if proposal else RunOutput()

    @property
    def exit_code(self) -> int:
        return self.output.exit_code

    @property
    def stdout(self) -> bytes:
        """The first 2 KiB."""
        return self.output.stdout

    @property
    def stderr(self) -> bytes:
        """The first 2 KiB."""
        return self.output.stderr

    async def fetch(self, folder: Path | str) -> Path:
        """Write the results folder to `folder`, which must not exist, and return its path.

        Every block is verified against its CID. Raises ContentError; then nothing is left there.
        """
        target = Path(folder)
        await self._backend.export(self.cid, target, hints=_providers(self.published))
        return target


def _providers(published: PublishedResult | None) -> Sequence[str]:
    providers = published.location.params.get("Providers") if published else None
    if not isinstance(providers, list | tuple):
        return ()
    return [address for address in providers if isinstance(address, str)]
