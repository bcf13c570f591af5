"""What the publishers share that hand a result to a service of their operator's choosing."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from bacalhau_p2p.errors import ContentError, Fault, InvalidCID, InvalidJob, PublisherError
from bacalhau_p2p.ipfs.content import Content
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.params import NoParams
from bacalhau_p2p.model.validation import read_params
from bacalhau_p2p.outbound.service import Body, ServiceFault, as_body
from bacalhau_p2p.publishers.keeping import PublishLimits, pin_result


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One result to be handed over, which this node holds."""

    job_id: JobID
    execution_id: ExecutionID
    cid: CID
    car: Body


class Handover(Protocol):
    """How one kind of service takes a result."""

    @property
    def type(self) -> str: ...

    async def hand_over(self, result: Result, limits: PublishLimits) -> Mapping[str, Any]:
        """Returns once the service confirmed that it keeps the result; what the location should tell.

        Raises ServiceFault.
        """
        ...


class RemotePublisher:
    """A publisher that gives the result to a service and waits until that confirms it.

    The result is checked to be complete first, and stays in this node's store too, pinned for
    `limits.keep` seconds. A failure is never permanent: another node has other credentials.
    """

    def __init__(
        self,
        content: Content,
        handover: Handover | None,
        kind: str,
        *,
        addresses: Callable[[], Sequence[str]] = tuple,
        limits: PublishLimits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`handover` is None when the settings name no such service; `kind` is the publisher's type.
        `addresses` gives this node's multiaddrs now: the location's `Providers`, unless the service adds
        some of its own."""
        self._content = content
        self._handover = handover
        self._kind = kind
        self._addresses = addresses
        self._limits = limits or PublishLimits()
        self._clock = clock

    @property
    def type(self) -> str:
        return self._kind

    def faults(self, publisher: SpecConfig) -> list[Fault]:
        try:
            read_params(NoParams, publisher)
        except InvalidJob as error:
            return list(error.faults)
        return []

    async def unavailable(self) -> str | None:
        return None if self._handover else f"the settings of this node name no {self._kind} service"

    async def publish(
        self, publisher: SpecConfig, job_id: JobID, execution_id: ExecutionID, cid: str
    ) -> PublishedResult:
        """As `Publisher.publish`."""
        if self._handover is None:
            raise PublisherError(f"the settings of this node name no {self._kind} service")
        await pin_result(self._content, cid, execution_id, self._clock() + self._limits.keep)
        root = CID.parse(cid)
        result = Result(
            job_id=job_id,
            execution_id=execution_id,
            cid=root,
            car=as_body(lambda: self._content.car(root)),
        )
        try:
            with trio.fail_after(self._limits.total):
                told = await self._handover.hand_over(result, self._limits)
        except trio.TooSlowError:
            problem = f"{self._kind} did not confirm result {cid} within {self._limits.total:g} s"
            raise PublisherError(problem) from None
        except (ServiceFault, ContentError) as error:
            raise PublisherError(f"result {cid} is not published: {error}") from None
        params = {"CID": cid, "Providers": list(self._addresses()), **told}
        return PublishedResult(cid=cid, location=SpecConfig(type=self._kind, params=params))


def check_cid(said: object, cid: CID, host: str) -> None:
    """Raises ServiceFault unless a service speaks of the CID that we gave it, in whatever spelling."""
    try:
        same = isinstance(said, str) and CID.parse(said).v1 == cid.v1
    except InvalidCID:
        same = False
    if not same:
        shown = said if isinstance(said, str) and said.isalnum() and len(said) <= 128 else "no CID"
        raise ServiceFault(f"{host} answered for {shown}, not for {cid}")


async def poll(ask: Callable[[], Awaitable[bool]], limits: PublishLimits) -> None:
    """Ask until the answer is yes. The total time is the caller's to bound."""
    asked = 0
    while not await ask():
        await trio.sleep(limits.polls[min(asked, len(limits.polls) - 1)])
        asked += 1
