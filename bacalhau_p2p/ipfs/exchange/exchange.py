"""The content exchange of one node: it serves blocks to peers, and fetches DAGs from them.

A fetch asks all peers at once whether they have the DAG, and shares it out among those that do. Blocks that
arrived are kept, and only missing ones are requested again. A block that the requested DAG does not link to
is never stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakValueDictionary

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.ipfs.exchange.fetch import Fetch
from bacalhau_p2p.ipfs.exchange.interface import ExchangeLimits, FallbackProtocol, OpenStream, Sources
from bacalhau_p2p.ipfs.exchange.requests import Requests
from bacalhau_p2p.ipfs.exchange.server import BlockServer
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.threads import Threads


class Exchange:
    """Both sides of `/bacalhau/car/1.0.0`."""

    def __init__(
        self,
        blocks: BlockStore,
        open_stream: OpenStream,
        *,
        limits: ExchangeLimits = ExchangeLimits(),  # noqa: B008 - frozen
        threads: Threads | None = None,
        fallback: FallbackProtocol | None = None,
    ) -> None:
        """`fallback`: for peers that do not speak this protocol."""
        self._blocks = blocks
        self._limits = limits
        self._threads = threads or Threads(4)
        self._fallback = fallback
        self._requests = Requests(open_stream, limits)
        self._server = BlockServer(blocks, limits, self._threads)
        self._fetches: WeakValueDictionary[CID, trio.Lock] = WeakValueDictionary()

    async def serve(self, peer: PeerID, stream: HalfCloseableStream) -> None:
        """Answer the request on an inbound stream. Raises RemoteProtocolError, trio.TooSlowError."""
        await self._server.serve(peer, stream)

    async def fetch(
        self,
        cid: CID,
        sources: Sources,
        *,
        parts: Sequence[CID] | None = None,
        timeout: float | None = None,
        max_bytes: int | None = None,
    ) -> None:
        """Bring the complete DAG below `cid` into the block store; returns at once when it is there. With
        `parts`, which are below `cid`, only these, from peers that have `cid`.

        A provider must be found within `timeout` seconds (default: `ExchangeLimits.find`); the duration of
        the transfer is not limited. Two fetches of the whole of a CID are one transfer. Of more than about
        `max_bytes` the rest is not fetched.
        Raises ContentNotFound, which says what was tried; InvalidContent, ContentTooLarge.
        Cancelled: blocks that arrived are kept, and not requested again.
        """
        cid.require_fetchable()
        lock = self._fetches.setdefault(cid.v1, trio.Lock()) if parts is None else trio.Lock()
        async with lock:
            with self._blocks.holding(cid):
                if parts is None and (await self._threads.run(self._blocks.dag_stat, cid)).complete:
                    return
                fetch = Fetch(
                    cid,
                    sources,
                    self._blocks,
                    self._requests,
                    self._threads,
                    timeout=self._limits.find if timeout is None else timeout,
                    max_bytes=max_bytes,
                    parts=parts,
                    fallback=self._fallback,
                )
                await fetch.run()
