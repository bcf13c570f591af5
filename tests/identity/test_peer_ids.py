"""The key in a peer id."""

from __future__ import annotations

import base58
import pytest

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.identity.peer_ids import peer_id_of, public_key
from bacalhau_p2p.identity.sealing import seal
from bacalhau_p2p.model.base import PeerID

PEER = Identity.generate(bytes(range(32))).peer_id


def test_a_peer_id_contains_its_key():
    assert peer_id_of(public_key(PEER)) == PEER
    assert public_key(peer_id_of(bytes(range(32)))) == bytes(range(32))


@pytest.mark.parametrize(
    "peer",
    [
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",  # an RSA key's
        "",
        "0OIl",
        "12D3KooW",
        "peer-1",
        "é",
        PEER + "\n",
        "1" + PEER,
        base58.b58encode(bytes.fromhex("002408011220") + bytes(33)).decode(),
        base58.b58encode(bytes.fromhex("002408021220") + bytes(32)).decode(),
    ],
)
def test_peer_ids_without_an_ed25519_key_are_rejected(peer):
    with pytest.raises(RemoteProtocolError, match=r"peer id|not a peer id"):
        public_key(PeerID(peer))
    with pytest.raises(RemoteProtocolError):
        seal(PeerID(peer), b"secret")
