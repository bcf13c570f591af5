"""A DAG that is streamed while it is fetched."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.client.download import Download
from bacalhau_p2p.errors import ContentNotFound, InvalidContent
from bacalhau_p2p.ipfs.files.car_stream import CarStream, RecentBlocks, stream_car
from bacalhau_p2p.ipfs.format.car import CarReader, write_car
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.runtime.threads import Threads
from tests.support.blocks.dag_makers import MemoryBlocks, names, results_folder, tree

Blocks = Sequence[tuple[CID, bytes]]


@pytest.fixture
def store(tmp_path):
    with BlockStore(tmp_path / "store") as store:
        yield store


@pytest.fixture
def dag(tmp_path):
    blocks = MemoryBlocks()
    folder = results_folder(tmp_path / "results")
    (folder / "copy").write_bytes((folder / "outputs" / "data.bin").read_bytes())
    return blocks.add(folder).cid, blocks, folder


class Source:
    """A fetch whose blocks arrive when the test sends them."""

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self.give, self._given = trio.open_memory_channel[Blocks](math.inf)
        self.failure: Exception | None = None
        self.cancelled = False

    async def fetch(self) -> None:
        try:
            async for blocks in self._given:
                await trio.to_thread.run_sync(self._store.put_many, blocks)
        except trio.Cancelled:
            self.cancelled = True
            raise
        if self.failure is not None:
            raise self.failure

    def follow(self, root: CID):
        return stream_car(root, self._store, self.fetch, Threads(2))


async def collect(stream: CarStream) -> bytes:
    car = b""
    with trio.fail_after(10):
        while piece := await stream.receive():
            car += piece
    return car


async def test_each_block_is_streamed_as_soon_as_it_arrives(store, dag):
    root, blocks, _ = dag
    whole = b"".join(write_car([root], blocks))
    stream = CarReader().feed(whole)
    source, reader, given = Source(store), CarReader(), []
    async with source.follow(root) as car:
        for block in stream:
            source.give.send_nowait([block])
            with trio.fail_after(10):
                given += reader.feed(await car.receive())
            assert given[-1] == block
        assert await car.receive() == b""
        assert not source.cancelled
        source.give.close()
    assert given == stream


@pytest.mark.parametrize("seed", range(12))
async def test_the_car_is_the_same_in_whatever_order_blocks_arrive(store, dag, seed, monkeypatch):
    root, blocks, _ = dag
    rng = random.Random(seed)
    monkeypatch.setattr(
        "bacalhau_p2p.ipfs.files.car_stream._RECENT_SIZE", rng.choice([1, 300_000, 1_000_000, 8_000_000])
    )
    shuffled = list(blocks.blocks.items())
    if seed % 3:
        rng.shuffle(shuffled)
    else:  # as they are asked for
        shuffled = CarReader().feed(b"".join(write_car([root], blocks)))
    of_an_earlier_fetch = [block for block in shuffled if rng.random() < 0.3]
    store.put_many(of_an_earlier_fetch)
    shuffled = [block for block in shuffled if block not in of_an_earlier_fetch]
    source = Source(store)
    async with source.follow(root) as car, trio.open_nursery() as nursery:
        cars = []

        async def follow() -> None:
            cars.append(await collect(car))

        nursery.start_soon(follow)
        while shuffled:
            count = rng.randint(1, 5)
            source.give.send_nowait(shuffled[:count])
            del shuffled[:count]
            if rng.random() < 0.7:
                await trio.testing.wait_all_tasks_blocked(0.001)
        source.give.close()
    assert cars == [b"".join(write_car([root], blocks))]


async def test_blocks_that_are_no_longer_in_memory_are_read_from_the_store(store, dag, monkeypatch):
    root, blocks, _ = dag
    monkeypatch.setattr("bacalhau_p2p.ipfs.files.car_stream._RECENT_SIZE", 1)
    source = Source(store)
    async with source.follow(root) as car:
        source.give.send_nowait(list(blocks.blocks.items()))
        source.give.close()
        assert await collect(car) == b"".join(write_car([root], blocks))


async def test_the_error_of_a_fetch_follows_the_blocks_that_arrived(store, dag):
    root, blocks, _ = dag
    stream = CarReader().feed(b"".join(write_car([root], blocks)))
    source = Source(store)
    source.failure = ContentNotFound("the last peer that had it is gone")
    source.give.send_nowait(stream[:4])
    source.give.close()
    reader, given = CarReader(), []

    async def follow() -> None:
        async with source.follow(root) as car:
            while piece := await car.receive():
                given.extend(reader.feed(piece))

    with pytest.raises(ContentNotFound, match="the last peer that had it is gone"):
        await follow()
    assert given == stream[:4]
    assert store.has(stream[3][0])


async def test_a_block_that_is_removed_meanwhile_is_an_error(store, dag):
    root, blocks, _ = dag
    stream = CarReader().feed(b"".join(write_car([root], blocks)))
    source = Source(store)
    source.give.send_nowait(stream[:-1])
    source.give.close()
    with pytest.raises(ContentNotFound, match="is no longer in the store"):
        async with source.follow(root) as car:
            await collect(car)


async def test_content_above_the_limits_ends_the_fetch(store):
    blocks = MemoryBlocks()
    root = blocks.raw(b"x")
    for _ in range(100):
        root = blocks.folder([(b"d", root)])
    source = Source(store)
    source.give.send_nowait(list(blocks.blocks.items()))
    with pytest.raises(InvalidContent, match="nested more than 64 levels deep"):
        async with source.follow(root) as car:
            await collect(car)
    assert source.cancelled


async def test_a_reader_that_leaves_cancels_the_fetch_and_keeps_its_blocks(store, dag):
    root, blocks, _ = dag
    source = Source(store)
    source.give.send_nowait([(root, blocks.blocks[root])])
    with trio.fail_after(10):
        async with source.follow(root) as car:
            await car.receive()
    assert source.cancelled
    assert store.has(root)


async def test_the_size_of_a_file_is_known_with_its_first_block(store, dag, tmp_path):
    _, blocks, folder = dag
    file = blocks.add(folder / "copy").cid
    source = Source(store)
    source.give.send_nowait([(file, blocks.blocks[file])])
    async with source.follow(file) as car:
        await car.receive()
        assert car.size == 3_000_000


def test_recent_blocks_have_a_limited_size():
    recent = RecentBlocks(100)
    blocks = [(CID.of(RAW, block), block) for block in (bytes([n]) * 40 for n in range(5))]
    recent.put(blocks[:3])
    recent.put(blocks[2:4])
    assert [recent.take(cid) for cid, _ in blocks] == [None, None, blocks[2][1], blocks[3][1], None]
    assert recent.take(blocks[3][0]) is None
    recent.put(blocks)
    assert [recent.take(cid) for cid, _ in blocks[3:]] == [blocks[3][1], blocks[4][1]]


async def test_a_streamed_dag_can_be_unpacked(store, dag, tmp_path):
    root, blocks, folder = dag
    out = tmp_path / "out"
    out.mkdir()
    source = Source(store)
    async with source.follow(root) as car:
        source.give.send_nowait(list(blocks.blocks.items()))
        with Download(root, Path(out / "copy")) as download:
            download.feed(await collect(car))
            download.finish()
        source.give.close()
    assert tree(out / "copy") == tree(folder)
    assert names(out) == ["copy"]
