"""Streams that peers open: a limited number per peer, each served so that a fault harms no other."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import trio
from libp2p.host.basic_host import BasicHost

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.budgets import Budgets
from bacalhau_p2p.transports.faults import FaultBarrier
from bacalhau_p2p.transports.libp2p.peer_ids import peer_id_text
from bacalhau_p2p.transports.libp2p.stream import Libp2pStream

MAX_STREAMS_PER_PEER: Final = 64
"""Inbound streams that one peer may have open; further ones are reset and counted."""

Handler = Callable[[PeerID, Libp2pStream], Awaitable[None]]


class InboundStreams:
    """Runs handlers on inbound streams. `guard` must be the stream handler of the swarm."""

    def __init__(self, host: BasicHost, budgets: Budgets, counters: Counter[str]) -> None:
        self._host = host
        self._budgets = budgets
        self._counters = counters
        self._open: Counter[PeerID] = Counter()

    def handle(self, protocol: str, handler: Handler) -> None:
        """Serve streams of this protocol."""
        self._host.set_stream_handler(protocol, partial(self._serve, protocol, handler))

    async def guard(self, net_stream: Any) -> None:
        """Serve a stream of any protocol. Whatever happens harms only this stream."""
        peer = peer_id_text(net_stream.muxed_conn.peer_id.to_bytes())
        too_many = self._open[peer] >= MAX_STREAMS_PER_PEER
        if too_many:
            self._budgets.offences.note(peer, "streams_refused", "too many streams at the same time")
        if not self._budgets.takes_stream(peer) or too_many:
            self._counters["streams_refused"] += 1
            await net_stream.reset()
            return
        self._open[peer] += 1
        try:
            with FaultBarrier(self._counters, "stream_faults", f"a stream of peer {peer}") as barrier:
                await self._host._swarm_stream_handler(net_stream)
            if barrier.fault is not None:
                await net_stream.reset()
        finally:
            self._open[peer] -= 1
            if not self._open[peer]:
                del self._open[peer]

    async def _serve(self, protocol: str, handler: Handler, net_stream: Any) -> None:
        peer = peer_id_text(net_stream.muxed_conn.peer_id.to_bytes())
        stream = Libp2pStream(net_stream)
        try:
            with FaultBarrier(
                self._counters,
                "handler_faults",
                f"handler of {protocol}",
                expected=trio.BrokenResourceError,
                level=logging.WARNING,
            ):
                await handler(peer, stream)
                with suppress(trio.ClosedResourceError):
                    await stream.send_eof()
                    await stream.drain()
        finally:
            await stream.aclose()
