"""Work on block stores in processes that tests can kill at any moment.

Reads jobs as lines of JSON: ["add", STORE, PATH], ["fetch", STORE, CID, SOCKET], ["collect", STORE]. Each job
runs in a forked child, which saves the time for imports. Prints "pid N", "." for every step, then
"end STATUS", in records of a fixed size: a pipe holds few of them, so that a child is never far ahead
of the test.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

import trio

from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.content.peers import ContentPeers
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.store import block_table
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.ipfs.store.live_set import Batch
from bacalhau_p2p.ipfs.store.small_blocks import MAX_SMALL
from bacalhau_p2p.model.base import PeerID

RECORD = 512
"""Bytes of a record. A pipe of 4,096 bytes holds eight."""


def report(text: str) -> None:
    os.write(1, text.ljust(RECORD).encode())


class Watched(BlockStore):
    """Prints a step after each large block is stored."""

    def put_all_verified(self, blocks: Iterable[tuple[CID, bytes]], batch: Batch | None = None) -> None:
        blocks = list(blocks)
        super().put_all_verified(blocks, batch)
        for _, block in blocks:
            if len(block) > MAX_SMALL:
                report(".")


async def open_socket(path: str) -> trio.SocketStream:
    return await trio.open_unix_socket(path)


def add(store: str, path: str) -> None:
    async def work() -> None:
        with Watched(Path(store)) as blocks:
            await content(blocks).add(Path(path), pin_owner="user")

    trio.run(work)


def fetch(store: str, cid: str, socket: str) -> None:
    async def work() -> None:
        with Watched(Path(store)) as blocks:
            await content(blocks, socket).fetch(CID.parse(cid), pin_owner="user")

    trio.run(work)


def content(blocks: BlockStore, socket: str = "") -> Content:
    exchange = Exchange(blocks, lambda peer, protocol: open_socket(socket))
    return Content(blocks, exchange, ContentPeers(candidates=lambda: [PeerID("giver")]))


def collect(store: str) -> None:
    block_table.PAGE_SIZE = 5  # many steps at which it can be killed
    with Watched(Path(store)) as blocks:
        blocks.collect(checkpoint=lambda: report("."))


WORK: dict[str, Callable[..., None]] = {"add": add, "fetch": fetch, "collect": collect}


def main() -> None:
    for line in sys.stdin:
        work, *words = json.loads(line)
        child = os.fork()
        if not child:
            status = 1
            try:
                report(f"pid {os.getpid()}")
                WORK[work](*words)
                status = 0
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        report(f"end {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    main()
