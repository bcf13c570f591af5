"""The blocks of files and folders: `builder`, `subtree` and `profiles`. CIDs that others give to the same
bytes are compared in tests of the importer."""

from __future__ import annotations

from itertools import islice

import pytest

from bacalhau_p2p.ipfs.format.builder import file_blocks, folder_blocks, symlink_blocks
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW
from bacalhau_p2p.ipfs.format.dag_stat import dag_stat
from bacalhau_p2p.ipfs.format.profiles import PROFILES, Profile
from bacalhau_p2p.ipfs.format.subtree import Subtree, node_block
from bacalhau_p2p.ipfs.format.unixfs import Folder, Shard, Symlink, decode
from tests.support.blocks.dag_makers import built

SMALL = Profile(name="small", chunk=1, links=5)
LEAF = Subtree(CID.of(RAW, b"leaf"), 4)


@pytest.mark.parametrize("leaves", [1, 4, 5, 6, 25, 26, 125, 126])
def test_a_file_has_as_few_levels_as_its_leaves_need(blocks, leaves):
    found, root = built(file_blocks((bytes([number]) for number in range(leaves)), SMALL))
    blocks.blocks |= found
    parents, width = 0, leaves
    while width > 1:
        width = -(-width // 5)
        parents += width
    assert len(found) == leaves + parents
    assert dag_stat(root.cid, blocks).bytes == leaves
    assert root.tsize == sum(map(len, found.values()))


def test_an_empty_file_is_one_empty_leaf():
    assert built(file_blocks([])) == ({CID.of(RAW, b""): b""}, (CID.of(RAW, b""), 0))


def test_blocks_are_made_as_the_chunks_come():
    chunks = iter([bytes([number]) for number in range(7)])
    assert len(list(islice(file_blocks(chunks, SMALL), 3))) == 3
    assert len(list(chunks)) == 4


def test_the_last_block_is_the_root():
    blocks, root = built(file_blocks([b"a", b"b"], SMALL))
    assert list(blocks)[-1] == root.cid


def test_the_names_of_a_folder_are_sorted_by_their_bytes():
    names = [b"b", b"B", "é".encode(), b"a"]
    blocks, root = built(folder_blocks(dict.fromkeys(names, LEAF)))
    node = decode(root.cid, blocks[root.cid])
    assert isinstance(node, Folder)
    assert [entry.name for entry in node.entries] == ["B", "a", "b", "é"]
    assert root.tsize == len(blocks[root.cid]) + 4 * 4


@pytest.mark.parametrize(
    ("shard_by", "size"), [("links", 2 * (1 + 36)), ("block", 2 * (2 + 2 + 36 + 3 + 2) + 4)]
)
def test_a_folder_is_sharded_above_the_size_of_its_profile(shard_by, size):
    children = {b"a": LEAF, b"b": LEAF}
    for shard_above, kind in ((size, Folder), (size - 1, Shard)):
        profile = Profile(shard_above=shard_above, shard_by=shard_by)
        blocks, root = built(folder_blocks(children, profile))
        assert isinstance(decode(root.cid, blocks[root.cid]), kind)


def test_a_symlink_is_one_block():
    blocks, root = built(symlink_blocks(b"../x"))
    assert decode(root.cid, blocks[root.cid]) == Symlink("../x")
    assert root.tsize == len(blocks[root.cid])


def test_the_size_of_a_root_counts_its_own_block_and_those_of_its_children():
    assert built(node_block(b"block", 100)) == (
        {CID.of(DAG_PB, b"block"): b"block"},
        Subtree(CID.of(DAG_PB, b"block"), 105),
    )


def test_profiles_are_found_by_their_names():
    assert {name: (profile.chunk, profile.links) for name, profile in PROFILES.items()} == {
        "default": (262_144, 174),
        "unixfs-v1-2025": (1_048_576, 1024),
    }
