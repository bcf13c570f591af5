from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bacalhau_p2p.errors import ContentError, ContentTooLarge, InvalidContent
from bacalhau_p2p.ipfs.files.importer import build
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW
from bacalhau_p2p.ipfs.store import packs
from bacalhau_p2p.ipfs.store.block_store import BlockStore, Pin
from tests.support.blocks.dag_makers import blob, results_folder
from tests.support.blocks.stored_blocks import damage_small_block, large_block, large_blocks

DATA = b"some block" * 2000
NAME = CID.of(RAW, DATA)


@pytest.fixture
def store(tmp_path):
    with BlockStore(tmp_path / "store") as store:
        yield store


def test_a_stored_block_is_read_back(store):
    store.put(NAME, DATA)
    assert (store.get(NAME), store.size(NAME), store.has(NAME)) == (DATA, len(DATA), True)


def test_a_missing_block_is_none(store):
    assert (store.get(NAME), store.size(NAME), store.has(NAME)) == (None, None, False)


def test_blocks_are_there_after_opening_the_store_again(tmp_path):
    with BlockStore(tmp_path / "s") as store:
        store.put_many([(NAME, DATA), (CID.of(DAG_PB, b"x"), b"x")])
    with BlockStore(tmp_path / "s") as store:
        assert store.get(NAME) == DATA


def test_the_same_bytes_are_stored_once_whatever_the_codec(store, tmp_path):
    store.put(NAME, DATA)
    store.put(CID.of(DAG_PB, DATA), DATA)
    store.put(CID(CID.of(DAG_PB, DATA).binary[2:]), DATA)
    assert len(large_blocks(tmp_path / "store")) == 1
    assert store.used == len(DATA)
    for codec in (RAW, DAG_PB):
        store.put(CID.of(codec, b"small"), b"small")
    assert store.used == len(DATA) + 5


@pytest.mark.parametrize(
    ("cid", "block", "error", "message"),
    [
        (NAME, b"other", InvalidContent, "does not match its hash"),
        (CID.of(0x71, DATA), DATA, InvalidContent, "codec 0x71"),
        (CID.of(RAW, bytes(2097153)), bytes(2097153), ContentTooLarge, "the limit is 2097152"),
    ],
)
def test_an_invalid_block_is_refused_and_not_stored(store, tmp_path, cid, block, error, message):
    with pytest.raises(error, match=message):
        store.put(cid, block)
    assert (large_blocks(tmp_path / "store"), store.used) == ([], 0)


def test_a_damaged_large_block_is_missing_and_can_be_stored_again(store, tmp_path):
    store.put(NAME, DATA)
    large_block(tmp_path / "store", NAME).overwrite(b"other")
    assert store.get(NAME) is None
    store.put(NAME, DATA)
    assert store.get(NAME) == DATA


def test_a_damaged_small_block_is_missing_and_can_be_stored_again(tmp_path):
    small = CID.of(RAW, b"small")
    with BlockStore(tmp_path / "s") as store:
        store.put(small, b"small")
    damage_small_block(tmp_path / "s", small)
    with BlockStore(tmp_path / "s") as store:
        assert store.size(small) == 1
        assert store.get(small) is None
        assert not store.has(small)
        store.put(small, b"small")
        assert store.get(small) == b"small"


def test_a_second_process_cannot_open_the_store(store, tmp_path):
    code = (
        "import sys; from pathlib import Path; from bacalhau_p2p.ipfs.store.block_store import BlockStore;"
        "BlockStore(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store")], capture_output=True, text=True, check=False
    )
    assert "is in use by another process" in done.stderr


def test_a_folder_that_cannot_be_opened_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ContentError, match="cannot open the block store"):
        BlockStore(tmp_path / "file")


def test_a_dag_is_complete_when_every_block_is_there(store, tmp_path):
    blocks: dict[CID, bytes] = {}
    root = build(results_folder(tmp_path / "results"), blocks.__setitem__).cid
    store.put_many(blocks.items())
    assert store.has_all(root)
    assert store.dag_stat(root).bytes == 3_000_005
    for missing, block in blocks.items():
        store.delete(missing)
        assert not store.has_all(root)
        assert store.dag_stat(root).missing == (missing,)
        store.put(missing, block)
        assert store.has_all(root)


def test_blocks_lost_in_a_power_cut_are_missing_and_can_be_stored_again(tmp_path):
    blocks = {CID.of(RAW, block): block for block in (blob(200_000 + number, number) for number in range(5))}
    with BlockStore(tmp_path / "s") as store:
        store.put_many(blocks.items())
    third = large_blocks(tmp_path / "s")[2]
    os.truncate(third.pack, third.start + 100_000)
    with BlockStore(tmp_path / "s") as store:
        assert [store.has(cid) for cid in blocks] == [True, True, False, False, False]
        assert store.used == 400_001
        store.put_many(blocks.items())
        assert [store.get(cid) for cid in blocks] == list(blocks.values())
    os.truncate(third.pack, 0)
    third.pack.unlink()
    with BlockStore(tmp_path / "s") as store:
        assert not any(map(store.has, blocks))
        store.put_many(blocks.items())
        assert [store.get(cid) for cid in blocks] == list(blocks.values())


def test_packs_without_their_table_are_refused_and_not_removed(tmp_path):
    with BlockStore(tmp_path / "s") as store:
        store.put(NAME, DATA)
    (tmp_path / "s" / "packs.db").rename(tmp_path / "packs.db")
    with pytest.raises(ContentError, match="the table of its packs is missing"):
        BlockStore(tmp_path / "s")
    (tmp_path / "packs.db").rename(tmp_path / "s" / "packs.db")
    with BlockStore(tmp_path / "s") as store:
        assert store.get(NAME) == DATA


def test_a_block_whose_pack_was_removed_is_missing(store, tmp_path):
    store.put(NAME, DATA)
    large_block(tmp_path / "store", NAME).pack.unlink()
    assert store.get(NAME) is None
    assert (store.has(NAME), store.used) == (False, 0)


def test_pins_have_owners_and_expire(store):
    other = CID.of(RAW, b"other")
    store.pin(NAME, "job-1", expires=100.0)
    store.pin(NAME, "job-2")
    store.pin(other, "job-1")
    assert store.pins(NAME) == [Pin(NAME, "job-1", 100.0), Pin(NAME, "job-2", None)]
    assert [pin.owner for pin in store.pins(NAME, now=100.0)] == ["job-2"]
    assert len(store.pins()) == 3
    store.pin(NAME, "job-1", expires=200.0)
    assert store.pins(NAME)[0].expires == 200.0
    assert store.unpin(NAME, "job-1")
    assert not store.unpin(NAME, "job-1")
    assert [pin.owner for pin in store.pins(NAME)] == ["job-2"]


def test_pins_are_there_after_opening_the_store_again(tmp_path):
    with BlockStore(tmp_path / "s") as store:
        store.pin(NAME, "job-1")
    with BlockStore(tmp_path / "s") as store:
        assert store.pins() == [Pin(NAME, "job-1", None)]


def test_a_process_killed_while_writing_leaves_whole_blocks_only(tmp_path):
    code = (
        "import os, sys; from pathlib import Path;"
        "from bacalhau_p2p.ipfs.store.block_store import BlockStore;"
        "from bacalhau_p2p.ipfs.format.cid import CID, RAW\n"
        "store = BlockStore(Path(sys.argv[1]))\n"
        "while True:\n"
        "    data = os.urandom(1 << 20)\n"
        "    store.put_verified(CID.of(RAW, data), data); print('.', flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "store")], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    with writer:
        for _ in range(20):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        written = writer.stdout.read().count(b".") + 20
    with BlockStore(tmp_path / "store") as store:
        stored = large_blocks(tmp_path / "store")
        assert all(hashlib.sha256(block.read()).digest() == block.digest for block in stored)
        assert len(stored) in (written, written + 1)
        assert store.used == len(stored) << 20
        store.put(NAME, DATA)
        assert store.get(NAME) == DATA
        assert all(hashlib.sha256(block.read()).digest() == block.digest for block in stored)


def test_a_sync_covers_every_block_of_the_dag_and_all_pins(store, tmp_path, monkeypatch):
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "small").write_bytes(b"small")
    (tmp_path / "tree" / "large").write_bytes(blob(600_000, 1))
    (tmp_path / "tree" / "below" / "large").write_bytes(blob(20_000, 2))
    with store.batch() as batch:
        root = build(tmp_path / "tree", lambda cid, block: store.put_verified(cid, block, batch)).cid
        store.pin(root, "me")
    store.put(NAME, DATA)  # not of the DAG
    synced = []

    def note(file):
        synced.append(str(Path(f"/proc/self/fd/{file}").readlink()))

    monkeypatch.setattr(os, "fsync", note)
    store.sync(root)
    written = {str(block.pack) for block in large_blocks(tmp_path / "store")}
    journals = {str(tmp_path / "store" / name) for name in ("small.db-wal", "packs.db-wal", "pins.db-wal")}
    assert sorted(synced) == sorted(written | {str(tmp_path / "store" / "packs")} | journals)


def test_a_sync_of_small_blocks_covers_no_pack(store, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"small")
    root = build(tmp_path / "file", store.put).cid
    store.put(NAME, DATA)
    synced = []

    def note(file):
        synced.append(Path(f"/proc/self/fd/{file}").readlink().name)

    monkeypatch.setattr(os, "fsync", note)
    store.sync(root)
    assert sorted(synced) == ["pins.db-wal", "small.db-wal"]


def test_a_sync_covers_only_the_packs_of_the_dag(store, tmp_path, monkeypatch):
    monkeypatch.setattr(packs, "PACK_SIZE", 300_000)
    (tmp_path / "file").write_bytes(blob(500_000, 1))
    store.put(NAME, DATA)
    root = build(tmp_path / "file", store.put).cid
    store.put(CID.of(RAW, blob(280_000, 3)), blob(280_000, 3))
    paths = [str(block.pack) for block in large_blocks(tmp_path / "store")]
    assert len(set(paths)) == 3
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append(str(Path(f"/proc/self/fd/{file}").readlink()))
    )
    store.sync(root)
    assert {path for path in synced if path in paths} == set(paths[:-1])


def test_a_sync_that_the_disk_refuses_is_an_error(store, monkeypatch):
    def refuse(file):
        raise OSError(5, "Input/output error")

    store.put(NAME, DATA)
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ContentError, match=f"cannot sync {NAME} to the disk: Input/output error"):
        store.sync(NAME)
