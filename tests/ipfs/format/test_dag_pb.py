from __future__ import annotations

import pytest

from bacalhau_p2p.encoding.protobuf import bytes_field, varint_field
from bacalhau_p2p.errors import InvalidContent
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW
from bacalhau_p2p.ipfs.format.dag_pb import (
    NodeType,
    PBLink,
    PBNode,
    decode_block,
    encode_block,
    encode_directory,
    encode_file,
    encode_shard,
    encode_symlink,
)

LEAF = CID.of(RAW, b"leaf")
V0 = CID(CID.of(DAG_PB, b"node").binary[2:])
LINKS = [PBLink(LEAF, b"a", 4), PBLink(V0, b"b" * 200, 300), PBLink(LEAF, b"", 0)]


def decode(block: bytes) -> PBNode:
    return decode_block(CID.of(DAG_PB, block), block)


@pytest.mark.parametrize(
    ("message", "node"),
    [
        (encode_directory(), PBNode(NodeType.DIRECTORY, LINKS, blocksizes=[])),
        (encode_file(9, [4, 5, 0]), PBNode(NodeType.FILE, LINKS, filesize=9, blocksizes=[4, 5, 0])),
        (encode_symlink(b"../x"), PBNode(NodeType.SYMLINK, LINKS, data=b"../x", blocksizes=[])),
        (
            encode_shard(1 << 255 | 1, 256),
            PBNode(
                NodeType.HAMT_SHARD,
                LINKS,
                data=b"\x80" + bytes(30) + b"\x01",
                blocksizes=[],
                hash_type=0x22,
                fanout=256,
            ),
        ),
    ],
    ids=["folder", "file", "symlink", "shard"],
)
def test_a_decoded_node_is_the_encoded_one(message, node):
    assert decode(encode_block(LINKS, message)) == node


def test_an_empty_folder_has_the_bytes_that_kubo_gives_it():
    assert encode_block([], encode_directory()).hex() == "0a020801"


def test_block_sizes_may_be_packed():
    message = varint_field(1, NodeType.FILE) + bytes_field(4, b"\x04\x05\x80\x02")
    assert decode(bytes_field(1, message)).blocksizes == [4, 5, 256]


def test_the_mode_is_read_and_time_and_later_fields_are_ignored():
    message = encode_directory() + varint_field(7, 0o755) + bytes_field(8, b"\x08\x01") + varint_field(9, 1)
    assert decode(bytes_field(1, message)) == PBNode(NodeType.DIRECTORY, [], blocksizes=[], mode=0o755)


def link(*fields: bytes) -> bytes:
    return bytes_field(2, b"".join(fields)) + bytes_field(1, encode_directory())


def test_a_link_may_leave_out_its_name_and_size():
    assert decode(link(bytes_field(1, LEAF.binary))).links == [PBLink(LEAF, b"", 0)]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (b"", "no UnixFS message"),
        (b"\x0a\x05\x08", "truncated"),
        (varint_field(3, 1), "field 3 is not part of dag-pb"),
        (bytes_field(1, b"\x08\x01") * 2, "two data fields"),
        (link(bytes_field(1, LEAF.binary)) + link(bytes_field(1, LEAF.binary)), "links before and after"),
        (link(bytes_field(2, b"a")), "a link has no CID"),
        (link(bytes_field(2, b"a"), bytes_field(1, LEAF.binary)), "out of order"),
        (link(bytes_field(1, LEAF.binary + b"x")), "bytes after its CID"),
        (link(bytes_field(1, b"\x01\x55")), "truncated or malformed"),
        (link(bytes_field(1, LEAF.binary), varint_field(4, 1)), "field 4 of a link"),
        (bytes_field(1, varint_field(3, 1)), "UnixFS type is missing"),
        (bytes_field(1, varint_field(1, 77)), "UnixFS type 77 is unknown"),
        (bytes_field(1, bytes_field(1, b"x")), "UnixFS field 1 has the wrong type"),
    ],
)
def test_a_malformed_block_is_refused_with_the_reason(block, message):
    with pytest.raises(InvalidContent, match=f"is not a UnixFS node: .*{message}"):
        decode(block)
