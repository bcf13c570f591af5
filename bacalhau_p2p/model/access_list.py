"""Which peers an operator lets in."""

from __future__ import annotations

from dataclasses import dataclass

from bacalhau_p2p.model.base import PeerID


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessList:
    """Lets in the peers of `allowed`, or everybody if it is empty, but never those of `denied`."""

    allowed: frozenset[PeerID] = frozenset()
    denied: frozenset[PeerID] = frozenset()

    def admits(self, peer: PeerID) -> bool:
        return peer not in self.denied and (not self.allowed or peer in self.allowed)


EVERYBODY = AccessList()
