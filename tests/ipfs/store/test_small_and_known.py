"""Two short cuts that spare a thread: a folder that is small, and a DAG that is known to be complete."""

from __future__ import annotations

import pytest

from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.files.importer import SMALL_BYTES, SMALL_ENTRIES, build, is_small_folder
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.runtime.threads import Threads
from tests.support.blocks.contents import alone, unreachable
from tests.support.blocks.dag_makers import blob, results_folder
from tests.support.blocks.stored_blocks import large_block, lose_large_block


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def fill(folder, entries: int, size: int = 0) -> None:
    for number in range(entries):
        (folder / str(number)).write_bytes(bytes(size))


def test_a_folder_is_small_up_to_so_many_entries(folder):
    assert is_small_folder(folder)
    fill(folder, SMALL_ENTRIES)
    assert is_small_folder(folder)
    (folder / "one more").touch()
    assert not is_small_folder(folder)


def test_entries_at_every_depth_count(folder):
    deep = folder
    for _ in range(SMALL_ENTRIES // 2):
        deep = deep / "below"
        deep.mkdir()
    fill(deep, SMALL_ENTRIES - SMALL_ENTRIES // 2)
    bytes_of_folders = sum(path.stat().st_size for path in folder.rglob("below"))
    assert is_small_folder(folder) == (bytes_of_folders <= SMALL_BYTES)
    (deep / "one more").touch()
    assert not is_small_folder(folder)


def test_a_folder_is_small_up_to_so_many_bytes(folder):
    fill(folder, 4, SMALL_BYTES // 4)
    assert is_small_folder(folder)
    (folder / "3").write_bytes(bytes(SMALL_BYTES // 4 + 1))
    assert not is_small_folder(folder)


def test_what_a_symlink_leads_to_does_not_count(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    fill(elsewhere, SMALL_ENTRIES + 1, SMALL_BYTES)
    (folder / "link").symlink_to(elsewhere)
    (folder / "file").symlink_to(elsewhere / "0")
    assert is_small_folder(folder)


def test_what_is_no_folder_is_not_small(folder):
    (folder / "file").touch()
    assert not is_small_folder(folder / "file")
    assert not is_small_folder(folder / "missing")


@pytest.mark.parametrize("entries", [3, SMALL_ENTRIES + 1])
async def test_small_folders_and_others_are_added_alike(folder, tmp_path, entries):
    fill(folder, entries, 100)
    (folder / "sub").mkdir()
    with BlockStore(tmp_path / "store") as store:
        added = await alone(store).add(folder, pin_owner="job")
        assert added.cid == build(folder, lambda cid, block: None).cid
        assert store.has_all(added.cid)
        assert [pin.owner for pin in store.pins(added.cid)] == ["job"]


class NoThreads(Threads):
    async def run(self, call, *args):
        raise AssertionError("no thread may be used")


async def test_small_folders_need_no_thread(folder, tmp_path):
    fill(folder, 3, 100)
    with BlockStore(tmp_path / "store") as store:
        content = Content(store, Exchange(store, unreachable), threads=NoThreads(1))
        added = await content.add(folder, pin_owner="job")
        assert await content.has(added.cid)


@pytest.fixture
def store(tmp_path):
    with BlockStore(tmp_path / "store") as store:
        yield store


@pytest.fixture
def dag(tmp_path) -> tuple[CID, dict[CID, bytes]]:
    blocks: dict[CID, bytes] = {}
    return build(results_folder(tmp_path / "results"), blocks.__setitem__).cid, blocks


def test_a_dag_is_known_to_be_complete_once_a_survey_found_it_so(store, dag):
    root, blocks = dag
    store.put_many(blocks.items())
    assert not store.known_complete(root)  # nobody has looked yet
    assert store.dag_stat(root).complete
    assert store.known_complete(root)
    assert store.known_complete(root.v1)


def test_an_incomplete_dag_is_never_known_to_be_complete(store, dag):
    root, blocks = dag
    store.put_many(list(blocks.items())[1:])
    assert not store.has_all(root)
    assert not store.known_complete(root)
    store.put_many(blocks.items())
    assert not store.known_complete(root)
    assert store.has_all(root)
    assert store.known_complete(root)


def test_whatever_is_removed_nothing_is_known_until_it_is_looked_at_again(store, dag):
    root, blocks = dag
    loose = CID.of(RAW, b"loose")
    for block in [*blocks, loose]:
        store.put_many([*blocks.items(), (loose, b"loose")])
        assert store.has_all(root)
        store.delete(block)
        assert not store.known_complete(root)
        assert store.has_all(root) == (block == loose)


def test_a_collection_that_removes_something_forgets_and_one_that_removes_nothing_does_not(store, dag):
    root, blocks = dag
    store.put_many(blocks.items())
    store.pin(root, "user")
    assert store.has_all(root)
    assert store.collect().blocks == 0
    assert store.known_complete(root)
    store.put(CID.of(RAW, b"loose"), b"loose")
    assert store.collect().blocks == 1
    assert not store.known_complete(root)
    store.unpin(root, "user")
    assert store.has_all(root)
    assert store.collect().blocks == len(blocks)
    assert not store.known_complete(root)


def test_a_block_that_turns_out_to_be_damaged_makes_its_dag_unknown(store, dag, tmp_path):
    root, blocks = dag
    store.put_many(blocks.items())
    assert store.has_all(root)
    large = next(cid for cid, block in blocks.items() if len(block) == 262_144)
    large_block(tmp_path / "store", large).overwrite(blob(262_144, 77))
    assert store.get(large) is None
    assert not store.known_complete(root)
    assert not store.has_all(root)


def test_nothing_is_known_of_a_store_that_was_opened_anew(dag, tmp_path):
    root, blocks = dag
    with BlockStore(tmp_path / "store") as store:
        store.put_many(blocks.items())
        assert store.has_all(root)
    large = max(blocks, key=lambda cid: len(blocks[cid]))
    lose_large_block(tmp_path / "store", large)
    with BlockStore(tmp_path / "store") as store:
        assert not store.known_complete(root)
        assert not store.has_all(root)
