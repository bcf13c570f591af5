"""Publishing to a kubo node of the operator's too, which serves the result to the IPFS network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE
from bacalhau_p2p.outbound.service import Service, ServiceFault, at, multipart
from bacalhau_p2p.publishers.keeping import PublishLimits
from bacalhau_p2p.publishers.remote import Result, check_cid

_MAX_ADDRESSES = 20


class Kubo:
    """Imports the result as a CAR by kubo's RPC, so that its CID is ours, and has kubo pin it.

    The location is that of the `ipfs` publisher; the `Providers` are this node and the kubo node.
    """

    type = "ipfs"

    def __init__(self, service: Service, addresses: Callable[[], Sequence[str]]) -> None:
        """`service` is kubo's RPC; `addresses` gives this node's multiaddrs now."""
        self._service = service
        self._addresses = addresses

    async def hand_over(self, result: Result, limits: PublishLimits) -> Mapping[str, Any]:
        """As `Handover.hand_over`."""
        form, content_type = multipart("file", f"{result.cid}.car", CAR_MEDIA_TYPE, result.car)
        lines = await self._service.lines(
            "/api/v0/dag/import",
            query={"pin-roots": "true", "stats": "true"},
            body=form,
            content_type=content_type,
        )
        roots = [root for line in lines if (root := at(line, "Root")) is not None]
        if len(roots) != 1:
            raise ServiceFault(f"{self._service.host} imported {len(roots)} roots, not one")
        # It answers 200 also when it could not pin.
        if message := at(roots[0], "PinErrorMsg"):
            raise ServiceFault(f"{self._service.host} could not pin it: {self._service.clean(str(message))}")
        check_cid(at(roots[0], "Cid", "/"), result.cid, self._service.host)
        theirs = at(await self._service.call("POST", "/api/v0/id"), "Addresses")
        known = [address for address in theirs or () if isinstance(address, str) and address.startswith("/")]
        return {"Providers": [*self._addresses(), *known[:_MAX_ADDRESSES]]}
