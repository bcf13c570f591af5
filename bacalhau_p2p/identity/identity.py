"""A node's identity: its Ed25519 key pair and the peer id derived from it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final, Self

from nacl.signing import SigningKey

from bacalhau_p2p.identity.peer_ids import peer_id_of
from bacalhau_p2p.model.base import PeerID

SEED_SIZE: Final = 32
"""Bytes of an Ed25519 seed, from which both halves of the key pair are derived."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A node's key pair. Its text form never shows the seed."""

    peer_id: PeerID
    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls, seed: bytes | None = None) -> Self:
        """A new identity, or the one derived from `seed` (32 bytes; ValueError otherwise)."""
        chosen = secrets.token_bytes(SEED_SIZE) if seed is None else bytes(seed)
        return cls(peer_id=peer_id_of(bytes(SigningKey(chosen).verify_key)), seed=chosen)
