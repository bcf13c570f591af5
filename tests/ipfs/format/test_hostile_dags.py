"""DAGs that no honest builder makes. Each is refused before anything is written, with little work and memory,
and the error names what is wrong."""

from __future__ import annotations

import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from bacalhau_p2p.errors import ContentError, ContentTooLarge, InvalidContent
from bacalhau_p2p.ipfs.files.export import export
from bacalhau_p2p.ipfs.files.spool import BlockSpool
from bacalhau_p2p.ipfs.files.tar import write_tar
from bacalhau_p2p.ipfs.files.unpack import Unpacker
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB
from bacalhau_p2p.ipfs.format.dag_pb import PBLink, encode_block, encode_file, encode_shard
from bacalhau_p2p.ipfs.format.dag_stat import dag_stat
from bacalhau_p2p.ipfs.format.hamt import name_hash
from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.format.traversal import Walk
from tests.support.blocks.dag_makers import MemoryBlocks, names
from tests.support.blocks.work_budget import at_most_calls

LIMITS = Limits(bytes=1 << 30, entries=100_000)
MAX_CALLS = 100_000
"""Function calls: three times what the most expensive of these DAGs takes, and less than 0.1 s of work."""


def bomb_of_bytes(blocks: MemoryBlocks) -> CID:
    """Five blocks that expand to far more than a disk holds."""
    cid, size = blocks.raw(bytes(100)), 100
    for _ in range(4):
        cid, size = blocks.file([(cid, size)] * 174), size * 174
    return cid


def bomb_of_folders(blocks: MemoryBlocks) -> CID:
    cid = blocks.raw(b"x")
    for _ in range(8):
        cid = blocks.folder([(b"%d" % number, cid) for number in range(100)])
    return cid


def bomb_of_files_in_folders(blocks: MemoryBlocks) -> CID:
    part = blocks.raw(bytes(1 << 18))
    file = blocks.file([(part, 1 << 18)] * 100)
    return blocks.folder([(b"%d" % number, file) for number in range(100)])


def nested(levels: int):
    def make(blocks: MemoryBlocks) -> CID:
        cid = blocks.raw(b"x")
        for _ in range(levels):
            cid = blocks.folder([(b"d", cid)])
        return cid

    return make


def nested_file(levels: int):
    def make(blocks: MemoryBlocks) -> CID:
        cid = blocks.raw(b"x")
        for _ in range(levels):
            cid = blocks.file([(cid, 1)])
        return cid

    return make


def nested_file_seen_before(blocks: MemoryBlocks) -> CID:
    """The lower half alone is allowed, and visited first."""
    half = nested_file(6)(blocks)
    whole = half
    for _ in range(6):
        whole = blocks.file([(whole, 1)])
    return blocks.folder([(b"a", half), (b"b", whole)])


def nested_shards(blocks: MemoryBlocks) -> CID:
    cid = blocks.raw(b"x")
    for _ in range(1000):
        cid = blocks.node(encode_block([PBLink(cid, b"00", 0)], encode_shard(1, 256)))
    return cid


def entry(name: bytes):
    return lambda blocks: blocks.folder([(name, blocks.raw(b"x"))])


def repeated_names(blocks: MemoryBlocks) -> CID:
    return blocks.folder([(b"a", blocks.raw(b"1")), (b"a", blocks.raw(b"2"))])


def long_path(blocks: MemoryBlocks) -> CID:
    cid = blocks.raw(b"x")
    for _ in range(20):
        cid = blocks.folder([(b"n" * 250, cid)])
    return cid


def wrong_filesize(blocks: MemoryBlocks) -> CID:
    return blocks.file([(blocks.raw(b"abc"), 3)], filesize=4)


def wrong_part(blocks: MemoryBlocks) -> CID:
    return blocks.file([(blocks.raw(b"abc"), 4)])


def wrong_inner_part(blocks: MemoryBlocks) -> CID:
    return blocks.file([(blocks.file([(blocks.raw(b"abc"), 3)]), 4)])


def wrong_number_of_sizes(blocks: MemoryBlocks) -> CID:
    return blocks.node(encode_block([PBLink(blocks.raw(b"abc"), b"", 3)], encode_file(3, [1, 2])))


def empty_part(blocks: MemoryBlocks) -> CID:
    return blocks.file([(blocks.raw(b""), 0)] * 3)


def folder_in_file(blocks: MemoryBlocks) -> CID:
    return blocks.file([(blocks.folder([]), 1)])


def dag_cbor(blocks: MemoryBlocks) -> CID:
    return blocks.folder([(b"a", CID.of(0x71, b"\xa0"))])


def identity_hash(blocks: MemoryBlocks) -> CID:
    return blocks.folder([(b"a", CID(b"\x01\x55\x00\x03abc"))])


def not_unixfs(blocks: MemoryBlocks) -> CID:
    return blocks.node(b"\x0a\x03\xff\xff\xff")


def no_protobuf(blocks: MemoryBlocks) -> CID:
    return blocks.node(b"\xff" * 40)


def metadata(blocks: MemoryBlocks) -> CID:
    return blocks.node(b"\x0a\x02\x08\x03")


def symlink_without_target(blocks: MemoryBlocks) -> CID:
    return blocks.folder([(b"a", blocks.symlink(b""))])


def shard(blocks: MemoryBlocks, *entries: tuple[int, bytes, CID], bitfield: int | None = None) -> CID:
    bits = sum(1 << number for number, _, _ in entries) if bitfield is None else bitfield
    links = [PBLink(cid, b"%02X" % number + name, 0) for number, name, cid in entries]
    return blocks.node(encode_block(links, encode_shard(bits, 256)))


def misplaced_name(blocks: MemoryBlocks) -> CID:
    right = name_hash(b"a") >> 56
    return shard(blocks, ((right + 1) % 256, b"a", blocks.raw(b"x")))


def name_twice_over_shards(blocks: MemoryBlocks) -> CID:
    first, second = name_hash(b"a") >> 56, name_hash(b"a") >> 48 & 255
    inner = shard(blocks, (second, b"a", blocks.raw(b"1")))
    other = (first + 1) % 256
    return shard(blocks, *sorted([(first, b"a", blocks.raw(b"2")), (other, b"", inner)]))


def wrong_bitfield(blocks: MemoryBlocks) -> CID:
    right = name_hash(b"a") >> 56
    return shard(blocks, (right, b"a", blocks.raw(b"x")), bitfield=1 << ((right + 1) % 256))


def empty_shard(blocks: MemoryBlocks) -> CID:
    return shard(blocks, (7, b"", shard(blocks)))


def evil_name_in_shard(blocks: MemoryBlocks) -> CID:
    return shard(blocks, (name_hash(b"../evil") >> 56, b"../evil", blocks.raw(b"x")))


def file_in_shard(blocks: MemoryBlocks) -> CID:
    return shard(blocks, (7, b"", blocks.raw(b"x")))


HOSTILE = [
    (bomb_of_bytes, ContentTooLarge, r"the limit is 1073741824"),
    (bomb_of_folders, ContentTooLarge, r"more than 100000 entries"),
    (bomb_of_files_in_folders, ContentTooLarge, r"the limit is 1073741824"),
    (nested(100_000), InvalidContent, r"folders are nested more than 64 levels deep"),
    (nested_file(1000), InvalidContent, r"a file has more than 8 levels of blocks"),
    (nested_file_seen_before, InvalidContent, r"a file has more than 8 levels of blocks"),
    (nested_shards, InvalidContent, r"more levels of shards than its hash has bits for"),
    (entry(b"../evil"), InvalidContent, r"invalid entry name b'../evil'"),
    (entry(b"/etc/passwd"), InvalidContent, r"invalid entry name"),
    (entry(b".."), InvalidContent, r"invalid entry name b'..'"),
    (entry(b"."), InvalidContent, r"invalid entry name b'.'"),
    (entry(b""), InvalidContent, r"invalid entry name b''"),
    (entry(b"a\0b"), InvalidContent, r"invalid entry name"),
    (entry(b"\xff"), InvalidContent, r"not UTF-8"),
    (entry(b"n" * 256), InvalidContent, r"name has 256 bytes; the limit is 255"),
    (repeated_names, InvalidContent, r"two entries with the same name"),
    (long_path, InvalidContent, r"a path has more than 4096 bytes"),
    (wrong_filesize, InvalidContent, r"declares 4 bytes, but its parts add up to 3"),
    (wrong_part, InvalidContent, r"has 3 bytes; its parent declares 4"),
    (wrong_inner_part, InvalidContent, r"has 3 bytes; its parent declares 4"),
    (wrong_number_of_sizes, InvalidContent, r"has 1 links but 2 block sizes"),
    (empty_part, InvalidContent, r"an empty part"),
    (folder_in_file, InvalidContent, r"is not part of a file"),
    (dag_cbor, InvalidContent, r"codec 0x71; only raw and dag-pb"),
    (identity_hash, InvalidContent, r"hash function 0x0; only sha2-256"),
    (not_unixfs, InvalidContent, r"is not a UnixFS node"),
    (no_protobuf, InvalidContent, r"is not a UnixFS node"),
    (metadata, InvalidContent, r"is UnixFS metadata"),
    (symlink_without_target, InvalidContent, r"no valid target"),
    (misplaced_name, InvalidContent, r"has b'a' in the wrong slot"),
    (name_twice_over_shards, InvalidContent, r"has b'a' in the wrong slot"),
    (wrong_bitfield, InvalidContent, r"not in its bitfield"),
    (empty_shard, InvalidContent, r"is not a shard of its folder"),
    (evil_name_in_shard, InvalidContent, r"invalid entry name b'../evil'"),
    (file_in_shard, InvalidContent, r"is not a shard of its folder"),
]


@pytest.mark.parametrize(("make", "error", "message"), HOSTILE)
def test_hostile_content_is_refused_with_the_reason_and_never_written(make, error, message, tmp_path):
    blocks = MemoryBlocks()
    root = make(blocks)
    tracemalloc.start()
    try:
        with at_most_calls(MAX_CALLS), pytest.raises(error, match=message):
            dag_stat(root, blocks, LIMITS)
        with at_most_calls(MAX_CALLS), pytest.raises(error, match=message):
            export(root, tmp_path / "out", blocks, limits=LIMITS)
        with at_most_calls(MAX_CALLS), pytest.raises(error, match=message):
            next(write_tar(root, blocks, limits=LIMITS))
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    assert names(tmp_path) == []


def unpack(root: CID, stream: list[tuple[CID, bytes]], target: Path) -> None:
    with closing(BlockSpool()) as spool, Unpacker(root, target, spool, limits=LIMITS) as unpacker:
        for cid, block in stream:
            unpacker.add(cid, block)
        unpacker.finish()


@pytest.mark.parametrize(("make", "error", "message"), HOSTILE)
def test_hostile_content_that_is_written_as_it_arrives_leaves_nothing(make, error, message, tmp_path):
    blocks = MemoryBlocks()
    root = make(blocks)
    stream = list(reversed(blocks.blocks.items()))  # the root was made last
    tracemalloc.start()
    try:
        with at_most_calls(MAX_CALLS), pytest.raises(error, match=message):
            unpack(root, stream, tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    assert names(tmp_path) == []


@pytest.mark.parametrize("make", [bomb_of_folders, bomb_of_files_in_folders])
def test_no_more_is_written_than_arrived_before_the_dag_is_complete(make, tmp_path):
    blocks = MemoryBlocks()
    root = make(blocks)
    with closing(BlockSpool()) as spool, Unpacker(root, tmp_path / "out", spool) as unpacker:
        for cid, block in reversed(blocks.blocks.items()):
            unpacker.add(cid, block)
        (staging,) = tmp_path.iterdir()
        written = [path for path in staging.rglob("*") if path.is_file()]
        assert sum(path.stat().st_blocks * 512 for path in written) <= 1 << 19
        assert len(written) == 1


def take_all(walk: Walk, blocks: MemoryBlocks) -> None:
    while walk.expected is not None:
        block = blocks.get(walk.expected)
        assert block is not None
        walk.take(block)


@pytest.mark.parametrize(
    "make", [nested(100_000), nested_file(1000), nested_shards, bomb_of_bytes, dag_cbor, entry(b"../evil")]
)
def test_a_walk_stops_after_few_blocks_of_a_hostile_dag(make):
    blocks = MemoryBlocks()
    walk = Walk([make(blocks)], LIMITS)
    before = blocks.reads
    with pytest.raises(ContentError):
        take_all(walk, blocks)
    assert blocks.reads - before <= 66


def test_a_walk_counts_its_blocks():
    blocks = MemoryBlocks()
    root = blocks.folder([(b"%d" % number, blocks.raw(b"%d" % number)) for number in range(20)])
    walk = Walk([root], Limits(blocks=10))
    with pytest.raises(ContentTooLarge, match="more than 10"):
        take_all(walk, blocks)


def test_a_raw_block_that_looks_like_a_node_is_a_file(tmp_path):
    blocks = MemoryBlocks()
    inner = blocks.folder([(b"a", blocks.raw(b"x"))])
    disguised = blocks.raw(blocks.blocks[inner])
    export(disguised, tmp_path / "out", blocks)
    assert (tmp_path / "out").read_bytes() == blocks.blocks[inner]
    assert disguised.digest == inner.digest
    assert inner.codec == DAG_PB


def test_depth_at_the_limit_is_accepted(tmp_path):
    blocks = MemoryBlocks()
    assert dag_stat(nested(64)(blocks), blocks).entries == 64
    assert dag_stat(nested_file(8)(blocks), blocks).bytes == 1
