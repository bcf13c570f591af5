"""Content from the gateways of peers, for when no stream to them can be had.

A gateway's URL is what a stranger said: it is called as URLs of jobs are, on the public internet or in
networks that this node allows, and without credentials. What it sends is checked block by block.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import httpx
import trio

from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.exchange.fetching import Receive
from bacalhau_p2p.ipfs.exchange.providers import Web
from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE, CAR_MEDIA_TYPE_DEPTH_FIRST
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.outbound.addresses import AddressGuard, AddressRefused, guarded_client
from bacalhau_p2p.outbound.http import answered, in_words, shown

IDLE = 15.0
"""Seconds without a byte, after which a gateway is given up."""
MOST = 4
"""Gateways that are asked for one CID."""


class PeerGateway:
    """The gateway of one node: its `/ipfs/`, below the URL that it told."""

    def __init__(self, url: str, guard: AddressGuard) -> None:
        self._url = url.rstrip("/")
        self._shown = _shown(url)
        self._guard = guard

    @property
    def name(self) -> str:
        return f"the gateway {self._shown}"

    @asynccontextmanager
    async def open(self, cid: CID, within: float) -> AsyncIterator[Receive]:
        """The CAR of a DAG, piece by piece, b"" at its end; it must begin within so many seconds.

        Raises PeerFault, inside the block too.
        """
        url = f"{self._url}/ipfs/{cid.v1}"
        try:
            async with guarded_client(self._guard, idle=IDLE) as client:
                request = client.build_request(
                    "GET",
                    url,
                    params={"format": "car", "dag-scope": "all"},
                    headers={"Accept": CAR_MEDIA_TYPE_DEPTH_FIRST, "Accept-Encoding": "identity"},
                )
                with trio.fail_after(within):
                    response = await client.send(request, stream=True, follow_redirects=False)
                try:
                    if not response.is_success:
                        raise PeerFault(f"it answered {answered(response)}")
                    if not response.headers.get("content-type", "").startswith(CAR_MEDIA_TYPE):
                        raise PeerFault("it answered with something that is no CAR")
                    pieces = response.aiter_raw(256 * 1024)

                    async def receive() -> bytes:
                        return await anext(pieces, b"")

                    yield receive
                finally:
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                        await response.aclose()
        except AddressRefused as error:
            raise PeerFault(str(error)) from None
        except trio.TooSlowError:
            raise PeerFault(f"it did not answer within {within:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise PeerFault(in_words(error, IDLE)) from None


def _shown(url: str) -> str:
    """A URL for messages, whatever it is."""
    try:
        return shown(url)
    except httpx.InvalidURL:
        return "of a malformed URL"


class Gateways:
    """The gateways that nodes told of."""

    def __init__(self, urls: Callable[[], Mapping[PeerID, str]], guard: AddressGuard) -> None:
        """`urls` gives the gateways that are known now, by the peer that told of each."""
        self._urls = urls
        self._guard = guard

    def of(self, peers: Sequence[PeerID]) -> list[Web]:
        """Those to be asked: first those of these peers, in their order, then those of others."""
        urls = self._urls()
        first = [urls[peer] for peer in peers if peer in urls]
        chosen = [url for url in dict.fromkeys([*first, *urls.values()]) if url]
        return [PeerGateway(url, self._guard) for url in chosen[:MOST]]
