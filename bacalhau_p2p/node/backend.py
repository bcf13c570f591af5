"""The requester of a node in this process, as job handles use it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from math import inf
from pathlib import Path
from typing import Protocol

from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.history import HistoryPage
from bacalhau_p2p.model.logs import LogPiece, LogQuery
from bacalhau_p2p.requester.service import RequesterService


class NodeContent(Protocol):
    """Fetches content and writes it to disk, and reads what jobs write."""

    async def export(self, cid: str, target: Path, *, hints: Sequence[str] = ()) -> None: ...

    def logs(self, job_id: JobID, query: LogQuery) -> AsyncGenerator[LogPiece | None, None]: ...


class LocalBackend:
    """Job handles use it as a `Backend`, without HTTP in between."""

    def __init__(self, requester: RequesterService, exporter: NodeContent) -> None:
        self._requester = requester
        self._exporter = exporter

    async def job(self, job_id: JobID) -> Job:
        return self._requester.job(job_id)

    async def wait(self, job_id: JobID, timeout: float | None) -> Job:
        return await self._requester.wait(job_id, inf if timeout is None else timeout)

    async def executions(self, job_id: JobID) -> Sequence[Execution]:
        return self._requester.executions(job_id)

    async def history(self, job_id: JobID, after: int, timeout: float) -> HistoryPage:
        return await self._requester.history(job_id, after=after, timeout=timeout)

    def logs(self, job_id: JobID, query: LogQuery) -> AsyncGenerator[LogPiece | None, None]:
        return self._exporter.logs(job_id, query)

    async def cancel(self, job_id: JobID, reason: str) -> None:
        await self._requester.cancel(job_id, reason)

    async def export(self, cid: str, target: Path, *, hints: Sequence[str] = ()) -> None:
        await self._exporter.export(cid, target, hints=hints)
