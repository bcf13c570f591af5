"""Where a node looks for content that is not in its store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bacalhau_p2p.ipfs.exchange.dag_size import AskForBlock, fetch_root_block
from bacalhau_p2p.ipfs.exchange.interface import Gateway, ProviderFinder, Sources
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import PeerID


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentPeers:
    """The peers of a node, and what it asks when none of them has the content."""

    candidates: Callable[[], Sequence[PeerID]] = tuple
    """The peers to ask for any CID."""
    ask_for_block: AskForBlock | None = None
    """Asks one peer for a single block; without it the size of missing content is unknown."""
    finder: ProviderFinder | None = None
    gateways: Callable[[Sequence[PeerID]], Sequence[Gateway]] = lambda peers: ()

    def sources(self, hints: Sequence[PeerID]) -> Sources:
        """Where to look for content that `hints` may have."""
        peers = (*hints, *self.candidates())
        return Sources(peers=peers, finder=self.finder, gateways=self.gateways)

    async def root_block(self, cid: CID, hints: Sequence[PeerID]) -> bytes | None:
        """One block from the first peer that sends it, None when no peer does. The caller bounds the time."""
        if self.ask_for_block is None:
            return None
        return await fetch_root_block(cid, (*hints, *self.candidates()), self.ask_for_block)
