"""kill -9 of a process that adds, fetches or collects, at many moments, and what the next process finds.

Progress decides when to kill, not the clock: see `store_process`.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.files.importer import build
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID
from tests.support.blocks import store_process
from tests.support.blocks.dag_makers import blob, results_folder
from tests.support.blocks.store_process import RECORD
from tests.support.blocks.stored_blocks import Stored, large_blocks

KILLED = -signal.SIGKILL
CHUNK = 262_144
GULP = 3 * CHUNK + 1024 * 1024
"""Bytes that a fetch may have received and not stored: what it stores at one time, and a part of a block."""


class Worker:
    """The process that forks one child a job."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def run(self, *job: object, kill_at: int | None = None) -> int:
        """Do a job to its end, or kill it as it takes step number `kill_at`; its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(word) for word in job]).encode() + b"\n")
        steps = child = 0
        while True:
            match self._record().split():
                case ["pid", pid]:
                    child = int(pid)
                case ["end", status]:
                    return int(status)
                case ["."]:
                    steps += 1
            if steps == kill_at:
                os.kill(child, signal.SIGKILL)
                kill_at = None

    def _record(self) -> str:
        assert self._process.stdout is not None
        record = b""
        while len(record) < RECORD:
            assert select.select([self._process.stdout], [], [], 60)[0], "nothing happens"
            piece = self._process.stdout.read(RECORD - len(record))
            assert piece, "the process has ended"
            record += piece
        return record.decode()


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    command = [sys.executable, store_process.__file__]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0, pipesize=4096) as process:
        yield Worker(process)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Files of several blocks, and between them more small ones than are written at one time."""
    folder = tmp_path_factory.mktemp("content") / "folder"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02}-large").write_bytes(blob(3 * CHUNK - 1000 * number, number))
        for other in range(number * 2):
            (folder / f"{number:02}-small-{other}").write_bytes(blob(1000, 1000 * number + other))
    return folder


@pytest.fixture(scope="module")
def dag(folder) -> tuple[CID, dict[CID, bytes]]:
    blocks: dict[CID, bytes] = {}
    return build(folder, blocks.__setitem__).cid, blocks


def damaged(store: Path) -> list[Stored]:
    """Blocks that are not what their names say."""
    return [block for block in large_blocks(store) if hashlib.sha256(block.read()).digest() != block.digest]


def present(store: BlockStore, blocks: dict[CID, bytes]) -> set[CID]:
    """The blocks that the store says it has, each as it should be."""
    there = {cid for cid in blocks if store.has(cid)}
    assert {cid for cid in there if store.get(cid) != blocks[cid]} == set()
    return there


def examined(path: Path, root: CID, blocks: dict[CID, bytes]) -> set[CID]:
    """What a store has of a DAG after its process was killed, when nothing about it is wrong."""
    assert damaged(path) == []
    with BlockStore(path) as store:
        there = present(store, blocks)
        assert store.has_all(root) == (there == set(blocks))
        assert set(store.dag_stat(root, missing_limit=len(blocks)).missing) <= set(blocks) - there
        assert bool(store.pins(root)) <= (there == set(blocks))
    return there


def test_an_add_killed_at_any_moment_leaves_whole_blocks_and_no_pin(worker, folder, dag, tmp_path):
    root, blocks = dag
    counts = []
    for number, moment in enumerate([1, 4, 13, 22, 31, 40, 49, 58, 67, 76]):
        store = tmp_path / f"store-{number}"
        assert worker.run("add", store, folder, kill_at=moment) == KILLED
        counts.append(len(examined(store, root, blocks)))
        with BlockStore(store) as reopened:
            assert reopened.used == sum(len(blocks[cid]) for cid in present(reopened, blocks))
    # It dies a little after its moment: how far it gets varies by a few blocks.
    assert 1 <= counts[0] < counts[4] < counts[-1] < len(blocks)
    assert worker.run("add", store, folder) == 0
    assert examined(store, root, blocks) == set(blocks)


class Giver(BlockStore):
    """Notes which leaves are read, which is what is sent of them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.sent: list[CID] = []

    def get(self, cid: CID) -> bytes | None:
        if cid.codec == RAW:
            self.sent.append(cid)
        return super().get(cid)


async def serve(exchange: Exchange, socket: Path, task_status=trio.TASK_STATUS_IGNORED) -> None:
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(str(socket))
    listening.listen()

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await exchange.serve(PeerID("taker"), stream)

    await trio.serve_listeners(handle, [trio.SocketListener(listening)], task_status=task_status)


async def test_a_fetch_killed_at_any_moment_resumes_with_the_missing_blocks(worker, dag, tmp_path, nursery):
    root, blocks = dag
    path, socket = tmp_path / "taker", tmp_path / "socket"
    with Giver(tmp_path / "giver") as giver:
        giver.put_many(blocks.items())
        await nursery.start(serve, Exchange(giver, no_peer), socket)
        there: set[CID] = set()
        kills, status = 0, KILLED
        while status == KILLED:
            giver.sent.clear()
            fetch = partial(worker.run, "fetch", path, root, socket, kill_at=5 if kills % 2 else 10)
            status = await trio.to_thread.run_sync(fetch)
            kills += status == KILLED
            again = sum(len(blocks[cid]) for cid in giver.sent if cid in there)
            before, there = there, examined(path, root, blocks)
            assert before <= there
            assert again <= GULP
            assert kills < 50
        assert status == 0
        assert kills >= 8
        assert there == set(blocks)
        with BlockStore(path) as store:
            assert [pin.owner for pin in store.pins(root)] == ["user"]
        nursery.cancel_scope.cancel()


async def no_peer(peer: PeerID, protocol: str) -> trio.SocketStream:
    raise AssertionError("the giver asks nobody")


def test_a_collection_killed_at_any_moment_has_removed_no_pinned_block(worker, tmp_path):
    blocks: dict[CID, bytes] = {}
    root = build(results_folder(tmp_path / "results"), blocks.__setitem__).cid
    path = tmp_path / "store"
    loose = {}
    for number in range(3000):
        block = blob(17_000 if number % 2 else 50, number)
        loose[CID.of(RAW, block)] = block
    with BlockStore(path) as store:
        store.put_all_verified([*blocks.items(), *loose.items()])
        store.pin(root, "user")
    left = [len(loose)]
    # Small blocks are looked through first, in some 300 steps; when they have gone, it begins with others.
    for moment in (1, 6, 30, 150, 250, 350, 100, 200, 270):
        assert worker.run("collect", path, kill_at=moment) == KILLED
        assert examined(path, root, blocks) == set(blocks)
        with BlockStore(path) as store:
            there = present(store, loose)
            left.append(len(there))
            assert store.used == sum(map(len, blocks.values())) + sum(len(loose[cid]) for cid in there)
    assert left == sorted(left, reverse=True)
    assert 0 < left[-1] < left[4] < left[0]
    assert worker.run("collect", path) == 0
    assert examined(path, root, blocks) == set(blocks)
    with BlockStore(path) as store:
        assert present(store, loose) == set()
