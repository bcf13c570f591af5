"""Sharded folders: a hash array mapped trie (HAMT) of blocks, as kubo writes it.

A name is hashed with murmur3-x64-64; the bits of the hash, most significant first, select a slot on each
level. A slot holds an entry or, where several names share it, a further shard.
"""

from __future__ import annotations

from collections.abc import Mapping

from bacalhau_p2p.errors import ContentError, InvalidContent
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.dag_pb import HAMT_HASH, NodeType, PBLink, PBNode, encode_block, encode_shard
from bacalhau_p2p.ipfs.format.subtree import Blocks, Subtree, node_block

FANOUT = 256
"""Slots of each shard that this program writes."""

_HASH_BITS = 64
_FANOUTS = {8, 16, 32, 64, 128, 256, 512, 1024}


def name_hash(name: bytes) -> int:
    """The 64 bits that determine the slots of a name."""
    import mmh3  # slow to import, and needed for sharded folders only

    low: int = mmh3.hash64(name, signed=False, x64arch=True)[0]
    return low


def slot(hashed: int, level: int, fanout: int) -> int:
    """The slot of a hash in a shard on `level`, 0 for the root. Raises IndexError past the last bit."""
    width = fanout.bit_length() - 1
    shift = _HASH_BITS - width * (level + 1)
    if shift < 0:
        raise IndexError
    return hashed >> shift & (fanout - 1)


def max_levels(fanout: int) -> int:
    """Levels of shards for which a hash has bits."""
    return _HASH_BITS // (fanout.bit_length() - 1)


# --- writing ------------------------------------------------------------------------------


def shard_blocks(children: Mapping[bytes, Subtree]) -> Blocks:
    """Yield the blocks of a sharded folder, the root last, and return the root.

    Raises ContentError when two names have the same 64-bit hash: no sharded folder can hold both.
    """
    hashed = sorted((name_hash(name), name) for name in children)
    return _write_shard(hashed, 0, children)


def _write_shard(hashed: list[tuple[int, bytes]], level: int, children: Mapping[bytes, Subtree]) -> Blocks:
    slots: dict[int, list[tuple[int, bytes]]] = {}
    for pair in hashed:
        try:
            slots.setdefault(slot(pair[0], level, FANOUT), []).append(pair)
        except IndexError:
            raise ContentError("two names in a folder have the same hash") from None
    links, bitfield, tsize = [], 0, 0
    for number in sorted(slots):
        pairs = slots[number]
        prefix = b"%02X" % number
        if len(pairs) == 1:
            name, child = prefix + pairs[0][1], children[pairs[0][1]]
        else:
            name, child = prefix, (yield from _write_shard(pairs, level + 1, children))
        links.append(PBLink(child.cid, name, child.tsize))
        bitfield |= 1 << number
        tsize += child.tsize
    return (yield from node_block(encode_block(links, encode_shard(bitfield, FANOUT)), tsize))


# --- reading ------------------------------------------------------------------------------


def shard_links(cid: CID, node: PBNode) -> list[tuple[int, bytes, CID]]:
    """Slot, name and CID of each link of one shard; an empty name stands for a further shard.

    Raises InvalidContent unless the slots ascend and match the bitfield.
    """
    if node.type is not NodeType.HAMT_SHARD or node.fanout not in _FANOUTS or node.hash_type != HAMT_HASH:
        raise InvalidContent(f"block {cid} is not a supported folder shard")
    width = len(f"{node.fanout - 1:X}")
    found: list[tuple[int, bytes, CID]] = []
    bitfield = 0
    for link in node.links:
        prefix = link.name[:width].decode("ascii", "replace")
        try:
            number = int(prefix, 16)
        except ValueError:
            number = -1
        if number < 0 or prefix != f"{number:0{width}X}" or number >= node.fanout:
            raise InvalidContent(f"folder shard {cid} has a link without a slot")
        if bitfield >> number:
            raise InvalidContent(f"folder shard {cid} has repeated or unsorted slots")
        bitfield |= 1 << number
        found.append((number, link.name[width:], link.cid))
    if int.from_bytes(node.data, "big") != bitfield:
        raise InvalidContent(f"folder shard {cid} has links that are not in its bitfield")
    return found


def check_level(level: int, fanout: int) -> None:
    """Raises InvalidContent for a shard on a level, 0 for the root, for which the hash has no bits left."""
    if level >= max_levels(fanout):
        raise InvalidContent("a folder has more levels of shards than its hash has bits for")


def check_slots(cid: CID, name: bytes, slots: tuple[int, ...], fanout: int) -> None:
    """Raises InvalidContent unless the hash of `name` selects exactly these slots.

    With every name in its own slots, no name can be in a folder twice.
    """
    hashed = name_hash(name)
    if any(slot(hashed, level, fanout) != number for level, number in enumerate(slots)):
        raise InvalidContent(f"folder shard {cid} has {name!r} in the wrong slot")
