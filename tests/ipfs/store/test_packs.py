"""Larger blocks: freed space, failed writes, many threads at once."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from bacalhau_p2p.ipfs.store import packs
from bacalhau_p2p.ipfs.store.packs import ALIGNMENT, Packs
from tests.support.blocks.dag_makers import blob

SIZE = 100_000
SPACE = 25 * ALIGNMENT
"""Bytes of the disk that a block of that size takes."""

Block = tuple[bytes, bytes]


@pytest.fixture
def opened(tmp_path) -> Iterator[Callable[[], Packs]]:
    """Opens the packs, closing those that were opened before."""
    now: list[Packs] = []

    def reopen() -> Packs:
        while now:
            now.pop().close()
        now.append(Packs(tmp_path / "packs.db", tmp_path / "packs"))
        return now[0]

    yield reopen
    now[0].close()


def block(number: int, size: int = SIZE) -> Block:
    body = blob(size, number)
    return hashlib.sha256(body).digest(), body


def on_disk(tmp_path: Path) -> dict[str, int]:
    """Bytes that each pack takes up."""
    return {path.name: path.stat().st_blocks * 512 for path in (tmp_path / "packs").iterdir()}


def test_blocks_are_read_back_and_stored_once(opened):
    store = opened()
    blocks = [block(number, SIZE + number) for number in range(5)]
    assert store.put_all(blocks[:3], 1) == 3 * SIZE + 3
    assert store.put_all([*blocks, blocks[4]], 2) == 2 * SIZE + 7
    assert store.put_all(blocks, 3) == 0
    assert [store.get(digest) for digest, _ in blocks] == [body for _, body in blocks]
    assert store.sizes([digest for digest, _ in blocks]) == {digest: len(body) for digest, body in blocks}
    assert store.total() == 5 * SIZE + 10
    (page,) = store.pages()
    assert [found.stored for found in page.blocks()] == [1, 1, 1, 2, 2]


def test_the_space_of_removed_blocks_is_freed_and_other_blocks_stay(opened, tmp_path):
    store = opened()
    blocks = [block(number) for number in range(10)]
    store.put_all(blocks, 1)
    before = on_disk(tmp_path)["1"]
    store.remove([blocks[number][0] for number in (2, 3, 4, 7)])
    assert before - on_disk(tmp_path)["1"] == 4 * SPACE
    kept = [digest for number, (digest, _) in enumerate(blocks) if number not in (2, 3, 4, 7)]
    assert all(hashlib.sha256(store.get(digest) or b"").digest() == digest for digest in kept)
    assert [store.get(blocks[number][0]) for number in (2, 7)] == [None, None]


def test_a_pack_is_removed_with_its_last_block_where_holes_cannot_be_punched(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(packs, "PACK_SIZE", 3 * SIZE)
    monkeypatch.setattr(packs, "_fallocate", None)
    store = opened()
    blocks = [block(number) for number in range(6)]
    for some in blocks:
        store.put_all([some], 1)
    assert sorted(on_disk(tmp_path)) == ["1", "2", "3"]
    store.remove([blocks[0][0]])
    assert on_disk(tmp_path)["1"] >= 2 * SPACE
    assert store.get(blocks[1][0]) == blocks[1][1]
    store.remove([blocks[1][0], blocks[4][0], blocks[5][0]])
    assert sorted(on_disk(tmp_path)) == ["2", "3"]
    store.put_all([block(7), block(8), block(9)], 1)
    assert sorted(on_disk(tmp_path)) == ["2", "4"]
    store.remove([blocks[2][0], blocks[3][0]])
    assert sorted(on_disk(tmp_path)) == ["4"]


def test_bytes_that_are_not_in_the_table_are_overwritten_after_a_restart(opened, tmp_path):
    store = opened()
    store.put_all([block(1)], 1)
    with (tmp_path / "packs" / "1").open("ab") as pack:
        pack.write(b"half a block" * 1000)
    (tmp_path / "packs" / "2").write_bytes(b"a pack of which nothing is noted")
    store = opened()
    assert list(on_disk(tmp_path)) == ["1"]
    store.put_all([block(2)], 1)
    assert (tmp_path / "packs" / "1").stat().st_size == 2 * SPACE
    assert [store.get(digest) for digest, _ in (block(1), block(2))] == [block(1)[1], block(2)[1]]


def test_a_write_that_the_disk_takes_in_parts_is_whole(opened, monkeypatch):
    def all_but_refuse(file, parts, start):
        return os.pwrite(file, b"".join(parts)[:1000], start)

    monkeypatch.setattr(os, "pwritev", all_but_refuse)
    store = opened()
    store.put_all([block(1), block(2)], 1)
    assert [store.get(digest) for digest, _ in (block(1), block(2))] == [block(1)[1], block(2)[1]]


@pytest.mark.parametrize("failing", ["writing", "noting"])
def test_a_block_whose_write_failed_is_missing_and_its_space_is_reused(
    opened, tmp_path, monkeypatch, failing
):
    store = opened()
    store.put_all([block(1)], 1)
    with monkeypatch.context() as patched:
        if failing == "writing":
            write = os.pwrite

            def refuse(file, data, start):
                raise OSError(errno.ENOSPC, "No space left on device")

            patched.setattr(os, "pwritev", lambda file, parts, start: write(file, parts[0][:1000], start))
            patched.setattr(os, "pwrite", refuse)
            with pytest.raises(OSError, match="No space left"):
                store.put_all([block(2)], 1)
        else:
            with pytest.raises(sqlite3.Error):
                store.put_all([block(2)], object())  # type: ignore[arg-type]
    assert not store.has(block(2)[0])
    assert (tmp_path / "packs" / "1").stat().st_size == SPACE
    store.put_all([block(3)], 1)
    assert store.get(block(3)[0]) == block(3)[1]
    assert (tmp_path / "packs" / "1").stat().st_size == 2 * SPACE


def test_many_threads_that_store_and_remove_the_same_blocks_leave_whole_blocks_only(opened, monkeypatch):
    monkeypatch.setattr(packs, "PACK_SIZE", 4 * SIZE)
    store = opened()
    blocks = [block(number, 20_000) for number in range(30)]
    faults: list[str] = []
    fresh = [0] * 4

    def work(number: int) -> None:
        random = Random(number)
        for _ in range(60):
            some = random.sample(blocks, 5)
            fresh[number] += store.put_all(some, 1)
            for digest, _ in some:
                body = store.get(digest)
                if body is not None and hashlib.sha256(body).digest() != digest and store.has(digest):
                    again = store.get(digest)  # it may have been removed while it was read
                    if again is not None and hashlib.sha256(again).digest() != digest:
                        faults.append(digest.hex())
            if number % 2:
                store.remove([digest for digest, _ in some[:2]])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert sum(fresh) >= store.total() > 0
    store = opened()
    for digest, _ in blocks:
        body = store.get(digest)
        assert body is None or hashlib.sha256(body).digest() == digest
    store.remove([digest for digest, _ in blocks])
    assert store.total() == 0
