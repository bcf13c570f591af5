from __future__ import annotations

import pytest

from bacalhau_p2p.errors import ContentNotFound, ContentTooLarge, InvalidContent, PathNotFound
from bacalhau_p2p.ipfs.content import paths
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.content.peers import ContentPeers
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID
from tests.support.blocks.contents import unreachable
from tests.support.blocks.dag_makers import MemoryBlocks


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.txt").write_bytes(b"a")
    (folder / "large").write_bytes(bytes(1_000_000))
    return folder


class Peer:
    """Another node, which sends the blocks of `content` one by one."""

    def __init__(self, store: BlockStore) -> None:
        self.asked: list[CID] = []
        self._store = store

    async def send(self, peer: PeerID, wanted: CID) -> bytes:
        self.asked.append(wanted)
        block = self._store.get(wanted)
        if block is None:
            raise PeerFault("does not have it")
        return block


def content_of(store: BlockStore, peer: Peer) -> Content:
    peers = ContentPeers(candidates=lambda: [PeerID("alice")], ask_for_block=peer.send)
    return Content(store, Exchange(store, unreachable), peers)


async def test_only_the_blocks_on_the_way_to_a_path_are_asked_for(content, store, folder, tmp_path):
    root = (await content.add(folder, pin_owner="test")).cid
    file = await content.locate(root, ["sub", "a.txt"])
    with BlockStore(tmp_path / "other") as other:
        peer = Peer(store)
        elsewhere = content_of(other, peer)
        assert await elsewhere.located(root, ["sub", "a.txt"]) is None
        assert await elsewhere.locate(root, ["sub", "a.txt"]) == file
        assert len(peer.asked) == 3
        assert await elsewhere.located(root, ["sub", "a.txt"]) == file
        with pytest.raises(PathNotFound, match="path 'sub/b' not found"):
            await elsewhere.locate(root, ["sub", "b"])


async def test_a_block_that_is_not_the_one_asked_for_is_refused(content, store, folder, tmp_path):
    root = (await content.add(folder, pin_owner="test")).cid

    class Liar(Peer):
        async def send(self, peer: PeerID, wanted: CID) -> bytes:
            return b"another block"

    with BlockStore(tmp_path / "other") as other:
        with pytest.raises(InvalidContent, match="does not match its hash"):
            await content_of(other, Liar(store)).locate(root, ["sub"])
        assert not other.has(root)


async def test_without_a_peer_for_single_blocks_everything_is_looked_for(content, store, folder, tmp_path):
    root = (await content.add(folder, pin_owner="test")).cid
    with BlockStore(tmp_path / "other") as other:
        elsewhere = Content(other, Exchange(other, unreachable), ContentPeers())
        with pytest.raises(ContentNotFound):
            await elsewhere.locate(root, ["sub"], timeout=0.1)


async def test_small_folders_in_each_other_are_not_followed_without_end(tmp_path):
    blocks = MemoryBlocks()
    inner = blocks.folder([])
    for _ in range(20):
        inner = blocks.folder((b"%d" % number, inner) for number in range(10))
    with BlockStore(tmp_path / "few", limits=Limits(entries=1000)) as store:
        store.put_all_verified(list(blocks.blocks.items()))
        content = Content(store, Exchange(store, unreachable), ContentPeers())
        with pytest.raises(ContentTooLarge, match="more than 1000 entries"):
            await content.files(inner)


async def test_the_search_for_sizes_ends_when_it_is_cancelled_however_many_files_there_are(tmp_path):
    """A million files in three blocks took ten seconds and 350 MB, for every announcement of such a job."""
    blocks = MemoryBlocks()
    inner = blocks.folder((b"%d" % number, blocks.raw(b"x")) for number in range(999))
    root = blocks.folder((b"%d" % number, inner) for number in range(999))
    with BlockStore(tmp_path / "few") as store:
        store.put_all_verified(list(blocks.blocks.items()))
        content = Content(store, Exchange(store, unreachable), ContentPeers())
        walks = []
        make = paths._FileWalk
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                paths, "_FileWalk", lambda *how, **more: walks.append(make(*how, **more)) or walks[0]
            )
            assert await content.paths.file_sizes(root, hints=(), timeout=0.01) is None
    assert len(walks[0].found) < 900_000


async def test_a_folder_that_is_in_many_places_is_read_once(content, store, monkeypatch):
    blocks = MemoryBlocks()
    inner = blocks.folder((b"%d" % number, blocks.raw(b"x")) for number in range(10))
    root = blocks.folder((b"%d" % number, inner) for number in range(100))
    store.put_all_verified(list(blocks.blocks.items()))
    read, decode = [], paths.decode
    monkeypatch.setattr(paths, "decode", lambda cid, *more: read.append(cid) or decode(cid, *more))
    assert len(await content.files(root)) == 1000
    assert sorted(read, key=str) == sorted([root, inner], key=str)


async def test_the_names_of_all_paths_together_are_limited(content, store, monkeypatch):
    monkeypatch.setattr(paths, "MAX_NAMES", 100)
    blocks = MemoryBlocks()
    inner = blocks.folder((b"%d" % number, blocks.raw(b"x")) for number in range(10))
    for _ in range(10):
        inner = blocks.folder([(b"a", inner)])
    store.put_all_verified(list(blocks.blocks.items()))
    with pytest.raises(ContentTooLarge, match="more than 100 names"):
        await content.files(inner)
