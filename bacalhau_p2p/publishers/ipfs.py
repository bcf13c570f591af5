"""Publishing over IPFS: the node keeps the result and serves it to peers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bacalhau_p2p.errors import Fault
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.params import NoParams
from bacalhau_p2p.model.validation import param_faults
from bacalhau_p2p.publishers.retention import RETENTION, pin_result


class IpfsPublisher:
    """The default publisher. The result stays pinned in this node's store, and any peer can fetch it.

    The location has the `CID` and the `Providers`: multiaddrs of this node.
    """

    def __init__(
        self,
        content: Content,
        *,
        addresses: Callable[[], Sequence[str]],
        keep: float = RETENTION,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`addresses` gives this node's multiaddrs now; `keep` is how long results are pinned,
        in seconds; `clock` is in UNIX seconds."""
        self._content = content
        self._addresses = addresses
        self._keep = keep
        self._clock = clock

    @property
    def type(self) -> str:
        return "ipfs"

    def faults(self, publisher: SpecConfig) -> list[Fault]:
        return param_faults(NoParams, publisher)

    async def unavailable(self) -> str | None:
        return None if self._addresses() else "this node has no address to listen on"

    async def publish(
        self, publisher: SpecConfig, job_id: JobID, execution_id: ExecutionID, cid: str
    ) -> PublishedResult:
        """As `Publisher.publish`."""
        await pin_result(self._content, cid, execution_id, self._clock() + self._keep)
        params = {"CID": cid, "Providers": list(self._addresses())}
        return PublishedResult(cid=cid, location=SpecConfig(type=self.type, params=params))
