"""The no-op publisher, for jobs whose output fits into the result message."""

from __future__ import annotations

import trio

from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig


class NoopPublisher:
    """Publishes nothing; the node removes the result."""

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
        """The verified CID, without a location."""
        await trio.lowlevel.checkpoint()
        return PublishedResult(cid=cid, location=SpecConfig(type="noop"))
