"""Publishing into the IPFS network that our peers are: the node keeps the result and serves it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bacalhau_p2p.errors import Fault
from bacalhau_p2p.ipfs.content import Content
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.publishers.keeping import KEEP, pin_result


class IpfsPublisher:
    """The default publisher. The result stays in this node's store, pinned, and any peer can fetch it.

    The location has the `CID` and the `Providers`: multiaddrs of this node.
    """

    def __init__(
        self,
        content: Content,
        *,
        addresses: Callable[[], Sequence[str]],
        keep: float = KEEP,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`addresses` gives this node's multiaddrs now; `keep` is how long results are pinned, in
        seconds from the publishing; `clock` is in UNIX seconds."""
        self._content = content
        self._addresses = addresses
        self._keep = keep
        self._clock = clock

    @property
    def type(self) -> str:
        return "ipfs"

    def faults(self, publisher: SpecConfig) -> list[Fault]:
        return [Fault(f"Params.{name}", "not known") for name in publisher.params]

    async def unavailable(self) -> str | None:
        return None if self._addresses() else "this node listens on no address"

    async def publish(
        self, publisher: SpecConfig, job_id: JobID, execution_id: ExecutionID, cid: str
    ) -> PublishedResult:
        """As `Publisher.publish`."""
        await pin_result(self._content, cid, execution_id, self._clock() + self._keep)
        params = {"CID": cid, "Providers": list(self._addresses())}
        return PublishedResult(cid=cid, location=SpecConfig(type=self.type, params=params))
