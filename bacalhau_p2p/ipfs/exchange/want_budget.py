"""How many blocks a peer may ask for: beyond that its requests wait, and so take a small share of a core."""

from __future__ import annotations

import trio

from bacalhau_p2p.model.base import PeerID

WANTS_PER_SECOND = 5000
"""Blocks that one peer may ask for or about; blocks of content are 256 KiB, so no transfer is slowed down."""
WANT_BURST = 20_000
"""Blocks that one peer may ask for or about before it has to wait."""
MAX_PEERS = 10_000
"""Peers that are remembered; with more, all are forgotten."""


class WantBudget:
    """Paces the requests of each peer. A request is charged when it is known how much it asks for."""

    def __init__(self) -> None:
        self._paid_at: dict[PeerID, float] = {}
        """When a peer will have paid for what it asked; in the past when it may ask for more."""

    async def wait(self, peer: PeerID) -> None:
        """Wait until the peer has paid for what it asked before."""
        await trio.lowlevel.checkpoint()
        while (paid_at := self._paid_at.get(peer, 0.0)) > trio.current_time():  # noqa: ASYNC110 - may grow
            await trio.sleep_until(paid_at)

    def charge(self, peer: PeerID, wants: int) -> None:
        """The peer asked for or about so many blocks."""
        if not wants:
            return
        if peer not in self._paid_at and len(self._paid_at) >= MAX_PEERS:
            self._paid_at.clear()
        saved = trio.current_time() - WANT_BURST / WANTS_PER_SECOND
        self._paid_at[peer] = max(self._paid_at.get(peer, saved), saved) + wants / WANTS_PER_SECOND
