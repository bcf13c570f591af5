"""Sealed boxes."""

from __future__ import annotations

import base58
import pytest

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.identity.sealing import seal, unseal
from bacalhau_p2p.model.base import PeerID

ALICE, BOB = Identity.generate(bytes(range(32))), Identity.generate(bytes(32))


def test_only_the_addressee_opens_a_sealed_box():
    box = seal(ALICE.peer_id, b"the result")
    assert unseal(ALICE, box) == b"the result"
    assert len(box) == len(b"the result") + 48
    with pytest.raises(RemoteProtocolError):
        unseal(BOB, box)


@pytest.mark.parametrize("garbage", [b"", b"x", bytes(48), bytes(200)])
def test_opening_garbage_is_the_peers_fault(garbage):
    with pytest.raises(RemoteProtocolError, match="cannot open a sealed box"):
        unseal(ALICE, garbage)


def test_a_damaged_box_is_rejected():
    box = bytearray(seal(ALICE.peer_id, b"the result"))
    box[-1] ^= 1
    with pytest.raises(RemoteProtocolError):
        unseal(ALICE, bytes(box))


def test_a_key_of_small_order_is_rejected():
    everybody_can_open = PeerID(base58.b58encode(bytes.fromhex("002408011220") + bytes(32)).decode())
    with pytest.raises(RemoteProtocolError, match="curve"):
        seal(everybody_can_open, b"secret")
