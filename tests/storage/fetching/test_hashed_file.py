from __future__ import annotations

import hashlib

import pytest

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.storage.fetching.hashed_file import HashedFile


def test_size_and_hash_are_those_of_the_file(tmp_path):
    with HashedFile(tmp_path / "a") as file:
        file.write(b"one")
        file.write(bytearray(b"two"))
    assert (tmp_path / "a").read_bytes() == b"onetwo"
    assert (file.size, file.sha256) == (6, hashlib.sha256(b"onetwo").digest())


def test_nothing_is_written_beyond_the_limit(tmp_path):
    with HashedFile(tmp_path / "a", limit=4, too_large=StorageError("too large")) as file:
        file.write(b"one")
        with pytest.raises(StorageError, match="too large"):
            file.write(b"two")
    assert (tmp_path / "a").read_bytes() == b"one"


def test_an_existing_file_or_symlink_is_not_overwritten(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    for name in ("a", "link"):
        with pytest.raises(FileExistsError):
            HashedFile(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert not (tmp_path / "new").exists()
