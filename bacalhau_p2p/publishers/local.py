"""Publishing by HTTP: the result is downloaded from the API of the node that ran the job."""

from __future__ import annotations

import time
from collections.abc import Callable

from bacalhau_p2p.errors import Fault, PublisherError
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.params import NoParams
from bacalhau_p2p.model.validation import param_faults
from bacalhau_p2p.publishers.retention import RETENTION, pin_result


class LocalPublisher:
    """The result stays pinned in this node's store, and its API serves it as a TAR.

    The location has the `CID` and the `URL`: `<base>/ipfs/<CID>?format=tar`.
    """

    def __init__(
        self,
        content: Content,
        *,
        base_url: Callable[[], str],
        keep: float = RETENTION,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`base_url` gives `http://host:port` of this node's API now, empty when there is none;
        `keep` is how long results are pinned, in seconds; `clock` is in UNIX seconds."""
        self._content = content
        self._base_url = base_url
        self._keep = keep
        self._clock = clock

    @property
    def type(self) -> str:
        return "local"

    def faults(self, publisher: SpecConfig) -> list[Fault]:
        return param_faults(NoParams, publisher)

    async def unavailable(self) -> str | None:
        return None if self._base_url() else "this node has no HTTP API"

    async def publish(
        self, publisher: SpecConfig, job_id: JobID, execution_id: ExecutionID, cid: str
    ) -> PublishedResult:
        """As `Publisher.publish`."""
        base = self._base_url().rstrip("/")
        if not base:
            raise PublisherError("this node has no HTTP API to serve the result")
        await pin_result(self._content, cid, execution_id, self._clock() + self._keep)
        params = {"CID": cid, "URL": f"{base}/ipfs/{cid}?format=tar"}
        return PublishedResult(cid=cid, location=SpecConfig(type=self.type, params=params))
