"""The file that holds a node's key."""

from __future__ import annotations

import base64
import threading

import pytest

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.identity.key_file import load_or_create_identity
from bacalhau_p2p.identity.peer_ids import public_key
from bacalhau_p2p.model.base import PeerID

SEED = bytes(range(32))


def test_an_identity_survives_a_restart(tmp_path):
    path = tmp_path / "data" / "identity"
    first = load_or_create_identity(path)
    assert load_or_create_identity(path) == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["identity"]


def test_the_file_holds_libp2ps_private_key(tmp_path):
    from libp2p.crypto.ed25519 import Ed25519PrivateKey
    from libp2p.crypto.pb import crypto_pb2

    path = tmp_path / "identity"
    identity = load_or_create_identity(path)
    key = crypto_pb2.PrivateKey.FromString(base64.b64decode(path.read_bytes()))
    assert key.key_type == crypto_pb2.Ed25519
    public = Ed25519PrivateKey.from_bytes(key.data[:32]).get_public_key().to_bytes()
    assert public == key.data[32:] == public_key(identity.peer_id)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604])
def test_a_key_that_other_users_can_access_is_rejected(tmp_path, mode):
    path = tmp_path / "identity"
    load_or_create_identity(path)
    path.chmod(mode)
    with pytest.raises(SettingsError, match="chmod 600"):
        load_or_create_identity(path)


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
def test_a_file_without_a_key_is_rejected_and_not_replaced(tmp_path, garbage):
    path = tmp_path / "identity"
    path.write_bytes(garbage)
    path.chmod(0o600)
    with pytest.raises(SettingsError, match="holds no Ed25519 key"):
        load_or_create_identity(path)
    assert path.read_bytes() == garbage


def test_a_folder_in_place_of_the_file_is_rejected(tmp_path):
    with pytest.raises(SettingsError, match="not a regular file"):
        load_or_create_identity(tmp_path)


def test_a_path_that_cannot_be_created_is_a_settings_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match="identity file"):
        load_or_create_identity(tmp_path / "file" / "identity")


def test_nodes_that_start_together_agree_on_one_key(tmp_path):
    path = tmp_path / "identity"
    start = threading.Barrier(8)
    found: list[PeerID] = []

    def load() -> None:
        start.wait()
        found.append(load_or_create_identity(path).peer_id)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["identity"]
