"""Publishes by a service of the operator's choice."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import trio

from bacalhau_p2p.errors import ContentError, Fault, PublisherError
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.params import NoParams
from bacalhau_p2p.model.validation import param_faults
from bacalhau_p2p.outbound.bodies import as_body
from bacalhau_p2p.outbound.service import ServiceError
from bacalhau_p2p.publishers.remote.service import RemoteLimits, RemoteService, Result
from bacalhau_p2p.publishers.retention import pin_result


class RemotePublisher:
    """Sends the result to a service, and waits until the service confirms it.

    The result must be complete in this node's store, and stays there too, pinned for `limits.keep`
    seconds. A failure is never permanent: another node has other credentials.
    """

    def __init__(
        self,
        content: Content,
        service: RemoteService | None,
        kind: str,
        *,
        addresses: Callable[[], Sequence[str]] = tuple,
        limits: RemoteLimits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`service` is None when the settings name none; `kind` is the publisher's type. `addresses` gives
        this node's multiaddrs now: the location's `Providers`, unless the service adds its own."""
        self._content = content
        self._service = service
        self._kind = kind
        self._addresses = addresses
        self._limits = limits or RemoteLimits()
        self._clock = clock

    @property
    def type(self) -> str:
        return self._kind

    def faults(self, publisher: SpecConfig) -> list[Fault]:
        return param_faults(NoParams, publisher)

    async def unavailable(self) -> str | None:
        return None if self._service else f"no {self._kind} service in this node's settings"

    async def publish(
        self, publisher: SpecConfig, job_id: JobID, execution_id: ExecutionID, cid: str
    ) -> PublishedResult:
        """As `Publisher.publish`."""
        if self._service is None:
            raise PublisherError(f"no {self._kind} service in this node's settings")
        await pin_result(self._content, cid, execution_id, self._clock() + self._limits.keep)
        root = CID.parse(cid)
        result = Result(
            job_id=job_id,
            execution_id=execution_id,
            cid=root,
            car=as_body(lambda: self._content.reader.car(root)),
        )
        try:
            with trio.fail_after(self._limits.total):
                details = await self._service.publish(result, self._limits)
        except trio.TooSlowError:
            raise PublisherError(
                f"publishing result {cid} failed: {self._kind} service did not confirm it within "
                f"{self._limits.total:g} s"
            ) from None
        except (ServiceError, ContentError) as error:
            raise PublisherError(f"publishing result {cid} failed: {error}") from None
        params = {"CID": cid, "Providers": list(self._addresses()), **details}
        return PublishedResult(cid=cid, location=SpecConfig(type=self._kind, params=params))
