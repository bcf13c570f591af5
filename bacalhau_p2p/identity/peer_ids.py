"""Peer ids and the Ed25519 keys in them.

The peer id of an Ed25519 key contains the whole public key (an identity multihash of libp2p's protobuf
encoding), so a message can be sealed to a peer that was never met. libp2p itself is not needed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import base58

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import PeerID

KEY_SIZE: Final = 32
"""Bytes of an Ed25519 public key."""

# An identity multihash of 36 bytes that holds libp2p's protobuf `PublicKey {Type: Ed25519, Data: 32 bytes}`
# (libp2p specification, peer-ids).
_PREFIX: Final = bytes.fromhex("0024" + "08011220")


def peer_id_of(key: bytes) -> PeerID:
    """The peer id of an Ed25519 public key."""
    return PeerID(base58.b58encode(_PREFIX + key).decode("ascii"))


@lru_cache(maxsize=4096)
def public_key(peer: PeerID) -> bytes:
    """The Ed25519 public key (32 bytes) in a peer id.

    Raises RemoteProtocolError for an invalid peer id, and for ids of RSA and other keys, which contain only a
    hash of the key.
    """
    try:
        raw = base58.b58decode(peer)
    except ValueError as error:
        raise RemoteProtocolError(f"not a peer id: {peer[:80]!r}") from error
    if base58.b58encode(raw).decode("ascii") != peer:
        raise RemoteProtocolError(f"not a peer id: {peer[:80]!r}")
    if not raw.startswith(_PREFIX) or len(raw) != len(_PREFIX) + KEY_SIZE:
        raise RemoteProtocolError(f"peer id {peer[:80]} contains no Ed25519 key")
    return raw[len(_PREFIX) :]
