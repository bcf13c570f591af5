from __future__ import annotations

import pytest

from bacalhau_p2p.errors import ContentError, InvalidContent
from bacalhau_p2p.ipfs.format import hamt
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.dag_pb import NodeType, PBLink, PBNode, decode_block
from bacalhau_p2p.ipfs.format.hamt import (
    check_level,
    check_slots,
    max_levels,
    name_hash,
    shard_blocks,
    shard_links,
    slot,
)
from bacalhau_p2p.ipfs.format.subtree import Subtree
from tests.support.blocks.dag_makers import built

LEAF = CID.of(RAW, b"leaf")


def test_slots_are_the_bits_of_the_hash_from_the_most_significant_on():
    hashed = 0xAB_CD_00_00_00_00_00_EF
    assert [slot(hashed, level, 256) for level in (0, 1, 7)] == [0xAB, 0xCD, 0xEF]
    assert [slot(hashed, level, 16) for level in range(4)] == [0xA, 0xB, 0xC, 0xD]
    with pytest.raises(IndexError):
        slot(hashed, 8, 256)


@pytest.mark.parametrize(("fanout", "levels"), [(8, 21), (256, 8), (1024, 6)])
def test_a_hash_has_bits_for_so_many_levels(fanout, levels):
    assert max_levels(fanout) == levels
    check_level(levels - 1, fanout)
    with pytest.raises(InvalidContent, match="more levels of shards than its hash has bits for"):
        check_level(levels, fanout)


def test_every_name_is_in_the_slots_of_its_hash():
    children = {b"name %d" % number: Subtree(LEAF, 4) for number in range(1000)}
    blocks, root = built(shard_blocks(children))
    found = {}

    def visit(cid: CID, slots: tuple[int, ...]) -> None:
        for number, name, link in shard_links(cid, decode_block(cid, blocks[cid])):
            if name:
                check_slots(cid, name, (*slots, number), 256)
                found[name] = link
            else:
                visit(link, (*slots, number))

    visit(root.cid, ())
    assert found == dict.fromkeys(children, LEAF)
    assert root.tsize == sum(map(len, blocks.values())) + 4 * 1000


def test_a_name_in_another_slot_is_refused():
    right = slot(name_hash(b"a"), 0, 256)
    check_slots(LEAF, b"a", (right,), 256)
    with pytest.raises(InvalidContent, match="has b'a' in the wrong slot"):
        check_slots(LEAF, b"a", (right ^ 1,), 256)


def test_names_with_the_same_hash_cannot_be_in_one_folder(monkeypatch):
    monkeypatch.setattr(hamt, "name_hash", lambda name: 42)
    with pytest.raises(ContentError, match="two names in a folder have the same hash"):
        list(shard_blocks({b"a": Subtree(LEAF, 4), b"b": Subtree(LEAF, 4)}))


def shard(names: list[bytes], bitfield: int, fanout: int = 256, hash_type: int = 0x22) -> PBNode:
    return PBNode(
        NodeType.HAMT_SHARD,
        [PBLink(LEAF, name, 0) for name in names],
        data=bitfield.to_bytes(32, "big"),
        hash_type=hash_type,
        fanout=fanout,
    )


def test_the_links_of_a_shard_have_slot_name_and_cid():
    assert shard_links(LEAF, shard([b"00a", b"FF"], 1 | 1 << 255)) == [(0, b"a", LEAF), (255, b"", LEAF)]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (shard([], 0, fanout=100), "not a supported folder shard"),
        (shard([], 0, hash_type=0x12), "not a supported folder shard"),
        (shard([b"a"], 1), "a link without a slot"),
        (shard([b"ffa"], 1 << 255), "a link without a slot"),
        (shard([b"10"], 1 << 16, fanout=16), "a link that is not in its bitfield|links that are not in its"),
        (shard([b"01a", b"00b"], 3), "repeated or unsorted slots"),
        (shard([b"01a", b"01b"], 2), "repeated or unsorted slots"),
        (shard([b"01a"], 1), "links that are not in its bitfield"),
    ],
)
def test_a_shard_that_contradicts_itself_is_refused(node, message):
    with pytest.raises(InvalidContent, match=message):
        shard_links(LEAF, node)
