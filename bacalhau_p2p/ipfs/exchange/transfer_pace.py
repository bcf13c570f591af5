"""Gives up transfers that stall, or that are so slow that they would keep a job waiting without end."""

from __future__ import annotations

import trio

from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.exchange.interface import Receive

LEAST_RATE = 1024
"""Bytes a second below which a transfer is given up. Whoever sends as little has other reasons to."""
MOST_PATIENCE = 60.0
"""Seconds that a transfer may save up by being faster."""


class TransferPace:
    """How long to wait for the next bytes of one transfer. Only the time in which we wait counts."""

    def __init__(self, idle: float) -> None:
        """`idle`: seconds without a byte until the transfer is given up."""
        self._idle = idle
        self._patience = idle

    async def receive(self, receive: Receive) -> bytes:
        """What `receive` returns. Raises PeerFault if it takes too long."""
        began, patience = trio.current_time(), min(self._patience, self._idle)
        with trio.move_on_after(patience):
            data = await receive()
            waited = trio.current_time() - began
            self._patience = min(self._patience - waited + len(data) / LEAST_RATE, MOST_PATIENCE)
            return data
        if patience < self._idle:
            raise PeerFault(f"sends less than {LEAST_RATE} bytes a second")
        raise PeerFault(f"no data for {self._idle:g} s")
