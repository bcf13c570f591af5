"""Peer ids as bytes, as py-libp2p uses them, and as text."""

from __future__ import annotations

from functools import lru_cache

from libp2p.peer.id import ID

from bacalhau_p2p.model.base import PeerID


@lru_cache(maxsize=4096)
def peer_id_text(raw: bytes) -> PeerID:
    """The base58 text of a peer id. It is slow to compute and needed for every message."""
    return PeerID(ID(raw).to_base58())
