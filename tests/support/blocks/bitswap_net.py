"""Two peers that speak only bitswap, connected by streams in memory. Blocking calls run in the event loop."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import trio
from trio.abc import HalfCloseableStream
from trio.testing import memory_stream_pair

from bacalhau_p2p.errors import PeerUnreachable, RemoteProtocolError
from bacalhau_p2p.ipfs.exchange.bitswap.bitswap import Bitswap
from bacalhau_p2p.ipfs.exchange.bitswap.wire import PROTOCOL
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID
from tests.support.blocks.inline_threads import InlineThreads

ALICE, BOB = PeerID("alice"), PeerID("bob")


class BitswapNet:
    """Tests replace entries of `handlers` to serve the streams of a peer in another way."""

    def __init__(self, nursery: trio.Nursery, folder: Path, stack: ExitStack) -> None:
        self.nursery = nursery
        self.opened: Counter[PeerID] = Counter()
        """Streams that were opened to each peer."""
        self.faults: list[Exception] = []
        self.stores = {name: stack.enter_context(BlockStore(folder / name)) for name in (ALICE, BOB)}
        self.bitswaps = {
            name: Bitswap(self.stores[name], self.opener(name), threads=InlineThreads())
            for name in (ALICE, BOB)
        }
        self.handlers = {name: self.bitswaps[name].serve for name in (ALICE, BOB)}
        self.exchange = Exchange(
            self.stores[BOB], self.opener(BOB), threads=InlineThreads(), fallback=self.bitswaps[BOB]
        )

    def opener(self, name: PeerID):
        """Opens streams from this peer to others."""

        async def open_stream(peer: PeerID, protocol: str) -> HalfCloseableStream:
            if protocol != PROTOCOL or peer not in self.handlers:
                raise PeerUnreachable(f"{peer} does not speak {protocol}")
            self.opened[peer] += 1
            near, far = memory_stream_pair()
            self.nursery.start_soon(self._handle, peer, name, far)
            return near

        return open_stream

    async def _handle(self, server: PeerID, client: PeerID, stream: HalfCloseableStream) -> None:
        try:
            await self.handlers[server](client, stream)
        except RemoteProtocolError as error:
            self.faults.append(error)
        await stream.aclose()
