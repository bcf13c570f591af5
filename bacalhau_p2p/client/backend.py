"""What job handles, results and both kinds of node need: a node in this process, or one behind HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Protocol

from bacalhau_p2p.client.calls import EventFilter
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.history import HistoryEvent
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.logs import LogPiece, LogQuery
from bacalhau_p2p.model.node import NodeInfo


class Backend(Protocol):
    """A requester and its content. Cancelling any method is safe."""

    async def submit(self, spec: JobSpec, token: str | None) -> JobID:
        """Accept a job. When this returns, no crash loses it. A token that was used before returns its job.

        Raises InvalidJob."""
        ...

    async def job(self, job_id: str) -> Job:
        """The job with this id, name or prefix of an id, as it is now. Raises UnknownJob, AmbiguousID."""
        ...

    async def jobs(self, limit: int, id_prefix: str) -> Sequence[Job]:
        """The latest jobs whose id has this prefix, newest first."""
        ...

    async def wait(self, job_id: JobID, timeout: float | None) -> Job:
        """The job once it is in a terminal state, or as it is after `timeout` seconds.

        Raises UnknownJob. Cancelled: the job continues."""
        ...

    async def wait_with_executions(
        self, job_id: JobID, timeout: float | None
    ) -> tuple[Job, Sequence[Execution]]:
        """Like `wait`, with the executions of the job."""
        ...

    async def executions(self, job_id: JobID) -> Sequence[Execution]:
        """The executions of the job, in the order of their bids."""
        ...

    def events(self, job_id: JobID, after: int) -> AsyncGenerator[HistoryEvent, None]:
        """The events of the job that follow number `after`, as they come, until it has ended. Raises
        UnknownJob."""
        ...

    def feed(self, wanted: EventFilter, after: int | None) -> AsyncGenerator[HistoryEvent, None]:
        """The events of all jobs behind the place `after`, or from now on; endless. Raises UnknownJob,
        ApiError."""
        ...

    def logs(self, job_id: JobID, query: LogQuery) -> AsyncGenerator[LogPiece | None, None]:
        """What the job writes to stdout and stderr; None when nothing came for a while. Raises UnknownJob,
        LogsUnavailable."""
        ...

    async def cancel(self, job_id: JobID, reason: str) -> None:
        """Stop the job. Does nothing if it has ended."""
        ...

    async def nodes(self) -> Sequence[NodeInfo]:
        """The nodes that this one knows, itself included."""
        ...

    async def add(self, path: Path) -> str:
        """Add a file or folder to the node, which pins it; the result is its CID. Raises ContentError."""
        ...

    async def export(self, cid: str, target: Path, *, hints: Sequence[str] = ()) -> None:
        """Write the content of `cid` to `target`, which must not exist. `hints` are multiaddrs of peers
        that may have it. Raises ContentError; then nothing is left at `target`."""
        ...

    def read(self, cid: str, *, hints: Sequence[str] = ()) -> AsyncGenerator[bytes, None]:
        """The bytes of the file `CID[/path]`, in pieces as they arrive, each block verified. Raises
        ContentError."""
        ...
