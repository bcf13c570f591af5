"""Peers with content, joined by streams in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import trio
from trio.testing import memory_stream_pair

from bacalhau_p2p.errors import PeerUnreachable, RemoteProtocolError
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.exchange.interface import ExchangeLimits, Sources
from bacalhau_p2p.ipfs.exchange.wire import PROTOCOL
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID

ALICE, BOB, CAROL, DAVE = (PeerID(name) for name in ("alice", "bob", "carol", "dave"))
QUICK = ExchangeLimits(find=2, idle=2)


class Net:
    """Peers with a store each, joined by streams in memory; a peer may be served by other code."""

    def __init__(self, nursery: trio.Nursery, folder, stack: ExitStack) -> None:
        self.nursery = nursery
        self.folder = folder
        self.stack = stack
        self.stores: dict[PeerID, BlockStore] = {}
        self.exchanges: dict[PeerID, Exchange] = {}
        self.handlers: dict[PeerID, Callable] = {}
        self.opened: Counter[PeerID] = Counter()
        self.faults: list[Exception] = []

    def peer(self, name: PeerID, limits: ExchangeLimits = QUICK, content: Limits = Limits()) -> BlockStore:  # noqa: B008
        store = self.stack.enter_context(BlockStore(self.folder / name, limits=content))

        async def open_stream(to: PeerID, protocol: str):
            assert protocol == PROTOCOL
            return await self.open_stream(name, to)

        self.stores[name] = store
        self.exchanges[name] = Exchange(store, open_stream, limits=limits)
        self.handlers[name] = self.exchanges[name].serve
        return store

    async def open_stream(self, who: PeerID, to: PeerID):
        if to not in self.handlers:
            raise PeerUnreachable(f"{to} cannot be reached")
        self.opened[to] += 1
        near, far = memory_stream_pair()
        self.nursery.start_soon(self.handle, to, who, far)
        return near

    async def handle(self, server: PeerID, client: PeerID, stream) -> None:
        """As a transport does it: the stream is closed when its handler returns."""
        try:
            await self.handlers[server](client, stream)
        except (RemoteProtocolError, trio.TooSlowError) as error:
            self.faults.append(error)
        await stream.aclose()

    async def fetch(self, who: PeerID, cid: CID, providers: Sequence[PeerID], **options) -> None:
        await self.exchanges[who].fetch(cid, Sources(peers=providers), **options)
