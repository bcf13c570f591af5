"""The interface of publishers."""

from __future__ import annotations

from typing import Protocol

from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig


class Publisher(Protocol):
    """Puts accepted results in one kind of place. One object serves all executions of a node."""

    @property
    def type(self) -> str:
        """Its name in a task's `Publisher.Type`, lower case."""
        ...

    def faults(self, publisher: SpecConfig) -> list[Fault]:
        """What is wrong with these parameters, by path (`Params.Bucket`).

        Pure and fast: it looks at nothing but the parameters and this node's settings.
        """
        ...

    async def unavailable(self) -> str | None:
        """Why it cannot publish now, or None."""
        ...

    async def publish(
        self, publisher: SpecConfig, job_id: JobID, execution_id: ExecutionID, cid: str
    ) -> PublishedResult:
        """Publish the results folder with the root `cid`, all of which is in the node's block store.

        The result has the same CID. Raises PublisherError. Cancelled: may have published.
        """
        ...
