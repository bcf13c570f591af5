"""Signatures of gossip."""

from __future__ import annotations

import pytest
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.rsa import create_new_key_pair as create_new_rsa_key_pair
from libp2p.peer.id import ID
from libp2p.pubsub.validators import signature_validator

from bacalhau_p2p.testing.transports import TOPIC, expect, open_connected
from bacalhau_p2p.transports.interface import Broadcast
from bacalhau_p2p.transports.libp2p.gossip import signatures
from bacalhau_p2p.transports.libp2p.gossip.signatures import bare_bytes, is_signed_by_its_author
from bacalhau_p2p.transports.libp2p.transport import open_libp2p
from tests.support.peers.gossip_messages import signed_message


@pytest.mark.parametrize("create", [create_new_key_pair, create_new_rsa_key_pair])
def test_only_what_the_author_signed_is_accepted(create):
    pair, other = create(), create()
    message = signed_message(pair)
    assert is_signed_by_its_author(message, bare_bytes(message))
    assert signature_validator(message)  # py-libp2p agrees
    for name, value in {
        "data": b"changed",
        "seqno": b"2",
        "from_id": ID.from_pubkey(other.public_key).to_bytes(),
        "signature": bytes(len(message.signature)),
    }.items():
        forged = signed_message(pair)
        setattr(forged, name, value)
        assert not is_signed_by_its_author(forged, bare_bytes(forged))
    forged = signed_message(pair)
    forged.topicIDs[0] = "another"
    assert not is_signed_by_its_author(forged, bare_bytes(forged))


@pytest.mark.parametrize("signature", [b"", b"short", bytes(65)])
def test_a_malformed_signature_is_rejected(signature):
    message = signed_message(create_new_key_pair())
    message.signature = signature
    assert not is_signed_by_its_author(message, bare_bytes(message))


def test_overlong_author_ids_are_not_cached():
    message = signed_message(create_new_key_pair())
    signatures._ed25519_key.cache_clear()
    message.from_id = bytes(500_000)
    message.key = b""
    assert not is_signed_by_its_author(message, bare_bytes(message))
    assert signatures._ed25519_key.cache_info().currsize == 0


@pytest.mark.network
async def test_each_receiver_verifies_a_message_once_and_its_author_never(monkeypatch):
    verified = []
    verify = signatures.crypto_sign_open

    def counting(signed_message, key):
        verified.append(signed_message)
        return verify(signed_message, key)

    async with open_connected(open_libp2p, 3) as (author, _, listener):
        monkeypatch.setattr(signatures, "crypto_sign_open", counting)
        await author.broadcast(TOPIC, b"for everybody")
        assert (await expect(listener, Broadcast)).payload == b"for everybody"
        assert len(verified) == 2
