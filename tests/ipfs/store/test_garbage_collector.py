from __future__ import annotations

import signal
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest
import trio

from bacalhau_p2p.errors import ContentError
from bacalhau_p2p.ipfs.files.importer import build
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.store import block_table
from bacalhau_p2p.ipfs.store.block_store import BlockStore, Collected
from tests.support.blocks.contents import alone
from tests.support.blocks.dag_makers import MemoryBlocks, blob, results_folder
from tests.support.blocks.stored_blocks import large_blocks, set_stored_time

NOW = 1_000_000.0
BIG = 20_000
"""Bytes of a block that is in a pack; smaller ones are in a table."""


@pytest.fixture
def store(tmp_path):
    with BlockStore(tmp_path / "store", clock=lambda: NOW) as store:
        yield store


def put_dag(store: BlockStore, seed: int) -> tuple[CID, list[CID]]:
    """A folder with a file of eight chunks and a sub-folder; its root, and all of its blocks."""
    blocks = MemoryBlocks()
    parts = [(blocks.raw(blob(BIG, seed * 10 + n)), BIG) for n in range(8)]
    inner = blocks.folder([(b"small", blocks.raw(b"%d" % seed))])
    root = blocks.folder([(b"data", blocks.file(parts)), (b"inner", inner)])
    store.put_many(blocks.blocks.items())
    return root, list(blocks.blocks)


def present(store: BlockStore, blocks: list[CID]) -> int:
    return sum(store.has(cid) for cid in blocks)


def size_of(store: BlockStore, blocks: list[CID]) -> int:
    return sum(store.size(cid) or 0 for cid in blocks)


def test_pinned_dags_are_kept_and_all_else_is_removed(store):
    (kept, kept_blocks), (_, loose_blocks) = put_dag(store, 1), put_dag(store, 2)
    store.pin(kept, "user")
    size = size_of(store, loose_blocks)
    assert store.collect() == Collected(blocks=len(loose_blocks), bytes=size)
    assert store.has_all(kept)
    assert present(store, loose_blocks) == 0
    assert store.collect() == Collected()
    assert store.used == size_of(store, kept_blocks)


def test_an_expired_pin_keeps_nothing_and_is_removed(store):
    root, blocks = put_dag(store, 1)
    store.pin(root, "published:e-1", expires=NOW)
    store.pin(root, "published:e-2", expires=NOW - 5)
    assert store.collect().blocks == len(blocks)
    assert store.pins() == []


def test_a_dag_is_kept_until_its_last_owner_unpins_it(store):
    root, _ = put_dag(store, 1)
    store.pin(root, "user")
    store.pin(root, "published:e-1", expires=NOW + 1)
    assert store.unpin(root, "user")
    assert store.collect() == Collected()
    assert store.has_all(root)


def test_a_block_shared_by_two_dags_is_kept_for_the_pinned_one(store):
    blocks = MemoryBlocks()
    shared = blocks.raw(b"shared")
    kept, loose = blocks.folder([(b"a", shared)]), blocks.folder([(b"b", shared)])
    store.put_many(blocks.blocks.items())
    store.pin(kept, "user")
    assert store.collect().blocks == 1
    assert store.has_all(kept)
    assert not store.has(loose)


def test_a_node_whose_bytes_are_also_a_leaf_keeps_what_it_links_to(store):
    blocks = MemoryBlocks()
    inner = blocks.folder([(b"leaf", blocks.raw(b"leaf"))])
    as_file = CID.of(RAW, blocks.blocks[inner])
    root = blocks.folder([(b"a", as_file), (b"b", inner), (b"c", as_file)])
    store.put_many(blocks.blocks.items())
    store.pin(root, "user")
    assert store.collect() == Collected()


def test_a_held_dag_is_kept_until_it_is_released(store):
    root, blocks = put_dag(store, 1)
    with store.holding(root), store.holding(root):
        assert store.collect() == Collected()
    assert store.collect().blocks == len(blocks)


def test_blocks_of_a_batch_are_kept_before_there_is_a_root(store):
    with store.batch() as batch:
        for number in range(5):
            data = b"leaf %d" % number
            store.put_verified(CID.of(RAW, data), data, batch)
        assert store.collect() == Collected()
    assert store.collect().blocks == 5


def test_a_block_that_was_there_before_its_batch_is_kept_too(store):
    leaf = CID.of(RAW, b"leaf")
    store.put(leaf, b"leaf")
    with store.batch() as batch:
        store.put_verified(leaf, b"leaf", batch)
        assert store.collect() == Collected()


class Interrupted:
    """A checkpoint that does something once, at its n-th call: in the middle of a collection."""

    def __init__(self, at: int, action) -> None:
        self.calls, self.at, self.action = 0, at, action

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            self.action()


def checkpoints_of_a_collection(tmp_path) -> int:
    with BlockStore(tmp_path / "counted") as store:
        put_dag(store, 1)
        counter = Interrupted(0, None)
        store.collect(checkpoint=counter)
        return counter.calls


def test_a_use_that_begins_during_a_collection_keeps_its_blocks(tmp_path, monkeypatch):
    """A pin, a use and an add, begun at each of its steps: either the blocks are seen to be gone, or
    they stay."""
    monkeypatch.setattr(block_table, "PAGE_SIZE", 2)
    steps = checkpoints_of_a_collection(tmp_path)
    assert steps > 5
    for step in range(1, steps + 1):
        for way in ("pin", "hold", "batch", "put"):
            with BlockStore(tmp_path / f"{way}-{step}") as store, ExitStack() as stack:
                root, blocks = put_dag(store, 1)
                bodies = {cid: store.get(cid) for cid in blocks}
                complete = []

                def begin(store=store, stack=stack, root=root, bodies=bodies, way=way, complete=complete):
                    if way == "pin":
                        store.pin(root, "user")
                    elif way == "hold":
                        stack.enter_context(store.holding(root))
                    else:
                        batch = stack.enter_context(store.batch()) if way == "batch" else None
                        for cid, body in bodies.items():
                            store.put_verified(cid, body, batch)
                    complete.append(store.has_all(root))

                store.collect(checkpoint=Interrupted(step, begin))
                assert store.has_all(root) == complete[0], (way, step)
                if way in ("batch", "put"):
                    assert complete == [True]
                assert store.used == size_of(store, blocks)


def test_a_dag_that_is_removed_while_its_stat_is_computed_is_not_cached_as_complete(store):
    root, _ = put_dag(store, 1)
    read = store.get

    def vanish(cid: CID) -> bytes | None:
        block = read(cid)
        store.get = read
        collector = threading.Thread(target=store.collect)
        collector.start()
        collector.join()
        return block

    store.get = vanish
    store.dag_stat(root)
    assert not store.has_all(root)


# --- quota --------------------------------------------------------------------------------------


def age(tmp_path, cid: CID, seconds: float) -> None:
    set_stored_time(tmp_path / "store", cid, int(NOW - seconds))


def put_blob(store: BlockStore, number: int, size: int = BIG) -> CID:
    data = blob(size, number)
    cid = CID.of(RAW, data)
    store.put(cid, data)
    return cid


def test_a_full_store_removes_the_oldest_blocks(tmp_path):
    with BlockStore(tmp_path / "store", quota=10 * BIG, clock=lambda: NOW) as store:
        cids = [put_blob(store, number) for number in range(10)]
        for number, cid in enumerate(cids):
            age(tmp_path, cid, 10_000 - 600 * number)
        store.pin(cids[0], "user")
        assert store.used == 10 * BIG
        assert store.needs_collection
        fresh = put_blob(store, 10)
        assert store.has(fresh)
        assert [store.has(cid) for cid in cids] == [True] + [False] * 3 + [True] * 6
        assert store.used == 8 * BIG


def test_a_store_full_of_pinned_blocks_refuses_more(tmp_path):
    with BlockStore(tmp_path / "store", quota=10 * BIG, clock=lambda: NOW) as store:
        for number in range(10):
            store.pin(put_blob(store, number), "user")
        with pytest.raises(
            ContentError, match=r"the block store is full: 200000 of 200000 bytes are pinned or in use"
        ):
            put_blob(store, 10)
        assert store.used == 10 * BIG
        assert len(large_blocks(tmp_path / "store")) == 10


@pytest.mark.parametrize("clean", [True, False])
def test_the_used_bytes_are_known_after_a_crash_too(tmp_path, clean):
    with BlockStore(tmp_path / "store") as store:
        cids = [put_blob(store, number) for number in range(3)]
        put_blob(store, 0)
        store.delete(cids[1])
        store.delete(cids[1])
        assert store.used == 2 * BIG
    if not clean:
        code = (
            "import os, sys; from pathlib import Path;"
            "from bacalhau_p2p.ipfs.store.block_store import BlockStore;"
            "from bacalhau_p2p.ipfs.format.cid import CID, RAW;"
            "store = BlockStore(Path(sys.argv[1]));"
            "store.put(CID.of(RAW, b'more'), b'more'); os._exit(9)"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "store")], check=False)
    with BlockStore(tmp_path / "store") as store:
        assert store.used == 2 * BIG + (0 if clean else 4)


def test_a_process_killed_while_collecting_leaves_pinned_dags_and_whole_blocks(tmp_path):
    with BlockStore(tmp_path / "store") as store:
        root, _ = put_dag(store, 1)
        store.pin(root, "user")
        loose = [put_blob(store, 100 + number, BIG * (number % 2) + 50) for number in range(3000)]
    code = (
        "import sys; from pathlib import Path; from bacalhau_p2p.ipfs.store.block_store import BlockStore\n"
        "from bacalhau_p2p.ipfs.store import block_table; block_table.PAGE_SIZE = 5\n"
        "store = BlockStore(Path(sys.argv[1]))\n"
        "store.collect(checkpoint=lambda: print('.', flush=True))\n"
    )
    collector = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "store")], stdout=subprocess.PIPE
    )
    assert collector.stdout is not None
    with collector:
        for _ in range(300):
            collector.stdout.readline()
        collector.send_signal(signal.SIGKILL)
    with BlockStore(tmp_path / "store") as store:
        left = present(store, loose)
        assert 0 < left < 3000
        assert all(store.get(cid) is not None for cid in loose if store.has(cid))
        assert store.has_all(root)
        assert store.collect().blocks == left


def test_a_process_killed_while_adding_leaves_no_complete_dag(tmp_path):
    (tmp_path / "big").write_bytes(blob(40_000_000, 3))
    root = build(tmp_path / "big", lambda cid, block: None).cid
    code = (
        "import sys; from pathlib import Path; from bacalhau_p2p.ipfs.store.block_store import BlockStore\n"
        "from bacalhau_p2p.ipfs.files.importer import build\n"
        "store = BlockStore(Path(sys.argv[1]))\n"
        "def sink(cid, block): store.put_verified(cid, block); print('.', flush=True)\n"
        "added = build(Path(sys.argv[2]), sink); store.pin(added.cid, 'user')\n"
    )
    adder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "store"), str(tmp_path / "big")], stdout=subprocess.PIPE
    )
    assert adder.stdout is not None
    with adder:
        for _ in range(20):
            adder.stdout.readline()
        adder.send_signal(signal.SIGKILL)
    with BlockStore(tmp_path / "store") as store:
        assert not store.has_all(root)
        assert store.pins() == []
        assert 20 <= store.collect().blocks < 153
        assert store.used == 0


# --- through the content of a node ----------------------------------------------------------------


async def test_content_can_be_added_and_exported_during_collections(tmp_path):
    with BlockStore(tmp_path / "store") as store:
        content = alone(store)
        folder = results_folder(tmp_path / "results")
        stop = trio.Event()

        async def collect_always() -> None:
            while not stop.is_set():
                await content.collect()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect_always)
            for number in range(10):
                (folder / "stdout").write_text(f"{number}\n")
                added = await content.add(folder, pin_owner="job")
                with content.holding(added.cid):
                    assert await content.unpin(added.cid, "job")
                    await content.export(added.cid, tmp_path / f"copy-{number}")
            stop.set()
        await content.collect()
        assert content.used == 0


async def test_blocks_are_collected_before_the_store_is_full(tmp_path, autojump_clock):
    done = trio.Event()

    class Watched(BlockStore):
        def collect(self, **options) -> Collected:
            gone = super().collect(**options)
            trio.from_thread.run_sync(done.set)
            return gone

    with Watched(tmp_path / "store", quota=10 * BIG) as store:
        content = alone(store)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(content.collect_periodically)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(10):
                put_blob(store, number)
            await done.wait()
            nursery.cancel_scope.cancel()
        assert content.used <= 7 * BIG
