"""Signatures of gossip (StrictSign): made by the author, and verified once by each receiver."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from libp2p.crypto.keys import KeyType
from libp2p.peer.id import ID
from libp2p.pubsub.validators import signature_validator
from nacl.bindings import crypto_sign_BYTES, crypto_sign_open
from nacl.exceptions import BadSignatureError

from bacalhau_p2p.transports.libp2p.gossip.wire import Message

PREFIX: Final = b"libp2p-pubsub:"

LONGEST_ID: Final = 64
"""Bytes of a peer id. Those of Ed25519 keys have 38, and no kind of key has more than 42."""


def bare_bytes(message: Any) -> bytes:
    """A message without its signature and key, as its author signs it after PREFIX."""
    bare = Message(data=message.data, topicIDs=message.topicIDs, from_id=message.from_id, seqno=message.seqno)
    return bytes(bare.SerializeToString())


def is_signed_by_its_author(message: Any, bare: bytes) -> bool:
    """Whether the holder of the key in the author's peer id signed this message; `bare` is its `bare_bytes`.

    py-libp2p verifies keys of other types; like it, this may raise any exception for a malformed key.
    """
    author = message.from_id
    key = _ed25519_key(author) if len(author) <= LONGEST_ID else None
    if key is None:
        return bool(signature_validator(message))
    if len(message.signature) != crypto_sign_BYTES:
        return False
    try:
        crypto_sign_open(message.signature + PREFIX + bare, key)
    except BadSignatureError:
        return False
    return True


@lru_cache(maxsize=4096)
def _ed25519_key(author: bytes) -> bytes | None:
    """The key (32 bytes) in a peer id; None when it contains none, or one of another type."""
    peer_id = ID(author)
    key = peer_id.extract_public_key()
    if key is None or key.get_type() is not KeyType.Ed25519 or ID.from_pubkey(key) != peer_id:
        return None
    return bytes(key.to_bytes())
