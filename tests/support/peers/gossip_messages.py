"""Gossip messages with a signature, made by hand."""

from __future__ import annotations

from typing import Any

from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2

from bacalhau_p2p.testing.transports import TOPIC
from bacalhau_p2p.transports.libp2p.gossip.signatures import PREFIX, bare_bytes


def signed_message(pair: Any, data: bytes = b"for everybody", topic: str = TOPIC, seqno: int = 1) -> Any:
    """A message that the holder of this key pair published."""
    message = rpc_pb2.Message(
        data=data,
        topicIDs=[topic],
        from_id=ID.from_pubkey(pair.public_key).to_bytes(),
        seqno=seqno.to_bytes(8, "big"),
    )
    message.signature = pair.private_key.sign(PREFIX + bare_bytes(message))
    message.key = pair.public_key.serialize()
    return message
