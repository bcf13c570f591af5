"""Who a node is: its Ed25519 key, the libp2p peer id made of it, and boxes sealed to a peer id.

A peer id of an Ed25519 key carries the whole public key (an identity multihash of libp2p's protobuf
encoding), so anything can be sealed to a peer that was never met. Nothing here needs libp2p.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Self

import base58
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox
from nacl.signing import SigningKey, VerifyKey

from bacalhau_p2p.errors import RemoteProtocolError, SettingsError
from bacalhau_p2p.model.base import PeerID

SEED_SIZE = 32
"""Bytes of an Ed25519 seed, from which both halves of the key follow."""

# libp2p's protobuf `PublicKey {Type: Ed25519, Data: 32 bytes}` within an identity multihash of 36 bytes,
# and `PrivateKey {Type: Ed25519, Data: 64 bytes}` (libp2p specification, peer-ids).
_PEER_ID_PREFIX = bytes.fromhex("0024" + "08011220")
_PRIVATE_KEY_PREFIX = bytes.fromhex("08011240")
_KEY_SIZE = 32


@dataclass(frozen=True, slots=True)
class Identity:
    """A node's key pair. Its text form never shows the seed."""

    peer_id: PeerID
    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls, seed: bytes | None = None) -> Self:
        """A new identity, or the one that follows from `seed` (32 bytes; ValueError otherwise)."""
        chosen = secrets.token_bytes(SEED_SIZE) if seed is None else bytes(seed)
        public = SigningKey(chosen).verify_key
        return cls(peer_id=_peer_id(bytes(public)), seed=chosen)

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """The identity kept in the file `path`, made on first use (mode 0600, its folder 0700).

        The file holds libp2p's private key protobuf in base64, as other libp2p programs keep it.
        Two processes that start at once agree on one key. Raises SettingsError when the file can be
        read by others, holds no such key, or cannot be read or written.
        """
        try:
            if not path.exists():
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _create_atomically(path, cls.generate()._to_text())
            return cls._from_text(_read_private(path), path)
        except OSError as fault:
            raise SettingsError(f"identity file {path}: {fault.strerror or fault}") from fault

    def open(self, sealed: bytes) -> bytes:
        """What somebody sealed to this identity's peer id. Raises RemoteProtocolError on anything else."""
        try:
            return SealedBox(_opening_key(self.seed)).decrypt(sealed)
        except CryptoError as fault:
            raise RemoteProtocolError(
                "a sealed box that was not sealed to this node, or was damaged"
            ) from fault

    def _to_text(self) -> bytes:
        return base64.b64encode(_PRIVATE_KEY_PREFIX + self.seed + public_key(self.peer_id)) + b"\n"

    @classmethod
    def _from_text(cls, text: bytes, path: Path) -> Self:
        with suppress(binascii.Error):
            key = base64.b64decode(text.strip(), validate=True)
            seed = key[len(_PRIVATE_KEY_PREFIX) : len(_PRIVATE_KEY_PREFIX) + SEED_SIZE]
            if len(seed) == SEED_SIZE:
                identity = cls.generate(seed)
                if identity._to_text().strip() == text.strip():
                    return identity
        raise SettingsError(
            f"identity file {path} does not hold an Ed25519 key: restore it, or remove it to be a new peer"
        )


@lru_cache(maxsize=4096)
def public_key(peer: PeerID) -> bytes:
    """The Ed25519 public key (32 bytes) within a peer id.

    Raises RemoteProtocolError for what is no peer id, and for RSA and other ids that carry only a hash.
    """
    try:
        raw = base58.b58decode(peer)
    except ValueError as fault:
        raise RemoteProtocolError(f"not a peer id: {peer[:80]!r}") from fault
    if base58.b58encode(raw).decode("ascii") != peer:
        raise RemoteProtocolError(f"not a peer id: {peer[:80]!r}")
    if not raw.startswith(_PEER_ID_PREFIX) or len(raw) != len(_PEER_ID_PREFIX) + _KEY_SIZE:
        raise RemoteProtocolError(f"peer id {peer[:80]} does not carry an Ed25519 key")
    return raw[len(_PEER_ID_PREFIX) :]


def seal(to: PeerID, plaintext: bytes) -> bytes:
    """A box of `plaintext` (48 bytes longer) that only the peer `to` can open, with no sign of who sealed it.

    Raises RemoteProtocolError when the peer id carries no usable Ed25519 key.
    """
    return SealedBox(_sealing_key(to)).encrypt(plaintext)


@lru_cache(maxsize=4096)
def _sealing_key(to: PeerID) -> PublicKey:
    try:
        return VerifyKey(public_key(to)).to_curve25519_public_key()
    except CryptoError as fault:
        raise RemoteProtocolError(f"the key in peer id {to} is not a point of the curve") from fault


@lru_cache(maxsize=8)
def _opening_key(seed: bytes) -> PrivateKey:
    return SigningKey(seed).to_curve25519_private_key()


def _peer_id(public: bytes) -> PeerID:
    return PeerID(base58.b58encode(_PEER_ID_PREFIX + public).decode("ascii"))


def _read_private(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise SettingsError(f"identity file {path} is not a regular file")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise SettingsError(f"identity file {path} has mode {mode:04o}, others can use it: chmod 600 {path}")
    return path.read_bytes()


def _create_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` unless that exists; whoever looks sees all of it or no file."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was first; its key is the one
            os.link(temporary, path)  # unlike a rename, never replaces a key
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
