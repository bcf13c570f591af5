"""Fetching a DAG from peers that speak our protocol: `exchange.py`, `fetch.py` and `interface.py`."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.errors import ContentNotFound, ContentTooLarge, InvalidContent
from bacalhau_p2p.ipfs.exchange.fetch_round import LINK_BYTES
from bacalhau_p2p.ipfs.exchange.wire import MAX_WANTED
from bacalhau_p2p.ipfs.files.importer import build
from bacalhau_p2p.ipfs.format.car import header
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from tests.support.blocks.content_net import ALICE, BOB, CAROL, DAVE, lying
from tests.support.blocks.dag_makers import MemoryBlocks, file_of, results_folder

X = CID.of(RAW, b"x")


async def test_a_folder_is_fetched_with_one_question_and_one_transfer(net, tmp_path):
    alice, bob = net.peer(ALICE), net.peer(BOB)
    root = build(results_folder(tmp_path / "results"), alice.put).cid
    await net.fetch(BOB, root, [ALICE])
    assert bob.has_all(root)
    assert net.opened[ALICE] == 2


async def test_nobody_is_asked_for_what_is_in_the_store(net):
    net.peer(ALICE).put(X, b"x")
    await net.fetch(ALICE, X, [BOB])
    assert not net.opened


async def test_the_peer_that_has_the_content_is_found_among_others(net):
    net.peer(ALICE), net.peer(BOB)
    net.peer(CAROL).put(X, b"x")
    await net.fetch(ALICE, X, [BOB, DAVE, CAROL])
    assert net.stores[ALICE].get(X) == b"x"


async def test_the_error_for_unknown_content_says_how_many_peers_were_asked(net):
    net.peer(ALICE), net.peer(BOB), net.peer(CAROL)
    with pytest.raises(ContentNotFound, match=rf"no peer has {X}: asked 2 peers$"):
        await net.fetch(ALICE, X, [BOB, CAROL, BOB])
    with pytest.raises(ContentNotFound, match=rf"{X} is not in the local store, and no peers are known$"):
        await net.fetch(ALICE, X, [])


async def test_an_unsupported_codec_is_refused_before_anybody_is_asked(net):
    net.peer(ALICE), net.peer(BOB)
    with pytest.raises(InvalidContent, match="codec 0x71"):
        await net.fetch(ALICE, CID.of(0x71, b"x"), [BOB])
    assert not net.opened


async def test_more_missing_blocks_than_one_request_can_name_are_fetched(net):
    blocks = MemoryBlocks()
    leaves = [blocks.raw(b"%d" % number) for number in range(MAX_WANTED + 500)]
    root = blocks.folder([(b"%d" % number, leaf) for number, leaf in enumerate(leaves)])
    alice = net.peer(ALICE, blocks, without=leaves)
    net.peer(BOB, blocks)
    await net.fetch(ALICE, root, [BOB])
    assert alice.has_all(root)
    assert net.opened[BOB] == 3


async def test_parts_of_a_folder_are_fetched_with_one_question_and_one_transfer_and_no_others(net):
    blocks = MemoryBlocks()
    leaves = [blocks.raw(b"%d" % number) for number in range(40)]
    files = [blocks.file([(leaf, len(b"%d" % number))]) for number, leaf in enumerate(leaves)]
    root = blocks.folder([(b"%d" % number, file) for number, file in enumerate(files)])
    alice = net.peer(ALICE)
    net.peer(BOB, blocks)
    wanted = files[:10]
    await net.fetch(ALICE, root, [BOB], parts=[*wanted, *wanted])
    assert [file for file in files if alice.has_all(file)] == wanted
    assert net.opened[BOB] == 2
    await net.fetch(ALICE, root, [BOB], parts=wanted)
    await net.fetch(ALICE, root, [BOB], parts=[])
    assert net.opened[BOB] == 2
    assert not alice.has(root)


async def test_more_parts_than_one_request_can_name_are_fetched(net):
    blocks = MemoryBlocks()
    leaves = [blocks.raw(b"%d" % number) for number in range(2 * MAX_WANTED + 1)]
    root = blocks.folder([(b"%d" % number, leaf) for number, leaf in enumerate(leaves)])
    alice = net.peer(ALICE, blocks, without=leaves)
    net.peer(BOB, blocks)
    await net.fetch(ALICE, root, [BOB], parts=leaves)
    assert alice.has_all(root)
    assert net.opened[BOB] == 4


async def test_parts_that_nobody_has_are_an_error(net):
    net.peer(ALICE), net.peer(BOB)
    with pytest.raises(ContentNotFound, match=rf"no peer has {X}: asked 1 peer$"):
        await net.fetch(ALICE, X, [BOB], parts=[X])


async def test_simultaneous_fetches_of_one_cid_are_one_transfer(net):
    blocks, root, _ = file_of(3, 100)
    net.peer(ALICE), net.peer(BOB, blocks)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(net.fetch, ALICE, root, [BOB])
    assert net.opened[BOB] == 2


async def test_a_cancelled_fetch_can_be_repeated(net):
    blocks, root, _ = file_of(3, 100)
    alice = net.peer(ALICE)
    sent = trio.Event()
    net.handlers[BOB] = lying(header([root]), sent=sent)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(net.fetch, ALICE, root, [BOB])
        await sent.wait()
        nursery.cancel_scope.cancel()
    net.peer(CAROL, blocks)
    await net.fetch(ALICE, root, [CAROL])
    assert alice.has_all(root)


async def test_a_transfer_stops_soon_after_the_bytes_that_were_reserved(net):
    blocks, root, _ = file_of(40, 1_000_000)
    net.peer(ALICE, blocks)
    bob = net.peer(BOB)
    with pytest.raises(ContentTooLarge, match="has at least") as caught:
        await net.fetch(BOB, root, [ALICE], max_bytes=1000)
    assert caught.value.size is not None
    assert caught.value.size > 1000
    assert bob.used <= LINK_BYTES + 4_000_000
    await net.fetch(BOB, root, [ALICE], max_bytes=40_000_000)
    assert bob.has_all(root)
