"""Signatures of gossip (StrictSign): made once by the author, verified once by everybody who hears it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from libp2p.crypto.keys import KeyType
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.validators import signature_validator
from nacl.bindings import crypto_sign_BYTES, crypto_sign_open
from nacl.exceptions import BadSignatureError

PREFIX: Final = b"libp2p-pubsub:"

_LONGEST_ID: Final = 64
"""Bytes. Those of Ed25519 have 38; what strangers claim to be is kept in the cache below."""


def signed_bytes(message: Any) -> bytes:
    """What an author signs of its message."""
    bare = rpc_pb2.Message(
        data=message.data, topicIDs=message.topicIDs, from_id=message.from_id, seqno=message.seqno
    )
    return PREFIX + bytes(bare.SerializeToString())


def is_signed_by_its_author(message: Any) -> bool:
    """Whether the holder of the key in the author's peer id signed this message.

    May raise anything for what is no key at all, as py-libp2p does, which is asked for other kinds of keys.
    """
    author = message.from_id
    key = _ed25519_key(author) if len(author) <= _LONGEST_ID else None
    if key is None:
        return bool(signature_validator(message))
    if len(message.signature) != crypto_sign_BYTES:
        return False
    try:
        crypto_sign_open(message.signature + signed_bytes(message), key)
    except BadSignatureError:
        return False
    return True


@lru_cache(maxsize=4096)
def _ed25519_key(author: bytes) -> bytes | None:
    """The 32 bytes of the key in a peer id; None where there is none, or one of another kind."""
    peer_id = ID(author)
    key = peer_id.extract_public_key()
    if key is None or key.get_type() is not KeyType.Ed25519 or ID.from_pubkey(key) != peer_id:
        return None
    return bytes(key.to_bytes())
