"""A node's key pair. Also covers what all modules of the room share: they need neither libp2p nor trio."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bacalhau_p2p.identity.identity import Identity

SEED = bytes(range(32))


def test_the_same_seed_gives_the_same_peer():
    assert Identity.generate(SEED) == Identity.generate(SEED)
    assert Identity.generate().peer_id != Identity.generate().peer_id


def test_peer_id_equals_that_of_libp2p():
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.peer.id import ID

    identity = Identity.generate(SEED)
    pair = create_new_key_pair(SEED)
    assert identity.peer_id == str(ID.from_pubkey(pair.public_key))
    assert identity.seed == SEED


def test_a_seed_of_another_length_is_rejected():
    with pytest.raises(ValueError, match="32"):
        Identity.generate(b"short")


def test_the_text_form_does_not_show_the_seed():
    assert str(SEED) not in repr(Identity.generate(SEED))
    assert "seed" not in repr(Identity.generate(SEED))


def test_identity_needs_neither_libp2p_nor_trio():
    code = (
        "import sys\n"
        "from bacalhau_p2p.identity import identity, key_file, peer_ids, sealing\n"
        "print(sorted({'libp2p', 'trio'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
