from __future__ import annotations

import pytest

from bacalhau_p2p.errors import ContentNotFound, ContentTooLarge, InvalidContent
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.dag_pb import PBLink, encode_block, encode_shard
from bacalhau_p2p.ipfs.format.hamt import name_hash, slot
from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.format.unixfs import (
    Entry,
    File,
    Folder,
    Part,
    Shard,
    Symlink,
    check_name,
    load_node,
    require_part,
    require_shard,
)


def test_the_codec_decides_what_a_block_is(blocks):
    leaf = blocks.raw(b"leaf")
    folder = blocks.folder([(b"a", leaf)])
    disguised = blocks.raw(blocks.blocks[folder])
    assert load_node(leaf, blocks) == File(4, b"leaf")
    assert load_node(folder, blocks) == Folder((Entry("a", leaf),))
    assert load_node(disguised, blocks) == File(len(blocks.blocks[folder]), blocks.blocks[folder])


def test_files_shards_and_symlinks_are_decoded(blocks):
    leaf = blocks.raw(b"leaf")
    number = slot(name_hash(b"a"), 0, 256)
    shard = encode_block([PBLink(leaf, b"%02Xa" % number, 4)], encode_shard(1 << number, 256))
    assert load_node(blocks.file([(leaf, 4)] * 2), blocks) == File(8, b"", (Part(leaf, 4),) * 2)
    assert load_node(blocks.node(shard), blocks) == Shard(256, ((number, b"a", leaf),))
    assert load_node(blocks.symlink(b"../x"), blocks) == Symlink("../x")


def test_a_block_that_is_not_stored_is_not_found(blocks):
    cid = CID.of(RAW, b"elsewhere")
    with pytest.raises(ContentNotFound, match=f"block {cid} is not in the store"):
        load_node(cid, blocks)


def test_an_unsupported_codec_is_refused_before_anything_is_read(blocks):
    with pytest.raises(InvalidContent, match="codec 0x71"):
        load_node(CID.of(0x71, b"x"), blocks)
    assert blocks.reads == 0


def test_a_file_above_the_limit_is_too_large(blocks):
    file = blocks.file([(blocks.raw(b"12345"), 5)] * 2)
    assert load_node(file, blocks, Limits(bytes=10)).size == 10
    with pytest.raises(ContentTooLarge, match=f"file {file} has at least 10 bytes; the limit is 9"):
        load_node(file, blocks, Limits(bytes=9))


def test_a_part_of_a_file_has_the_declared_size(blocks):
    part = File(4, b"leaf")
    cid = blocks.raw(b"leaf")
    assert require_part(cid, part, 4) is part
    with pytest.raises(InvalidContent, match=f"part {cid} of a file has 4 bytes; its parent declares 5"):
        require_part(cid, part, 5)
    with pytest.raises(InvalidContent, match="is not part of a file"):
        require_part(cid, Folder(()), 4)


def test_a_further_shard_has_links_and_the_fanout_of_its_folder():
    cid = CID.of(RAW, b"")
    shard = Shard(256, ((0, b"", cid),))
    assert require_shard(cid, shard, 256) is shard
    for node in (Shard(256, ()), Shard(16, shard.links), Folder(())):
        with pytest.raises(InvalidContent, match="is not a shard of its folder"):
            require_shard(cid, node, 256)


@pytest.mark.parametrize("name", ["a", "..a", "a b", "日", "n" * 255])
def test_names_that_stay_in_their_folder_are_accepted(name):
    assert check_name(name.encode()) == name


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b", b"\xff", b"n" * 256])
def test_other_names_are_refused(name):
    with pytest.raises(InvalidContent):
        check_name(name)
