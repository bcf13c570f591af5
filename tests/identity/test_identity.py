from __future__ import annotations

import base64
import subprocess
import sys
import threading

import base58
import pytest

from bacalhau_p2p.errors import RemoteProtocolError, SettingsError
from bacalhau_p2p.identity.identity import Identity, public_key, seal
from bacalhau_p2p.model.base import PeerID

SEED = bytes(range(32))
RSA_PEER_ID = PeerID("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")


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


def test_a_seed_of_another_length_is_refused():
    with pytest.raises(ValueError, match="32"):
        Identity.generate(b"short")


def test_text_form_does_not_show_the_seed():
    assert str(SEED) not in repr(Identity.generate(SEED))
    assert "seed" not in repr(Identity.generate(SEED))


def test_a_sealed_box_is_opened_by_its_addressee_alone():
    alice, bob = Identity.generate(), Identity.generate()
    box = seal(alice.peer_id, b"the result")
    assert alice.open(box) == b"the result"
    assert len(box) == len(b"the result") + 48
    with pytest.raises(RemoteProtocolError):
        bob.open(box)


@pytest.mark.parametrize("garbage", [b"", b"x", bytes(48), bytes(200)])
def test_opening_garbage_is_the_peers_fault(garbage):
    with pytest.raises(RemoteProtocolError):
        Identity.generate(SEED).open(garbage)


def test_a_damaged_box_is_refused():
    alice = Identity.generate(SEED)
    box = bytearray(seal(alice.peer_id, b"the result"))
    box[-1] ^= 1
    with pytest.raises(RemoteProtocolError):
        alice.open(bytes(box))


@pytest.mark.parametrize(
    "peer",
    [
        RSA_PEER_ID,
        "",
        "0OIl",
        "12D3KooW",
        "peer-1",
        "é",
        Identity.generate(SEED).peer_id + "\n",
        "1" + Identity.generate(SEED).peer_id,
        base58.b58encode(bytes.fromhex("002408011220") + bytes(33)).decode(),
        base58.b58encode(bytes.fromhex("002408021220") + bytes(32)).decode(),
    ],
)
def test_peer_ids_without_an_ed25519_key_are_refused(peer):
    with pytest.raises(RemoteProtocolError):
        public_key(PeerID(peer))
    with pytest.raises(RemoteProtocolError):
        seal(PeerID(peer), b"secret")


def test_a_key_of_small_order_is_refused_not_sealed_to():
    everybody_can_open = PeerID(base58.b58encode(bytes.fromhex("002408011220") + bytes(32)).decode())
    with pytest.raises(RemoteProtocolError, match="curve"):
        seal(everybody_can_open, b"secret")


def test_an_identity_survives_a_restart(tmp_path):
    path = tmp_path / "data" / "identity"
    first = Identity.load_or_create(path)
    assert Identity.load_or_create(path) == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["identity"]


def test_the_file_is_libp2ps_private_key(tmp_path):
    from libp2p.crypto.ed25519 import Ed25519PrivateKey
    from libp2p.crypto.pb import crypto_pb2

    path = tmp_path / "identity"
    identity = Identity.load_or_create(path)
    key = crypto_pb2.PrivateKey.FromString(base64.b64decode(path.read_bytes()))
    assert key.key_type == crypto_pb2.Ed25519
    public = Ed25519PrivateKey.from_bytes(key.data[:32]).get_public_key().to_bytes()
    assert public == key.data[32:] == public_key(identity.peer_id)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    path = tmp_path / "identity"
    Identity.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(SettingsError, match="chmod 600"):
        Identity.load_or_create(path)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"not a key",
        b"\xff\xfe",
        base64.b64encode(bytes(32)),
        base64.b64encode(bytes.fromhex("08011240") + SEED + bytes(32)),
        base64.b64encode(bytes.fromhex("08011240") + SEED),
    ],
)
def test_a_file_without_a_key_is_refused_and_kept(tmp_path, garbage):
    path = tmp_path / "identity"
    path.write_bytes(garbage)
    path.chmod(0o600)
    with pytest.raises(SettingsError, match="does not hold"):
        Identity.load_or_create(path)
    assert path.read_bytes() == garbage


def test_a_folder_in_its_place_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="not a regular file"):
        Identity.load_or_create(tmp_path)


def test_an_unusable_place_is_a_settings_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match="identity file"):
        Identity.load_or_create(tmp_path / "file" / "identity")


def test_nodes_that_start_at_once_agree_on_one_key(tmp_path):
    path = tmp_path / "identity"
    start = threading.Barrier(8)
    found: list[PeerID] = []

    def load() -> None:
        start.wait()
        found.append(Identity.load_or_create(path).peer_id)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["identity"]


def test_identity_needs_neither_libp2p_nor_trio():
    code = "import sys, bacalhau_p2p.identity.identity; print(sorted({'libp2p', 'trio'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
