"""The exchange over each transport, with its real streams, ends and resets."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager

import pytest
import trio

from bacalhau_p2p.errors import ContentNotFound
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.content.peers import ContentPeers
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.exchange.wire import PROTOCOL
from bacalhau_p2p.ipfs.files.importer import cid_of
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.testing.transports import open_connected
from bacalhau_p2p.transports.libp2p.transport import open_libp2p
from bacalhau_p2p.transports.memory.network import MemoryNetwork
from tests.support.blocks.dag_makers import blob, results_folder, tree
from tests.support.blocks.stored_blocks import large_blocks, lose_large_block


@pytest.fixture(params=["memory", pytest.param("libp2p", marks=pytest.mark.network)])
def open_transport(request):
    return open_libp2p if request.param == "libp2p" else MemoryNetwork().open


@pytest.fixture
def pair(open_transport, tmp_path):
    """Opens two connected nodes with content: (Content, its store, its transport) for each."""

    @asynccontextmanager
    async def opened():
        async with open_connected(open_transport) as transports:
            with ExitStack() as stack:
                nodes = []
                for number, transport in enumerate(transports):
                    blocks = stack.enter_context(BlockStore(tmp_path / f"store-{number}"))
                    exchange = Exchange(blocks, transport.open_stream)
                    transport.handle_streams(PROTOCOL, exchange.serve)
                    peers = ContentPeers(candidates=lambda transport=transport: tuple(transport.peers))
                    nodes.append((Content(blocks, exchange, peers), blocks, transport))
                yield nodes

    return opened


async def test_folders_and_large_files_arrive_complete(pair, tmp_path):
    folder = results_folder(tmp_path / "results")
    (folder / "outputs" / "large").write_bytes(blob(12_000_000, 4))
    for number in range(300):
        (folder / "outputs" / f"{number}").write_text(str(number))
    async with pair() as [(giver, _, giving), (taker, _, taking)]:
        added = await giver.add(folder, pin_owner="job")
        await taker.fetch(added.cid)
        await taker.export(added.cid, tmp_path / "copy")
        assert tree(tmp_path / "copy") == tree(folder)
        for transport in (giving, taking):
            assert transport.counters.get("handler_faults", 0) == 0


async def test_a_fetch_fails_when_the_provider_has_lost_a_block(pair, tmp_path):
    (tmp_path / "file").write_bytes(blob(3_000_000, 5))
    async with pair() as [(giver, _, _), (taker, kept, _)]:
        added = await giver.add(tmp_path / "file", pin_owner="job")
        assert await giver.has(added.cid)  # remembered until a block turns out to be missing
        last = CID.of(RAW, blob(3_000_000, 5)[-(3_000_000 % 262_144) :])
        lose_large_block(tmp_path / "store-0", last)
        with pytest.raises(ContentNotFound, match=r"cannot fetch .* from peer"):
            await taker.fetch(added.cid)
        with pytest.raises(ContentNotFound, match="no peer has"):
            await taker.fetch(added.cid)
        assert not await taker.has(added.cid)
        await giver.add(tmp_path / "file", pin_owner="job")
        assert len(large_blocks(tmp_path / "store-1")) > 1
        await taker.fetch(added.cid)
        assert kept.dag_stat(added.cid).complete


async def test_both_sides_work_after_a_cancelled_fetch(pair, tmp_path):
    (tmp_path / "file").write_bytes(blob(20_000_000, 6))
    async with pair() as [(giver, _, giving), (taker, kept, _)]:
        added = await giver.add(tmp_path / "file", pin_owner="job")
        token, started = trio.lowlevel.current_trio_token(), trio.Event()
        with kept.watching(lambda blocks: token.run_sync_soon(started.set)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(taker.fetch, added.cid)
                await started.wait()
                nursery.cancel_scope.cancel()
        assert not kept.has_all(added.cid)
        await taker.fetch(added.cid)
        await taker.export(added.cid, tmp_path / "copy")
        assert cid_of(tmp_path / "copy") == added.cid
        assert giving.counters.get("handler_faults", 0) == 0


async def test_content_that_no_peer_has_is_an_error_without_a_timeout(pair):
    async with pair() as [_, (taker, _, _)]:
        with pytest.raises(ContentNotFound, match=r"asked 1 peer$"):
            await taker.fetch(CID.of(RAW, b"nowhere"), timeout=3600)
