"""The blocks that were requested from each peer and have not arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import PeerID

OnAnswer = Callable[[CID, "bytes | bool"], None]
"""Is called with a block, or with whether the peer has it."""


class PendingWants:
    """Requests to peers that have no answer yet. Blocks that nobody requested are dropped."""

    def __init__(self) -> None:
        self._peers: dict[PeerID, dict[CID, list[OnAnswer]]] = {}

    def add(self, peer: PeerID, cid: CID, on_answer: OnAnswer) -> None:
        self._peers.setdefault(peer, {}).setdefault(cid, []).append(on_answer)

    def discard(self, peer: PeerID, cids: Iterable[CID], on_answer: OnAnswer) -> None:
        """Forget the requests of one requester."""
        pending = self._peers.get(peer, {})
        for cid in cids:
            pending[cid] = [other for other in pending.get(cid, ()) if other is not on_answer]
            if not pending[cid]:
                del pending[cid]
        if not pending:
            self._peers.pop(peer, None)

    def deliver(self, peer: PeerID, cid: CID, answer: bytes | bool) -> None:
        """Pass an answer to everybody who requested the block from this peer, once."""
        for on_answer in self._peers.get(peer, {}).pop(cid, ()):
            on_answer(cid, answer)
