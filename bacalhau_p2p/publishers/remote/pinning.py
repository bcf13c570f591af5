"""Publishing by a pinning service, which fetches the result from this node and keeps it.

Uses the IPFS Pinning Service API, which Pinata, Filebase, filecoin-pin and others offer.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import trio

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.outbound.service import Service, ServiceError, json_at
from bacalhau_p2p.publishers.remote.service import RemoteLimits, Result, check_cid, poll
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.tasks import background

log = get_logger(__name__)

Connect = Callable[[str], Awaitable[object]]
"""Connects to the peer at a multiaddr. Raises PeerUnreachable."""

MAX_DELEGATES = 20
"""Addresses that are dialled for one pin."""
DIAL_TIMEOUT = 15.0
"""Seconds for each of them."""
_MAX_ADDRESS = 512
"""Characters of an address."""
_MAX_ORIGINS = 20
"""Addresses of this node in a request: the API allows no more."""
_STATES = frozenset({"queued", "pinning", "pinned", "failed"})


class PinningService:
    """Requests a pin, then its state until the service has fetched all of it. Meanwhile this node serves
    the blocks, and connects to the peers that the service names as its fetchers (*delegates*).

    The location has the `CID`, the `Service` (its host) and the `RequestID` of the pin.
    """

    type = "pinning"

    def __init__(
        self, service: Service, addresses: Callable[[], Sequence[str]], connect: Connect | None = None
    ) -> None:
        """`addresses` gives the multiaddrs at which the service can fetch from this node now. `connect` dials
        a delegate; without it the service must connect to this node by itself."""
        self._service = service
        self._addresses = addresses
        self._connect = connect

    async def publish(self, result: Result, limits: RemoteLimits) -> Mapping[str, Any]:
        """As `RemoteService.publish`; a pin that exists or is in progress is not requested again."""
        async with background() as dialling:
            return await self._pin(result, limits, dialling)

    async def _pin(self, result: Result, limits: RemoteLimits, dialling: trio.Nursery) -> Mapping[str, Any]:
        status = await self._existing(result) or await self._request(result)
        request_id = self._check(status, result)
        dialled = set[str]()

        async def is_pinned() -> bool:
            nonlocal status
            if json_at(status, "status") == "pinned":
                return True
            if json_at(status, "status") == "failed":
                raise ServiceError(f"{self._service.host}: pinning failed{self._details(status)}")
            for address in _delegates(status)[: MAX_DELEGATES - len(dialled)]:
                if self._connect is not None and address not in dialled:
                    dialled.add(address)
                    dialling.start_soon(_dial, self._connect, address)
            return False

        async def is_pinned_now() -> bool:
            nonlocal status
            status = await self._service.call("GET", f"/pins/{quote(request_id, safe='')}")
            self._check(status, result)
            return await is_pinned()

        if not await is_pinned():
            await poll(is_pinned_now, limits)
        return {"Service": self._service.host, "RequestID": request_id}

    async def _existing(self, result: Result) -> Any:
        """A pin of this CID that has not failed, or None."""
        query = {"cid": str(result.cid), "status": "queued,pinning,pinned", "limit": "1"}
        found = json_at(await self._service.call("GET", "/pins", query=query), "results")
        return found[0] if isinstance(found, list) and found else None

    async def _request(self, result: Result) -> Any:
        wanted = {
            "cid": str(result.cid),
            "name": f"{result.job_id}/{result.execution_id}"[:255],
            "origins": list(self._addresses())[:_MAX_ORIGINS],
            "meta": {"job": result.job_id, "execution": result.execution_id},
        }
        return await self._service.call("POST", "/pins", value=wanted)

    def _check(self, status: Any, result: Result) -> str:
        """The id of the pin. Raises ServiceError unless the answer is about our CID."""
        request_id = json_at(status, "requestid")
        if (
            not isinstance(request_id, str)
            or not 0 < len(request_id) <= 256
            or json_at(status, "status") not in _STATES
        ):
            raise ServiceError(f"{self._service.host}: the answer is not the state of a pin")
        check_cid(json_at(status, "pin", "cid"), result.cid, self._service.host)
        return request_id

    def _details(self, status: Any) -> str:
        details = json_at(status, "info", "status_details")
        return (
            f": {self._service.sanitized(details)}"
            if isinstance(details, str) and re.search(r"\w", details)
            else ""
        )


def _delegates(status: Any) -> list[str]:
    """The multiaddrs of peers that a service names; anything else is left out."""
    named = json_at(status, "delegates")
    return [
        address
        for address in (named if isinstance(named, list) else ())
        if isinstance(address, str) and "/p2p/" in address and len(address) <= _MAX_ADDRESS
    ]


async def _dial(connect: Connect, address: str) -> None:
    """Best effort: a service that knows this node's addresses may connect by itself."""
    try:
        with trio.fail_after(DIAL_TIMEOUT):
            await connect(address)
    except (PeerUnreachable, trio.TooSlowError) as error:
        log.info(
            "delegate_not_reached",
            address=address,
            reason=str(error) or f"no answer within {DIAL_TIMEOUT:g} s",
        )
    else:
        log.info("delegate_reached", address=address)
