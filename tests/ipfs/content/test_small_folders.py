"""Small folders are imported without a thread (`content.importer`)."""

from __future__ import annotations

import pytest

from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.files.importer import SMALL_ENTRIES, build
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.runtime.threads import Threads
from tests.support.blocks.contents import alone, unreachable
from tests.support.blocks.dag_makers import fill


@pytest.mark.parametrize("entries", [3, SMALL_ENTRIES + 1])
async def test_small_and_large_folders_are_added_alike(tmp_path, entries):
    folder = fill(tmp_path / "folder", entries, 100)
    (folder / "sub").mkdir()
    with BlockStore(tmp_path / "store") as store:
        added = await alone(store).add(folder, pin_owner="job")
        assert added.cid == build(folder, lambda cid, block: None).cid
        assert store.has_all(added.cid)
        assert [pin.owner for pin in store.pins(added.cid)] == ["job"]


class NoThreads(Threads):
    async def run(self, call, *args):
        raise AssertionError("no thread may be used")


async def test_small_folders_need_no_thread(tmp_path):
    folder = fill(tmp_path / "folder", 3, 100)
    with BlockStore(tmp_path / "store") as store:
        content = Content(store, Exchange(store, unreachable), threads=NoThreads(1))
        added = await content.add(folder, pin_owner="job")
        assert await content.has(added.cid)
