"""Blocks that a peer sends are checked one by one: `block_receiver.py`."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.errors import ContentNotFound, ContentTooLarge, InvalidContent
from bacalhau_p2p.ipfs.exchange.wire import Operation, Request
from bacalhau_p2p.ipfs.format.car import header, section
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.limits import Limits
from tests.support.blocks.content_net import ALICE, BOB, CAROL, intercept, lying
from tests.support.blocks.dag_makers import MemoryBlocks, file_of

OTHER = CID.of(RAW, b"other")


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (lambda root, block: section(root, block + b"x"), "does not match its hash"),
        (lambda root, block: section(root, block)[:-5], "truncated"),
        (lambda root, block: section(OTHER, b"other"), f"unexpected block {OTHER}"),
        (lambda root, block: section(root, block) * 2, "unexpected block"),
        (lambda root, block: section(CID.of(0x71, b"x"), b"x"), "codec 0x71"),
        (lambda root, block: b"\xff\xff\xff\x7f", "the limit is"),
    ],
    ids=["changed", "truncated", "unsolicited", "repeated", "codec", "too long"],
)
async def test_invalid_blocks_are_not_stored_and_another_peer_is_asked(net, stream, message):
    blocks, root, _ = file_of(3, 100)
    alice = net.peer(ALICE)
    net.handlers[BOB] = lying(header([root]) + stream(root, blocks.blocks[root]))
    with pytest.raises(InvalidContent, match=f"cannot fetch {root}: peer bob sent invalid data: .*{message}"):
        await net.fetch(ALICE, root, [BOB])
    assert not alice.has(OTHER)
    net.peer(CAROL, blocks)
    await net.fetch(ALICE, root, [BOB, CAROL])
    assert alice.has_all(root)


async def test_a_stream_that_ends_early_is_not_complete(net):
    blocks, root, _ = file_of(3, 100)
    net.peer(ALICE)
    net.handlers[BOB] = lying(header([root]) + section(root, blocks.blocks[root]))
    message = f"cannot fetch {root} from peer bob: the stream ended before all blocks arrived"
    with pytest.raises(ContentNotFound, match=message):
        await net.fetch(ALICE, root, [BOB])


async def test_the_next_peer_sends_only_what_is_missing_after_one_broke_off(net, autojump_clock):
    blocks, root, leaves = file_of(3, 100)
    alice, _ = net.peer(ALICE), net.peer(CAROL, blocks)
    half = header([root]) + section(root, blocks.blocks[root]) + section(leaves[0], blocks.blocks[leaves[0]])
    broke_off = trio.Event()
    net.handlers[BOB] = lying(half, sent=broke_off)
    requests, serve = intercept(net, CAROL), net.handlers[CAROL]

    async def serve_later(peer, stream):
        await broke_off.wait()
        await serve(peer, stream)

    net.handlers[CAROL] = serve_later
    await net.fetch(ALICE, root, [BOB, CAROL])
    assert alice.has_all(root)
    assert requests[-1] == Request(operation=Operation.GET, cid=root, wanted=tuple(leaves[1:]))


async def test_content_that_is_not_valid_is_refused_from_every_peer(net):
    blocks = MemoryBlocks()
    leaf = blocks.raw(b"x")
    root = blocks.folder([(b"../evil", leaf)])
    alice, _ = net.peer(ALICE), net.peer(BOB, blocks)
    with pytest.raises(InvalidContent, match=r"invalid entry name"):
        await net.fetch(ALICE, root, [BOB])
    assert not alice.has(leaf)


async def test_content_above_the_limits_is_refused_at_its_root(net):
    blocks = MemoryBlocks()
    leaf = blocks.raw(bytes(1000))
    root = blocks.file([(leaf, 1000)] * 100)
    alice = net.peer(ALICE, content=Limits(bytes=50_000))
    net.peer(BOB, blocks)
    with pytest.raises(ContentTooLarge, match="100000 bytes; the limit is 50000"):
        await net.fetch(ALICE, root, [BOB])
    assert not alice.has(leaf)
