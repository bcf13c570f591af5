from __future__ import annotations

import pytest

from bacalhau_p2p.errors import ContentTooLarge, InvalidContent
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.dag_pb import PBLink, encode_block, encode_shard
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.ipfs.format.profiles import Profile
from bacalhau_p2p.ipfs.format.traversal import Depth, Walk, folder_entries, links_of
from bacalhau_p2p.ipfs.format.unixfs import Entry, File, Folder, Part, Shard, load_node
from tests.support.blocks.dag_makers import MemoryBlocks

LEAF, OTHER = CID.of(RAW, b"leaf"), CID.of(RAW, b"other")


def test_links_are_one_level_below_their_node():
    deep = Depth(folders=2, shards=1)
    folder = Folder((Entry("a", LEAF), Entry("b", OTHER)))
    assert links_of(folder, deep, DEFAULT_LIMITS) == [(LEAF, Depth(folders=3)), (OTHER, Depth(folders=3))]
    file = File(8, b"", (Part(LEAF, 4), Part(OTHER, 4)))
    assert [depth for _, depth in links_of(file, deep, DEFAULT_LIMITS)] == [Depth(folders=2, parts=1)] * 2
    shard = Shard(256, ((1, b"a", LEAF), (2, b"", OTHER)))
    assert links_of(shard, deep, DEFAULT_LIMITS) == [
        (LEAF, Depth(folders=3)),
        (OTHER, Depth(folders=2, shards=2)),
    ]


@pytest.mark.parametrize(
    ("node", "depth"),
    [
        (Folder((Entry("a", LEAF),)), Depth(folders=3)),
        (File(4, b"", (Part(LEAF, 4),)), Depth(parts=2)),
        (Shard(256, ((1, b"", LEAF),)), Depth(shards=7)),
        (Shard(256, ((1, b"a", LEAF),)), Depth(folders=3)),
    ],
)
def test_links_below_the_deepest_level_are_refused(node, depth):
    limits = Limits(folder_depth=3, file_depth=2)
    above = Depth(*(max(0, level - 1) for level in depth))
    assert len(links_of(node, above, limits)) == 1
    with pytest.raises(InvalidContent):
        links_of(node, depth, limits)


def entries_of(root: CID, blocks: MemoryBlocks) -> list[str]:
    node = load_node(root, blocks)
    assert isinstance(node, Folder | Shard)
    return [name for name, _ in folder_entries(root, node, lambda cid: load_node(cid, blocks))]


def test_plain_and_sharded_folders_have_the_same_entries(blocks, tmp_path):
    for number in range(600):
        (tmp_path / f"file {number}").write_text(str(number))
    plain = blocks.add(tmp_path).cid
    sharded = blocks.add(tmp_path, profile=Profile(shard_above=1000)).cid
    assert plain != sharded
    assert sorted(entries_of(sharded, blocks)) == entries_of(plain, blocks)
    assert len(entries_of(plain, blocks)) == 600


def test_shards_that_are_not_loaded_are_left_out(blocks):
    shard = Shard(256, ((0, b"", LEAF),))
    assert list(folder_entries(LEAF, shard, lambda cid: None)) == []


def walked(walk: Walk, blocks: MemoryBlocks) -> list[CID]:
    order = []
    while (cid := walk.expected) is not None:
        order.append(cid)
        walk.take(blocks.blocks[cid])
    return order


@pytest.fixture
def dag(blocks):
    """A folder with two files of two parts each, which share a part."""
    parts = [blocks.raw(b"%d" % number) for number in range(3)]
    files = [blocks.file([(parts[0], 1), (parts[1], 1)]), blocks.file([(parts[1], 1), (parts[2], 1)])]
    return blocks.folder([(b"a", files[0]), (b"b", files[1])]), files, parts


def test_a_walk_is_depth_first_and_expects_each_block_once(blocks, dag):
    root, files, parts = dag
    assert walked(Walk([root]), blocks) == [root, files[0], parts[0], parts[1], files[1], parts[2]]


def test_a_walk_has_several_roots_in_their_order(blocks, dag):
    _, files, parts = dag
    roots = [parts[2], files[1], parts[2]]
    assert walked(Walk(roots), blocks) == [parts[2], files[1], parts[1]]


def test_the_rest_of_a_walk_completes_it(blocks, dag):
    root, files, parts = dag
    walk = Walk([root])
    for cid in (root, files[0], parts[0]):
        walk.take(blocks.blocks[cid])
    assert walk.rest() == [parts[1], files[1]]
    assert walked(Walk(walk.rest()), blocks) == [parts[1], files[1], parts[2]]


def test_a_split_walk_keeps_the_next_blocks_and_returns_the_others(blocks, dag):
    root, files, _ = dag
    walk = Walk([root])
    walk.take(blocks.blocks[root])
    assert not walk.was_split
    assert walk.split(1) == [files[1]]
    assert walk.was_split
    assert walk.rest() == [files[0]]
    assert walk.split(0) == []  # at least one is kept
    assert walk.expected == files[0]


def test_leaves_ahead_are_those_among_the_next_blocks(blocks, dag):
    root, files, parts = dag
    walk = Walk([root])
    walk.take(blocks.blocks[root])
    assert walk.leaves_ahead(10) == []
    walk.take(blocks.blocks[files[0]])
    assert walk.leaves_ahead(10) == parts[:2]
    assert walk.leaves_ahead(1) == parts[:1]


def test_a_walk_stops_above_the_limit_of_blocks(blocks):
    root = blocks.folder([(b"%d" % number, blocks.raw(b"%d" % number)) for number in range(10)])
    assert len(walked(Walk([root], Limits(blocks=11)), blocks)) == 11
    with pytest.raises(ContentTooLarge, match="more than 10 blocks"):
        walked(Walk([root], Limits(blocks=10)), blocks)


def test_a_walk_refuses_links_with_an_unsupported_codec(blocks):
    root = blocks.folder([(b"a", CID.of(0x71, b"\xa0"))])
    with pytest.raises(InvalidContent, match="codec 0x71"):
        walked(Walk([root]), blocks)


def test_shards_below_the_last_bit_of_the_hash_are_refused(blocks):
    cid = blocks.raw(b"x")
    for _ in range(20):
        cid = blocks.node(encode_block([PBLink(cid, b"00", 0)], encode_shard(1, 256)))
    with pytest.raises(InvalidContent, match="more levels of shards"):
        walked(Walk([cid]), blocks)
