"""Answers the wants of peers from the block store."""

from __future__ import annotations

import trio

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.ipfs.exchange.bitswap.streams import OutboundStreams
from bacalhau_p2p.ipfs.exchange.bitswap.wire import Message, Want
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.threads import Threads

_ANSWER_SIZE = 1024 * 1024
"""Bytes of blocks in one message, without the last block."""


class Responder:
    """Sends blocks, and whether there are blocks."""

    def __init__(self, blocks: BlockStore, streams: OutboundStreams, threads: Threads) -> None:
        self._blocks = blocks
        self._streams = streams
        self._threads = threads

    async def answer(self, peer: PeerID, wants: trio.MemoryReceiveChannel[Want]) -> None:
        """Answer all wants, on a stream that is opened for the first answer."""
        async for want in wants:
            try:
                async with self._streams.open(peer) as stream:
                    await stream.send(await self._threads.run(self._next_message, want, wants))
                    async for further in wants:
                        await stream.send(await self._threads.run(self._next_message, further, wants))
                    await stream.finish()
            except (PeerUnreachable, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                continue  # the next want is answered on a new stream

    def _next_message(self, want: Want, wants: trio.MemoryReceiveChannel[Want]) -> Message:
        """The answer to this want and to those that wait behind it, as many as fit into a message."""
        message, size = Message(), 0
        while True:
            block = None if want.have else self._blocks.get(want.cid)
            if block is not None:
                message.blocks.append((want.cid, block))
                size += len(block)
            elif want.have and self._blocks.has(want.cid):
                message.presences.append((want.cid, True))
            elif want.send_dont_have:
                message.presences.append((want.cid, False))
            if size >= _ANSWER_SIZE:
                return message
            try:
                want = wants.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return message
