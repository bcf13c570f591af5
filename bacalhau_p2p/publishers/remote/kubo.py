"""Publishing to a kubo node of the operator as well, which serves the result to the IPFS network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE
from bacalhau_p2p.outbound.bodies import multipart
from bacalhau_p2p.outbound.service import Service, ServiceError, json_at
from bacalhau_p2p.publishers.remote.service import RemoteLimits, Result, check_cid

_MAX_ADDRESSES = 20
"""Addresses of the kubo node in a location."""


class Kubo:
    """Imports the result as a CAR by kubo's RPC, so that its CID stays the same, and has kubo pin it.

    The location is that of the `ipfs` publisher; the `Providers` are this node and the kubo node.
    """

    type = "ipfs"

    def __init__(self, service: Service, addresses: Callable[[], Sequence[str]]) -> None:
        """`service` is kubo's RPC; `addresses` gives this node's multiaddrs now."""
        self._service = service
        self._addresses = addresses

    async def publish(self, result: Result, limits: RemoteLimits) -> Mapping[str, Any]:
        """As `RemoteService.publish`."""
        host = self._service.host
        form, content_type = multipart("file", f"{result.cid}.car", CAR_MEDIA_TYPE, result.car)
        lines = await self._service.lines(
            "/api/v0/dag/import",
            query={"pin-roots": "true", "stats": "true"},
            body=form,
            content_type=content_type,
        )
        roots = [root for line in lines if (root := json_at(line, "Root")) is not None]
        if len(roots) != 1:
            raise ServiceError(f"{host}: import of {len(roots)} roots instead of one")
        # kubo answers 200 even when it could not pin.
        if message := json_at(roots[0], "PinErrorMsg"):
            raise ServiceError(f"{host}: pinning failed: {self._service.sanitized(str(message))}")
        check_cid(json_at(roots[0], "Cid", "/"), result.cid, host)
        listed = json_at(await self._service.call("POST", "/api/v0/id"), "Addresses")
        known = [each for each in listed or () if isinstance(each, str) and each.startswith("/")]
        return {"Providers": [*self._addresses(), *known[:_MAX_ADDRESSES]]}
