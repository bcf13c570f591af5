"""The no-op publisher: for jobs whose first output, which travels with the result, is all that matters."""

from __future__ import annotations

import trio

from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig


class NoopPublisher:
    """Puts the result nowhere; its node forgets it."""

    @property
    def type(self) -> str:
        return "noop"

    def faults(self, publisher: SpecConfig) -> list[Fault]:
        return []

    async def unavailable(self) -> str | None:
        return None

    async def publish(
        self, publisher: SpecConfig, job_id: JobID, execution_id: ExecutionID, cid: str
    ) -> PublishedResult:
        """The CID that was verified, and no place to have it from."""
        await trio.lowlevel.checkpoint()
        return PublishedResult(cid=cid, location=SpecConfig(type="noop"))
