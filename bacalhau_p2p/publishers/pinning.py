"""Publishing by a pinning service: it fetches the result from this node and keeps it.

The IPFS Pinning Service API, as Pinata, Filebase, filecoin-pin and others speak it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from bacalhau_p2p.outbound.service import Service, ServiceFault, at
from bacalhau_p2p.publishers.keeping import PublishLimits
from bacalhau_p2p.publishers.remote import Result, check_cid, poll

_MAX_ORIGINS = 20
"""Of the API."""
_STATES = frozenset({"queued", "pinning", "pinned", "failed"})


class PinningService:
    """Asks for a pin, then for its state until the service has it all; meanwhile this node serves it.

    The location has the `CID`, the `Service` (its host) and the `RequestID` of the pin.
    """

    type = "pinning"

    def __init__(self, service: Service, addresses: Callable[[], Sequence[str]]) -> None:
        """`addresses` gives the multiaddrs at which the service can fetch from this node now."""
        self._service = service
        self._addresses = addresses

    async def hand_over(self, result: Result, limits: PublishLimits) -> Mapping[str, Any]:
        """As `Handover.hand_over`; a pin that is there or under way is not asked for again."""
        status = await self._existing(result) or await self._ask(result)
        request_id = self._check(status, result)

        async def is_pinned() -> bool:
            nonlocal status
            if at(status, "status") == "pinned":
                return True
            if at(status, "status") == "failed":
                raise ServiceFault(f"{self._service.host} could not pin it{self._details(status)}")
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
