"""The content of one node, and of two that exchange it: `content.py` and `peers.py`."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.errors import ContentNotFound
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.content.peers import ContentPeers
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.exchange.wire import PROTOCOL
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.store.block_store import BlockStore, Pin
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.memory.network import MemoryNetwork
from tests.support.blocks.contents import unreachable
from tests.support.blocks.dag_makers import blob, results_folder, tree

NOWHERE = CID.of(RAW, b"nowhere")


async def test_exported_content_is_what_was_added(content, tmp_path):
    folder = results_folder(tmp_path / "results")
    added = await content.add(folder, pin_owner="job-1")
    exported = await content.export(added.cid, tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(folder)
    assert exported.bytes == added.size


async def test_missing_content_is_not_found(content, tmp_path):
    assert not await content.has(NOWHERE)
    with pytest.raises(ContentNotFound):
        await content.size(NOWHERE)
    with pytest.raises(ContentNotFound):
        await content.export(NOWHERE, tmp_path / "copy")


async def test_pins_are_set_and_removed(content, store):
    cid = CID.of(RAW, b"x")
    await content.pin(cid, "a", expires=5.0)
    assert not await content.unpin(cid, "b")
    assert await content.pins(cid) == store.pins() == [Pin(cid, "a", 5.0)]
    assert await content.unpin(cid, "a")
    assert store.pins() == []


async def test_expired_pins_are_removed_although_no_block_is_collected(content, store, autojump_clock):
    await content.pin(NOWHERE, "published:e-1", expires=5.0)
    await content.pin(NOWHERE, "user")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(content.remove_expired_pins)
        with trio.fail_after(60):
            while store.pins() != [Pin(NOWHERE, "user", None)]:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


async def test_every_new_pin_is_announced(store, tmp_path):
    pins = []
    content = Content(
        store, Exchange(store, unreachable), on_pin=lambda cid, owner: pins.append((cid, owner))
    )
    (tmp_path / "file").write_bytes(b"x")
    cid = (await content.add(tmp_path / "file", pin_owner="user")).cid
    await content.fetch(cid, pin_owner="job")
    await content.pin(cid, "execution")
    assert pins == [(cid, "user"), (cid, "job"), (cid, "execution")]


async def test_content_is_fetched_from_candidates_and_hints(tmp_path):
    network = MemoryNetwork()
    async with (
        network.open(Identity.generate()) as alice,
        network.open(Identity.generate()) as bob,
    ):
        with BlockStore(tmp_path / "store-a") as alices, BlockStore(tmp_path / "store-b") as bobs:
            contents = []
            for transport, blocks in ((alice, alices), (bob, bobs)):
                exchange = Exchange(blocks, transport.open_stream)
                transport.handle_streams(PROTOCOL, exchange.serve)
                peers = ContentPeers(candidates=lambda transport=transport: tuple(transport.peers))
                contents.append(Content(blocks, exchange, peers))
            giver, taker = contents
            added = await giver.add(results_folder(tmp_path / "results"), pin_owner="job-1")
            await taker.fetch(added.cid, hints=[alice.peer_id], pin_owner="user")
            assert await taker.has(added.cid)
            with pytest.raises(ContentNotFound, match=r"asked 1 peer$"):
                await taker.fetch(NOWHERE, hints=[alice.peer_id])
            assert bob.counters.get("handler_faults", 0) == 0


async def test_the_size_of_missing_content_is_that_which_its_root_block_claims(store, tmp_path):
    file = blob(1_000_000, 1)
    (tmp_path / "file").write_bytes(file)
    with BlockStore(tmp_path / "other") as other:
        cid = (
            await Content(other, Exchange(other, unreachable)).add(tmp_path / "file", pin_owner="user")
        ).cid
        asked = []

        async def ask_for_block(peer: PeerID, wanted: CID) -> bytes:
            asked.append(peer)
            block = other.get(wanted)
            if block is None or peer != "alice":
                raise PeerFault("missing")
            return block

        peers = ContentPeers(candidates=lambda: [PeerID("alice")], ask_for_block=ask_for_block)
        content = Content(store, Exchange(store, unreachable), peers)
        assert await content.claimed_size(cid, hints=[PeerID("bob")]) == len(file)
        assert asked == ["bob", "alice"]
        assert await content.claimed_size(NOWHERE) is None
    assert store.used == 0
    assert await content.stored_size(cid) == 0
