from __future__ import annotations

import pytest

from bacalhau_p2p.errors import ContentError
from bacalhau_p2p.ipfs.files.importer import cid_of
from bacalhau_p2p.ipfs.files.pack import Packed
from bacalhau_p2p.ipfs.format.car import CarReader
from bacalhau_p2p.ipfs.format.profiles import UNIXFS_V1_2025
from tests.support.blocks.contents import packed_under_its_root
from tests.support.blocks.dag_makers import blob, results_folder


def test_a_packed_path_has_each_block_once_and_its_root_last(tmp_path):
    folder = results_folder(tmp_path / "results")
    (folder / "copy").write_bytes((folder / "outputs" / "data.bin").read_bytes())
    packed, reader = Packed(folder), CarReader()
    found = [block for piece in packed for block in reader.feed(piece)]
    reader.finish()
    assert reader.roots == ()
    assert packed.root == reader.latest == found[-1][0] == cid_of(folder)
    assert found == CarReader().feed(packed_under_its_root(folder))


def test_a_path_is_packed_under_another_profile(tmp_path):
    (tmp_path / "file").write_bytes(blob(3_000_000, 1))
    packed = Packed(tmp_path / "file", profile=UNIXFS_V1_2025)
    assert packed.root is None
    CarReader().feed(b"".join(packed))
    assert packed.root == cid_of(tmp_path / "file", profile=UNIXFS_V1_2025)


def test_a_path_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(ContentError, match="cannot read"):
        b"".join(Packed(tmp_path / "missing"))
