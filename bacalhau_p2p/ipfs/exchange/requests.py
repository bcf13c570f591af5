"""The asking side of `/bacalhau/car/1.0.0`: requests to peers and their answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.ipfs.exchange.faults import stream_faults
from bacalhau_p2p.ipfs.exchange.interface import ExchangeLimits, OpenStream, Receive
from bacalhau_p2p.ipfs.exchange.transfer_pace import TransferPace
from bacalhau_p2p.ipfs.exchange.wire import PROTOCOL, Answer, Operation, Request, Status, read_message
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import PeerID

BUSY_RETRY_DELAYS = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between attempts when a peer answers `busy`."""

_READ_SIZE = 1024 * 1024


class Requests:
    """Requests to peers, each on a stream of its own and a bounded number per peer."""

    def __init__(self, open_stream: OpenStream, limits: ExchangeLimits) -> None:
        self._open_stream = open_stream
        self._limits = limits
        self._slots: WeakValueDictionary[tuple[PeerID, Operation], trio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def ask(self, peer: PeerID, request: Request) -> AsyncIterator[tuple[Answer, Receive]]:
        """The answer to a request, and a call for the bytes that follow it.

        Raises PeerFault, also for what happens to the stream inside the block. Leaving the block
        early resets the stream.
        """
        key = (peer, request.operation)  # so that a question does not wait behind transfers
        slots = self._slots.setdefault(key, trio.Semaphore(self._limits.requests_to_peer))
        async with slots:
            with stream_faults(self._limits.idle):
                with trio.fail_after(self._limits.idle):
                    stream = await self._open_stream(peer, PROTOCOL)
                async with stream:
                    with trio.fail_after(self._limits.idle):
                        await stream.send_all(request.encode())
                    buffer = bytearray()
                    answer = Answer.decode(await read_message(stream, buffer, self._limits.idle))
                    pace = TransferPace(self._limits.idle)
                    yield answer, lambda: self._receive(stream, buffer, pace)

    async def _receive(self, stream: HalfCloseableStream, buffer: bytearray, pace: TransferPace) -> bytes:
        if buffer:
            data = bytes(buffer)
            buffer.clear()
            return data

        async def receive() -> bytes:
            return bytes(await stream.receive_some(_READ_SIZE))

        data = await pace.receive(receive)
        if not data:
            with trio.fail_after(self._limits.idle):
                await stream.send_eof()
        return data

    async def have(
        self,
        peer: PeerID,
        cid: CID,
        wanted: tuple[CID, ...] = (),
        *,
        on_busy: Callable[[], None] = lambda: None,
    ) -> Answer:
        """What a peer has of a DAG, or of these parts of it; a busy peer is asked again. Raises PeerFault."""
        request = Request(operation=Operation.HAVE, cid=cid, wanted=wanted)
        for delay in BUSY_RETRY_DELAYS:
            async with self.ask(peer, request) as (answer, receive):
                await receive()  # the end of the stream, so that both ends close in order
            if answer.status is not Status.BUSY:
                break
            on_busy()
            await trio.sleep(delay)
        return answer
