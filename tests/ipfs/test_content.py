from __future__ import annotations

import io
import tarfile
from contextlib import ExitStack

import pytest
import trio

from bacalhau_p2p.errors import ContentNotFound, ContentTooLarge, InvalidContent
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.content.peers import ContentPeers
from bacalhau_p2p.ipfs.content.reader import STREAM_CHUNK
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.exchange.wire import PROTOCOL
from bacalhau_p2p.ipfs.files.importer import cid_of
from bacalhau_p2p.ipfs.files.pack import Packed
from bacalhau_p2p.ipfs.format.car import CarReader, header, section
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW
from bacalhau_p2p.ipfs.format.dag_pb import PBLink, encode_block, encode_directory
from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.store.block_store import BlockStore, Pin
from bacalhau_p2p.transports.memory.network import MemoryNetwork
from tests.support.blocks.contents import alone, packed_under_its_root, pieces
from tests.support.blocks.dag_makers import MemoryBlocks, blob, results_folder, tree
from tests.support.blocks.stored_blocks import lose_large_block

LIMITS = Limits(bytes=100_000_000)


@pytest.fixture
def store(tmp_path):
    with BlockStore(tmp_path / "store", limits=LIMITS) as store:
        yield store


@pytest.fixture
def content(store):
    return alone(store)


async def collect(chunks) -> list[bytes]:
    return [chunk async for chunk in chunks]


async def test_added_content_is_there_pinned_and_sized(content, store, tmp_path):
    folder = results_folder(tmp_path / "results")
    (folder / ".hidden").write_text("also a result")
    added = await content.add(folder, pin_owner="job-1")
    assert added.cid == cid_of(folder, hidden=True)
    assert await content.has(added.cid)
    assert await content.size(added.cid) == added.size == 3_000_018
    assert store.pins() == [Pin(added.cid, "job-1", None)]


async def test_kubos_rule_on_hidden_files_can_be_asked_for(content, tmp_path):
    folder = results_folder(tmp_path / "results")
    (folder / ".hidden").write_text("")
    assert (await content.add(folder, pin_owner="user", hidden=False)).cid == cid_of(folder)


async def test_content_can_be_written_out_again(content, tmp_path):
    folder = results_folder(tmp_path / "results")
    added = await content.add(folder, pin_owner="job-1")
    done = await content.export(added.cid, tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(folder)
    assert done.bytes == added.size


async def test_a_car_of_one_node_is_taken_by_another(content, tmp_path):
    added = await content.add(results_folder(tmp_path / "results"), pin_owner="job-1")
    chunks = await collect(content.reader.car(added.cid))
    assert all(len(chunk) >= STREAM_CHUNK for chunk in chunks[:-1])
    with BlockStore(tmp_path / "other") as other:
        receiver = alone(other)
        assert await receiver.import_car(pieces(b"".join(chunks)), pin_owner="user") == added.cid
        assert await receiver.has(added.cid)
        assert [pin.owner for pin in other.pins(added.cid)] == ["user"]


async def test_a_car_packed_leaves_first_is_taken(content, tmp_path):
    folder = results_folder(tmp_path / "results")
    assert await content.import_car(pieces(packed_under_its_root(folder), 999), pin_owner="user") == cid_of(
        folder
    )


async def test_a_car_whose_root_comes_last_is_taken_from_who_says_so(content, store, tmp_path):
    folder = results_folder(tmp_path / "results")
    packed = Packed(folder)
    car = b"".join(packed)
    with pytest.raises(InvalidContent, match="has 0 roots"):
        await content.import_car(pieces(car, 999), pin_owner="user")
    with pytest.raises(InvalidContent, match="has 0 roots"):
        await content.import_car(pieces(header([])), pin_owner="user", root_is_last=True)
    with pytest.raises(InvalidContent, match="is missing in the CAR stream"):
        await content.import_car(pieces(lacking_first(car)), pin_owner="user", root_is_last=True)
    assert store.pins() == []
    assert await content.import_car(pieces(car, 999), pin_owner="user", root_is_last=True) == packed.root
    assert packed.root == cid_of(folder)


def lacking_first(car: bytes) -> bytes:
    """A packed folder without its first block, which nothing else has brought."""
    sections = CarReader().feed(car)[1:]
    fresh = CID.of(RAW, b"not there")
    root = encode_block([PBLink(fresh, b"a", 9)], encode_directory())
    return header([]) + b"".join(section(*each) for each in [*sections, (CID.of(DAG_PB, root), root)])


def car_of(*roots: CID, blocks: MemoryBlocks) -> bytes:
    return header(roots) + b"".join(section(cid, block) for cid, block in blocks.blocks.items())


async def test_only_one_complete_dag_is_taken(content, store):
    blocks = MemoryBlocks()
    leaf = blocks.raw(b"leaf")
    root = blocks.folder([(b"a", leaf), (b"b", blocks.raw(b"other"))])
    with pytest.raises(InvalidContent, match="has 2 roots"):
        await content.import_car(pieces(car_of(root, leaf, blocks=blocks)), pin_owner="user")
    with pytest.raises(InvalidContent, match="has 0 roots"):
        await content.import_car(pieces(car_of(blocks=blocks)), pin_owner="user")
    with pytest.raises(InvalidContent, match="truncated"):
        await content.import_car(pieces(car_of(root, blocks=blocks)[:-1]), pin_owner="user")
    with pytest.raises(InvalidContent, match="truncated"):
        await content.import_car(pieces(b""), pin_owner="user")
    with pytest.raises(InvalidContent, match="codec 0x71"):
        await content.import_car(pieces(header([CID.of(0x71, b"")])), pin_owner="user")
    assert store.pins() == []


async def test_a_car_that_lacks_a_block_is_refused(content, store):
    blocks = MemoryBlocks()
    leaf = blocks.raw(b"leaf")
    root = blocks.folder([(b"a", leaf)])
    del blocks.blocks[leaf]
    with pytest.raises(InvalidContent, match=f"block {leaf} is missing in the CAR stream"):
        await content.import_car(pieces(car_of(root, blocks=blocks)), pin_owner="user")
    assert store.pins() == []


async def test_an_upload_above_the_limit_is_cut_off(tmp_path):
    with BlockStore(tmp_path / "small", limits=Limits(bytes=1000, entries=1)) as small:
        content = alone(small)

        async def endless():
            while True:
                yield bytes(1 << 18)

        with pytest.raises(ContentTooLarge):
            await content.import_car(endless(), pin_owner="user")


async def test_tar_and_single_blocks_are_given(content, tmp_path):
    folder = results_folder(tmp_path / "results")
    added = await content.add(folder, pin_owner="job-1")
    stream = b"".join(await collect(content.reader.tar(added.cid, name="job")))
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    assert tree(tmp_path / "out" / "job") == tree(folder)
    assert await content.reader.block(added.entries["stdout"]) == b"out\n"


async def test_what_is_not_in_the_store_is_not_found(content, tmp_path):
    cid = CID.of(RAW, b"nowhere")
    assert not await content.has(cid)
    for call in (content.size, content.reader.block):
        with pytest.raises(ContentNotFound):
            await call(cid)
    for stream in (content.reader.car, content.reader.tar):
        with pytest.raises(ContentNotFound):
            await collect(stream(cid))
    with pytest.raises(ContentNotFound):
        await content.export(cid, tmp_path / "copy")


async def test_pins_are_set_and_taken_back(content, store):
    cid = CID.of(RAW, b"x")
    await content.pin(cid, "a", expires=5.0)
    await content.unpin(cid, "b")
    assert store.pins() == [Pin(cid, "a", 5.0)]
    await content.unpin(cid, "a")
    assert store.pins() == []


async def test_a_cancelled_add_stops_and_pins_nothing(content, store, tmp_path):
    (tmp_path / "file").write_bytes(blob(5_000_000, 1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await content.add(tmp_path / "file", pin_owner="user")
    assert scope.cancelled_caught
    assert store.pins() == []


async def test_content_crosses_a_network_from_candidates_and_hints(tmp_path):
    network = MemoryNetwork()
    with ExitStack() as stack:
        async with (
            network.open(Identity.generate()) as alice,
            network.open(Identity.generate()) as bob,
        ):
            contents = []
            for name, transport in (("a", alice), ("b", bob)):
                blocks = stack.enter_context(BlockStore(tmp_path / f"store-{name}"))
                exchange = Exchange(blocks, transport.open_stream)
                transport.handle_streams(PROTOCOL, exchange.serve)
                peers = ContentPeers(candidates=lambda transport=transport: tuple(transport.peers))
                contents.append(Content(blocks, exchange, peers))
            giver, taker = contents
            added = await giver.add(results_folder(tmp_path / "results"), pin_owner="job-1")
            await taker.fetch(added.cid, hints=[alice.peer_id], pin_owner="user")
            assert await taker.has(added.cid)
            with pytest.raises(ContentNotFound, match=r"asked 1 peer$"):
                await taker.fetch(CID.of(RAW, b"nowhere"), hints=[alice.peer_id])
            assert bob.counters.get("handler_faults", 0) == 0


async def test_content_that_lost_a_block_on_disk_is_noticed(content, tmp_path):
    added = await content.add(results_folder(tmp_path / "results"), pin_owner="job-1")
    assert await content.has(added.cid)
    leaf = (await content.reader.resolve(added.cid, ("outputs", "data.bin"))).node.parts[0].cid
    for use in (
        lambda: content.export(added.cid, tmp_path / "copy"),
        lambda: collect(content.reader.car(added.cid)),
    ):
        assert await content.import_car(pieces(packed_under_its_root(tmp_path / "results")), pin_owner="user")
        assert await content.has(added.cid)
        lose_large_block(tmp_path / "store", leaf)
        with pytest.raises(ContentNotFound, match=f"block {leaf} is not in the store"):
            await use()
        assert not await content.has(added.cid)
