"""Servers that send content as a CAR: kubo nodes and trustless gateways."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

import trio

from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE_DEPTH_FIRST, RAW_MEDIA_TYPE
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.limits import MAX_BLOCK
from bacalhau_p2p.outbound.service import Service, ServiceError

_STAT_TIMEOUT = 5.0
"""Seconds for kubo to say whether it has a block."""


class CarSource(Protocol):
    """A server that sends a whole DAG as a CAR. Nothing that it sends is verified yet."""

    @property
    def kind(self) -> str:
        """What kind of server it is, for messages."""
        ...

    @property
    def host(self) -> str: ...

    async def has(self, cid: CID) -> bool:
        """Whether the server says at once that it holds this, without a search."""
        ...

    async def block(self, cid: CID) -> bytes | None:
        """One block, if the server sends it at once."""
        ...

    def car(self, cid: CID, limit: int) -> AsyncGenerator[bytes, None]:
        """The DAG below `cid`, at most `limit` bytes. Raises ServiceError."""
        ...


class _ServiceSource:
    """A source behind an HTTP service of the operator's choice."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @property
    def host(self) -> str:
        return self._service.host


class KuboSource(_ServiceSource):
    """A kubo node by its RPC. Content that it does not hold it searches for in the IPFS network."""

    kind = "kubo"

    async def has(self, cid: CID) -> bool:
        query = {"arg": str(cid), "offline": "true"}
        try:
            with trio.fail_after(_STAT_TIMEOUT):
                await self._service.call("POST", "/api/v0/block/stat", query=query)
        except (ServiceError, trio.TooSlowError):
            return False
        return True

    async def block(self, cid: CID) -> bytes | None:
        query = {"arg": str(cid), "offline": "true"}
        return await _received(
            self._service.stream("POST", "/api/v0/block/get", query=query, headers={}, limit=MAX_BLOCK)
        )

    def car(self, cid: CID, limit: int) -> AsyncGenerator[bytes, None]:
        query = {"arg": str(cid), "progress": "false"}
        return self._service.stream("POST", "/api/v0/dag/export", query=query, headers={}, limit=limit)


class GatewaySource(_ServiceSource):
    """A trustless gateway."""

    kind = "gateway"

    async def has(self, cid: CID) -> bool:
        """False: a gateway does not say what it holds."""
        await trio.lowlevel.checkpoint()
        return False

    async def block(self, cid: CID) -> bytes | None:
        query, headers = {"format": "raw"}, {"Accept": RAW_MEDIA_TYPE}
        return await _received(
            self._service.stream("GET", f"/ipfs/{cid}", query=query, headers=headers, limit=MAX_BLOCK)
        )

    def car(self, cid: CID, limit: int) -> AsyncGenerator[bytes, None]:
        query, headers = {"format": "car", "dag-scope": "all"}, {"Accept": CAR_MEDIA_TYPE_DEPTH_FIRST}
        return self._service.stream("GET", f"/ipfs/{cid}", query=query, headers=headers, limit=limit)


async def _received(pieces: AsyncGenerator[bytes, None]) -> bytes | None:
    """A whole answer, None when the request failed."""
    try:
        async with aclosing(pieces):
            return b"".join([piece async for piece in pieces])
    except ServiceError:
        return None
