"""Publishing by a pinning service: it fetches the result from this node and keeps it.

The IPFS Pinning Service API, as Pinata, Filebase, filecoin-pin and others speak it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import trio

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.outbound.service import Service, ServiceFault, at
from bacalhau_p2p.publishers.keeping import PublishLimits
from bacalhau_p2p.publishers.remote import Result, check_cid, poll
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.tasks import background

log = get_logger(__name__)

Connect = Callable[[str], Awaitable[object]]
"""Connects to the peer at a multiaddr. Raises PeerUnreachable."""

MAX_DELEGATES = 20
"""Addresses that are dialled for one pin."""
DIAL_WITHIN = 15.0
"""Seconds for each."""
_MAX_ADDRESS = 512
_MAX_ORIGINS = 20
"""Of the API."""
_STATES = frozenset({"queued", "pinning", "pinned", "failed"})


class PinningService:
    """Asks for a pin, then for its state until the service has it all; meanwhile this node serves it, and
    connects to the peers that the service names as those which will fetch it (its *delegates*).

    The location has the `CID`, the `Service` (its host) and the `RequestID` of the pin.
    """

    type = "pinning"

    def __init__(
        self, service: Service, addresses: Callable[[], Sequence[str]], connect: Connect | None = None
    ) -> None:
        """`addresses` gives the multiaddrs at which the service can fetch from this node now. `connect` dials
        a delegate; without it the service must find its way by itself."""
        self._service = service
        self._addresses = addresses
        self._connect = connect

    async def hand_over(self, result: Result, limits: PublishLimits) -> Mapping[str, Any]:
        """As `Handover.hand_over`; a pin that is there or under way is not asked for again."""
        async with background() as dialling:
            return await self._hand_over(result, limits, dialling)

    async def _hand_over(
        self, result: Result, limits: PublishLimits, dialling: trio.Nursery
    ) -> Mapping[str, Any]:
        status = await self._existing(result) or await self._ask(result)
        request_id = self._check(status, result)
        dialled = set[str]()

        async def is_pinned() -> bool:
            nonlocal status
            if at(status, "status") == "pinned":
                return True
            if at(status, "status") == "failed":
                raise ServiceFault(f"{self._service.host} could not pin it{self._details(status)}")
            for address in _delegates(status)[: MAX_DELEGATES - len(dialled)]:
                if self._connect is not None and address not in dialled:
                    dialled.add(address)
                    dialling.start_soon(_dial, self._connect, address)
            return False

        async def ask_again() -> bool:
            nonlocal status
            status = await self._service.call("GET", f"/pins/{quote(request_id, safe='')}")
            self._check(status, result)
            return await is_pinned()

        if not await is_pinned():
            await poll(ask_again, limits)
        return {"Service": self._service.host, "RequestID": request_id}

    async def _existing(self, result: Result) -> Any:
        """A pin of this CID that is not failed, or None."""
        query = {"cid": str(result.cid), "status": "queued,pinning,pinned", "limit": "1"}
        found = at(await self._service.call("GET", "/pins", query=query), "results")
        return found[0] if isinstance(found, list) and found else None

    async def _ask(self, result: Result) -> Any:
        wanted = {
            "cid": str(result.cid),
            "name": f"{result.job_id}/{result.execution_id}"[:255],
            "origins": list(self._addresses())[:_MAX_ORIGINS],
            "meta": {"job": result.job_id, "execution": result.execution_id},
        }
        return await self._service.call("POST", "/pins", value=wanted)

    def _check(self, status: Any, result: Result) -> str:
        """The id of the pin, if the answer is one about our CID. Raises ServiceFault."""
        request_id = at(status, "requestid")
        if (
            not isinstance(request_id, str)
            or not 0 < len(request_id) <= 256
            or at(status, "status") not in _STATES
        ):
            raise ServiceFault(f"{self._service.host} answered what is not the state of a pin")
        check_cid(at(status, "pin", "cid"), result.cid, self._service.host)
        return request_id

    def _details(self, status: Any) -> str:
        details = at(status, "info", "status_details")
        return (
            f": {self._service.clean(details)}"
            if isinstance(details, str) and re.search(r"\w", details)
            else ""
        )


def _delegates(status: Any) -> list[str]:
    """The multiaddrs of peers that a service names; what is none is left out."""
    named = at(status, "delegates")
    return [
        address
        for address in (named if isinstance(named, list) else ())
        if isinstance(address, str) and "/p2p/" in address and len(address) <= _MAX_ADDRESS
    ]


async def _dial(connect: Connect, address: str) -> None:
    """Best effort: a service that knows this node's addresses may come by itself."""
    try:
        with trio.fail_after(DIAL_WITHIN):
            await connect(address)
    except (PeerUnreachable, trio.TooSlowError) as error:
        log.info("delegate_not_reached", address=address, reason=str(error) or "it did not answer in time")
    else:
        log.info("delegate_reached", address=address)
