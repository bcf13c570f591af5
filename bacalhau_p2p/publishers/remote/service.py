"""What a service outside the network does with one result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from bacalhau_p2p.errors import InvalidCID
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.outbound.bodies import Body
from bacalhau_p2p.outbound.service import ServiceError
from bacalhau_p2p.publishers.retention import PUBLISH_TIMEOUT, RETENTION


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteLimits:
    """Times for publishing by a service, in seconds."""

    total: float = PUBLISH_TIMEOUT
    """Until the service must have confirmed the result."""
    polls: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 15.0)
    """Between requests for the state of a result; the last one is repeated."""
    keep: float = RETENTION
    """For which this node keeps the result after it was published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A result that this node holds."""

    job_id: JobID
    execution_id: ExecutionID
    cid: CID
    car: Body


class RemoteService(Protocol):
    """How one kind of service takes a result."""

    @property
    def type(self) -> str: ...

    async def publish(self, result: Result, limits: RemoteLimits) -> Mapping[str, Any]:
        """Returns once the service confirmed that it keeps the result: parameters for its location.

        Raises ServiceError.
        """
        ...


def check_cid(returned: object, cid: CID, host: str) -> None:
    """Raises ServiceError unless a service returned the CID of our result, in any notation."""
    try:
        same = isinstance(returned, str) and CID.parse(returned).v1 == cid.v1
    except InvalidCID:
        same = False
    if not same:
        is_plain = isinstance(returned, str) and returned.isalnum() and len(returned) <= 128
        raise ServiceError(f"{host}: answer for {returned if is_plain else 'no valid CID'}, not for {cid}")


async def poll(is_done: Callable[[], Awaitable[bool]], limits: RemoteLimits) -> None:
    """Ask until the answer is yes. The caller bounds the total time."""
    asked = 0
    while not await is_done():
        await trio.sleep(limits.polls[min(asked, len(limits.polls) - 1)])
        asked += 1
