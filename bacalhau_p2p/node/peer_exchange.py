"""A newcomer asks a peer whom else there is: the protocol `/bacalhau/peers/1.0.0`.

The answer is CBOR, a list of lists of multiaddrs, one for each of some nodes chosen at random. It is hearsay:
it says only where to dial, and who answers there has to prove its id.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import cbor2
import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.encoding.cbor import strict_loads
from bacalhau_p2p.errors import PeerUnreachable, RemoteProtocolError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.node.neighbours import usable_addresses
from bacalhau_p2p.transports.interface import Transport

PROTOCOL = "/bacalhau/peers/1.0.0"
MAX_PEERS = 32
"""Nodes in one answer."""
MAX_ANSWER = 64 * 1024
"""Bytes of an answer: 32 nodes with 8 addresses of 256 bytes each."""
TIMEOUT = 5.0
"""Seconds for an answer."""

Known = dict[PeerID, tuple[str, ...]]
"""Addresses by peer."""


class PeerExchange:
    """Answers the peers of one node, and asks them. `known` is whom this node would name."""

    def __init__(self, transport: Transport, known: Callable[[], Known], rng: random.Random) -> None:
        self._transport = transport
        self._known = known
        self._rng = rng
        transport.handle_streams(PROTOCOL, self._serve)

    async def ask(self, peer: PeerID) -> Known:
        """Whom this peer names; nobody if it does not answer properly."""
        answer = b""
        with trio.move_on_after(TIMEOUT):
            try:
                async with await self._transport.open_stream(peer, PROTOCOL) as stream:
                    await stream.send_eof()
                    while piece := await stream.receive_some(MAX_ANSWER):
                        answer += piece
                        if len(answer) > MAX_ANSWER:
                            return {}
                return _parse(answer)
            except (PeerUnreachable, trio.BrokenResourceError, trio.ClosedResourceError, RemoteProtocolError):
                pass
        return {}

    async def _serve(self, peer: PeerID, stream: HalfCloseableStream) -> None:
        known = self._known()
        others = [own for other, own in known.items() if other != peer and own]
        chosen = self._rng.sample(others, min(MAX_PEERS, len(others)))
        with trio.move_on_after(TIMEOUT):
            await stream.send_all(cbor2.dumps([list(addresses) for addresses in chosen]))


def _parse(answer: bytes) -> Known:
    """Raises RemoteProtocolError."""
    value: Any = strict_loads(answer, max_depth=2)
    if not isinstance(value, list):
        raise RemoteProtocolError("an answer about peers is not a list")
    found: Known = {}
    for addresses in value[:MAX_PEERS]:
        if isinstance(addresses, list) and addresses and isinstance(addresses[0], str):
            peer = PeerID(addresses[0].rpartition("/p2p/")[2])
            found[peer] = usable_addresses(peer, [text for text in addresses if isinstance(text, str)])
    return {peer: addresses for peer, addresses in found.items() if peer and addresses}
