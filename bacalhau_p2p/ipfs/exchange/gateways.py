"""Content from the HTTP gateways of peers, for when no stream to them can be opened.

The URL of a gateway comes from a peer, so it is not trusted: like URLs in jobs it must be on the public
internet or in a network that this node allows, and it gets no credentials. Each block it sends is checked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

import httpx
import trio

from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.exchange.interface import Gateway, Receive
from bacalhau_p2p.ipfs.exchange.transfer_pace import TransferPace
from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE, CAR_MEDIA_TYPE_DEPTH_FIRST
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.outbound.addresses import AddressGuard, AddressRefused, guarded_client
from bacalhau_p2p.outbound.http import describe_error, describe_status, redacted
from bacalhau_p2p.outbound.urls import InvalidWebURL, parse_web_url

IDLE_TIMEOUT = 15.0
"""Seconds without a byte until a gateway is given up."""
MAX_GATEWAYS = 4
"""Gateways that are asked for one CID."""

_READ_SIZE = 256 * 1024


class PeerGateway:
    """The gateway of one node, below the URL that the node announced."""

    def __init__(self, url: str, guard: AddressGuard) -> None:
        self._url = url.rstrip("/")
        self._shown = _shown(url)
        self._guard = guard

    @property
    def name(self) -> str:
        return f"gateway {self._shown}"

    @asynccontextmanager
    async def open(self, cid: CID, timeout: float) -> AsyncIterator[Receive]:
        """The CAR of a DAG; its first byte must arrive within `timeout` seconds.

        Raises PeerFault, inside the block too.
        """
        with _http_faults():
            async with guarded_client(self._guard, idle=IDLE_TIMEOUT) as client:
                response = await self._request(client, cid, timeout)
                try:
                    if not response.is_success:
                        raise PeerFault(describe_status(response))
                    if not response.headers.get("content-type", "").startswith(CAR_MEDIA_TYPE):
                        raise PeerFault("the answer is not a CAR")
                    pieces, pace = response.aiter_raw(_READ_SIZE), TransferPace(IDLE_TIMEOUT)

                    async def receive() -> bytes:
                        with _http_faults():
                            return await pace.receive(lambda: anext(pieces, b""))

                    yield receive
                finally:
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                        await response.aclose()

    async def _request(self, client: httpx.AsyncClient, cid: CID, timeout: float) -> httpx.Response:
        request = client.build_request(
            "GET",
            parse_web_url(f"{self._url}/ipfs/{cid.v1}"),
            params={"format": "car", "dag-scope": "all"},
            headers={"Accept": CAR_MEDIA_TYPE_DEPTH_FIRST, "Accept-Encoding": "identity"},
        )
        with trio.move_on_after(timeout):
            return await client.send(request, stream=True, follow_redirects=False)
        raise PeerFault(f"no answer within {timeout:g} s")


@contextmanager
def _http_faults() -> Iterator[None]:
    """A block in which the errors of a request become PeerFault."""
    try:
        yield
    except AddressRefused as error:
        raise PeerFault(str(error)) from None
    except (httpx.HTTPError, httpx.InvalidURL, InvalidWebURL) as error:
        raise PeerFault(describe_error(error, IDLE_TIMEOUT)) from None


def _shown(url: str) -> str:
    """A URL for error messages, without credentials."""
    try:
        return redacted(url)
    except InvalidWebURL:
        return "with a malformed URL"


class Gateways:
    """The gateways that nodes announced."""

    def __init__(self, urls: Callable[[], Mapping[PeerID, str]], guard: AddressGuard) -> None:
        """`urls` returns the currently known gateways by the peer that announced them."""
        self._urls = urls
        self._guard = guard

    def of(self, peers: Sequence[PeerID]) -> list[Gateway]:
        """The gateways to ask: first those of these peers, in their order, then those of others."""
        urls = self._urls()
        first = [urls[peer] for peer in peers if peer in urls]
        chosen = [url for url in dict.fromkeys([*first, *urls.values()]) if url]
        return [PeerGateway(url, self._guard) for url in chosen[:MAX_GATEWAYS]]
