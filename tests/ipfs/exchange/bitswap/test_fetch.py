"""Fetching from one peer: `fetch.py` and `session.py`."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.errors import ContentNotFound, InvalidContent
from bacalhau_p2p.ipfs.exchange.bitswap.bitswap import PROTOCOL, Bitswap
from bacalhau_p2p.ipfs.exchange.bitswap.session import CONNECTION_CHECK_INTERVAL
from bacalhau_p2p.ipfs.exchange.bitswap.wire import Message
from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.exchange.interface import ExchangeLimits, Sources
from bacalhau_p2p.ipfs.files.importer import build
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.memory.network import MemoryNetwork
from tests.support.blocks.bitswap_net import ALICE, BOB
from tests.support.blocks.dag_makers import MemoryBlocks, file_of, results_folder
from tests.support.blocks.inline_threads import InlineThreads

FAR = CID.of(RAW, b"nowhere")


async def test_a_folder_is_fetched(net, tmp_path):
    root = build(results_folder(tmp_path / "results"), net.stores[ALICE].put).cid
    assert await net.bitswaps[BOB].has(ALICE, root)
    await net.bitswaps[BOB].fetch(ALICE, root)
    assert net.stores[BOB].has_all(root)
    assert net.faults == []


async def test_1000_blocks_are_fetched_on_one_stream_each_way(net):
    blocks = MemoryBlocks()
    root = blocks.folder([(b"%d" % number, blocks.raw(b"%d" % number)) for number in range(1000)])
    net.stores[ALICE].put_many(blocks.blocks.items())
    await net.bitswaps[BOB].fetch(ALICE, root)
    assert net.stores[BOB].has_all(root)
    assert net.opened == {ALICE: 1, BOB: 1}


async def test_only_missing_blocks_are_requested(net):
    blocks, root, leaves = file_of(8, 20_000)
    net.stores[ALICE].put_many(blocks.blocks.items())
    net.stores[BOB].put_many((cid, block) for cid, block in blocks.blocks.items() if cid != leaves[3])
    sent: list[CID] = []
    read = net.stores[ALICE].get
    net.stores[ALICE].get = lambda cid: sent.append(cid) or read(cid)
    await net.bitswaps[BOB].fetch(ALICE, root)
    assert sent == [leaves[3]]
    assert net.stores[BOB].has_all(root)


async def test_content_is_fetched_by_a_cidv0(net):
    blocks = MemoryBlocks()
    root = blocks.folder([(b"a", blocks.raw(b"a"))])
    net.stores[ALICE].put_many(blocks.blocks.items())
    v0 = CID(root.binary[2:])
    assert await net.bitswaps[BOB].has(ALICE, v0)
    await net.bitswaps[BOB].fetch(ALICE, v0)
    assert net.stores[BOB].has_all(root)


async def test_an_empty_block_is_fetched(net):
    empty = CID.of(RAW, b"")
    net.stores[ALICE].put(empty, b"")
    assert await net.bitswaps[BOB].block(ALICE, empty) == b""
    await net.bitswaps[BOB].fetch(ALICE, empty)
    assert net.stores[BOB].get(empty) == b""


async def test_a_single_block_is_fetched_and_not_stored(net):
    cid = CID.of(RAW, b"x")
    net.stores[ALICE].put(cid, b"x")
    assert await net.bitswaps[BOB].block(ALICE, cid) == b"x"
    assert net.stores[BOB].used == 0
    with pytest.raises(PeerFault, match=f"block {FAR} is missing"):
        await net.bitswaps[BOB].block(ALICE, FAR)


async def test_a_missing_block_is_reported_at_once(net, autojump_clock):
    began = trio.current_time()
    assert not await net.bitswaps[BOB].has(ALICE, FAR)
    with pytest.raises(PeerFault, match=f"block {FAR} is missing"):
        await net.bitswaps[BOB].fetch(ALICE, FAR)
    assert trio.current_time() == began


@pytest.mark.parametrize("half_closes", [False, True])
async def test_a_silent_peer_is_given_up_after_the_idle_timeout(net, autojump_clock, half_closes):
    async def silent(peer, stream):
        if half_closes:
            await stream.send_eof()
        await trio.sleep_forever()

    net.handlers[ALICE] = silent
    began = trio.current_time()
    with pytest.raises(PeerFault, match="no data for 15 s"):
        await net.bitswaps[BOB].fetch(ALICE, FAR)
    assert trio.current_time() - began == ExchangeLimits().idle


async def test_a_lost_connection_is_noticed_long_before_the_idle_timeout(tmp_path, autojump_clock):
    network = MemoryNetwork()
    async with network.open(ALICE) as alice, network.open(BOB) as bob:

        async def disconnect(peer, stream):
            await stream.receive_some()
            await alice.disconnect(peer)

        alice.handle_streams(PROTOCOL, disconnect)
        with BlockStore(tmp_path / "store") as store:
            bitswap = Bitswap(store, bob.open_stream, threads=InlineThreads())
            for ask in (bitswap.fetch, bitswap.has, bitswap.block):
                await bob.connect(alice.addresses[0])
                began = trio.current_time()
                with pytest.raises(PeerFault, match="connection lost"):
                    await ask(ALICE, FAR)
                assert trio.current_time() - began <= 2 * CONNECTION_CHECK_INTERVAL


async def test_a_wrong_block_is_not_stored_and_counts_as_no_answer(net, autojump_clock):
    async def lie(peer, stream):
        await stream.receive_some()
        answer = await net.opener(ALICE)(BOB, PROTOCOL)
        await answer.send_all(Message(blocks=[(FAR, b"another block")]).encode())
        await trio.sleep_forever()

    net.handlers[ALICE] = lie
    with pytest.raises(PeerFault, match="no data"):
        await net.bitswaps[BOB].fetch(ALICE, FAR)
    assert net.stores[BOB].used == 0


async def test_content_that_is_not_valid_ends_a_fetch(net):
    blocks = MemoryBlocks()
    root = blocks.folder([(b"../evil", blocks.raw(b"evil"))])
    net.stores[ALICE].put_many(blocks.blocks.items())
    with pytest.raises(InvalidContent, match="invalid entry name"):
        await net.exchange.fetch(root, Sources(peers=[ALICE]))
    assert net.stores[BOB].used == 0


async def test_the_exchange_falls_back_to_bitswap(net, tmp_path):
    root = build(results_folder(tmp_path / "results"), net.stores[ALICE].put).cid
    await net.exchange.fetch(root, Sources(peers=[PeerID("carol"), ALICE]))
    assert net.stores[BOB].has_all(root)
    with pytest.raises(ContentNotFound, match="no peer has"):
        await net.exchange.fetch(FAR, Sources(peers=[ALICE]))
