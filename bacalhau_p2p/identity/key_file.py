"""The file that holds a node's private key, in the format of other libp2p programs."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.identity.identity import SEED_SIZE, Identity
from bacalhau_p2p.identity.peer_ids import public_key

# libp2p's protobuf `PrivateKey {Type: Ed25519, Data: 64 bytes}`: the seed and the public key.
_PREFIX: Final = bytes.fromhex("08011240")


def load_or_create_identity(path: Path) -> Identity:
    """The identity in the file `path`, which is created on first use (mode 0600, its folder 0700).

    The file holds libp2p's private key protobuf in base64. Processes that start at the same time agree on one
    key. Raises SettingsError when other users can access the file, when it holds no such key, or when it
    cannot be read or written.
    """
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _create_atomically(path, _encode(Identity.generate()))
        return _decode(_read_private(path), path)
    except OSError as error:
        raise SettingsError(f"identity file {path}: {error.strerror or error}") from error


def _encode(identity: Identity) -> bytes:
    return base64.b64encode(_PREFIX + identity.seed + public_key(identity.peer_id)) + b"\n"


def _decode(text: bytes, path: Path) -> Identity:
    with suppress(binascii.Error):
        key = base64.b64decode(text.strip(), validate=True)
        seed = key[len(_PREFIX) : len(_PREFIX) + SEED_SIZE]
        if len(seed) == SEED_SIZE:
            identity = Identity.generate(seed)
            if _encode(identity).strip() == text.strip():
                return identity
    raise SettingsError(
        f"identity file {path} holds no Ed25519 key: restore it, or remove it to get a new peer id"
    )


def _read_private(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise SettingsError(f"identity file {path} is not a regular file")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise SettingsError(
            f"identity file {path} has mode {mode:04o}, so other users can access it: run chmod 600 {path}"
        )
    return path.read_bytes()


def _create_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` unless the file exists. Readers see all of it, or no file."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was first; its key is used
            os.link(temporary, path)  # unlike a rename, a link never replaces a key
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
