"""Sealed boxes: anybody can seal one to a peer id, and only the peer that holds the key can open it."""

from __future__ import annotations

from functools import lru_cache

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox
from nacl.signing import SigningKey, VerifyKey

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.identity.peer_ids import public_key
from bacalhau_p2p.model.base import PeerID


def seal(to: PeerID, plaintext: bytes) -> bytes:
    """A box with `plaintext` (48 bytes longer) for the peer `to`. It does not show who sealed it.

    Raises RemoteProtocolError when the peer id contains no usable Ed25519 key.
    """
    return SealedBox(_sealing_key(to)).encrypt(plaintext)


def unseal(identity: Identity, box: bytes) -> bytes:
    """The content of a box that was sealed to this identity. Raises RemoteProtocolError for anything else."""
    try:
        return SealedBox(_opening_key(identity.seed)).decrypt(box)
    except CryptoError as error:
        raise RemoteProtocolError("cannot open a sealed box: damaged, or sealed to another peer") from error


@lru_cache(maxsize=4096)
def _sealing_key(to: PeerID) -> PublicKey:
    try:
        return VerifyKey(public_key(to)).to_curve25519_public_key()
    except CryptoError as error:
        raise RemoteProtocolError(f"the key in peer id {to} is not a point of the curve") from error


@lru_cache(maxsize=8)
def _opening_key(seed: bytes) -> PrivateKey:
    return SigningKey(seed).to_curve25519_private_key()
