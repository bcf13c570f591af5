"""Hostile content is refused within a second of processor time and 100 MB of memory.

Each kind has its own error, no unsolicited block is stored, and the next honest fetch succeeds.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from bacalhau_p2p.errors import ContentError, ContentTooLarge, InvalidContent
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.content.peers import ContentPeers
from bacalhau_p2p.ipfs.format.car import header, section
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.limits import Limits
from tests.support.blocks.content_net import ALICE, BOB, lying
from tests.support.blocks.contents import pieces
from tests.support.blocks.dag_makers import MemoryBlocks, names

LIMITS = Limits(bytes=10 * 10**9)
UNSOLICITED = b"unsolicited"
SECONDS, BYTES = 1.0, 100_000_000


@dataclass
class Evil:
    """A DAG, and the CAR that a peer sends for it."""

    root: CID
    stream: bytes


def whole(blocks: MemoryBlocks, root: CID) -> Evil:
    """All of a DAG, the last made block first: the depth-first order of a chain."""
    sections = [section(cid, block) for cid, block in reversed(blocks.blocks.items())]
    return Evil(root, header([root]) + b"".join(sections))


def bomb() -> Evil:
    """Five blocks that expand to 13 GB."""
    blocks = MemoryBlocks()
    cid, size = blocks.raw(bytes(8192)), 8192
    for links in (12, 174, 174, 4):
        cid, size = blocks.file([(cid, size)] * links), size * links
    assert size > 11 * 10**9
    assert len(blocks.blocks) == 5
    return whole(blocks, cid)


def climbing() -> Evil:
    blocks = MemoryBlocks()
    return whole(blocks, blocks.folder([(b"../evil", blocks.raw(b"x"))]))


def deep(levels: int = 100_000) -> Evil:
    """Folders inside each other."""
    blocks = MemoryBlocks()
    cid = blocks.raw(b"x")
    for _ in range(levels):
        cid = blocks.folder([(b"d", cid)])
    return whole(blocks, cid)


def wrong_size() -> Evil:
    blocks = MemoryBlocks()
    return whole(blocks, blocks.file([(blocks.raw(b"abc"), 4)]))


def wrong_sum() -> Evil:
    blocks = MemoryBlocks()
    return whole(blocks, blocks.file([(blocks.raw(b"abc"), 3)], filesize=4))


def wrong_codec() -> Evil:
    blocks = MemoryBlocks()
    return whole(blocks, blocks.folder([(b"a", CID.of(0x71, b"\xa0"))]))


def repeated_name() -> Evil:
    blocks = MemoryBlocks()
    return whole(blocks, blocks.folder([(b"a", blocks.raw(b"1")), (b"a", blocks.raw(b"2"))]))


def less_deep() -> Evil:
    """For imports, which store all blocks before they check the DAG."""
    return deep(2000)


def honest(name: bytes = b"large") -> tuple[MemoryBlocks, CID]:
    blocks = MemoryBlocks()
    return blocks, blocks.folder([(name, blocks.raw(name * 10_000))])


def truncated() -> Evil:
    evil = whole(*honest())
    return Evil(evil.root, evil.stream[:-1])


def tampered() -> Evil:
    evil = whole(*honest())
    return Evil(evil.root, evil.stream[:-1] + bytes([evil.stream[-1] ^ 1]))


def unsolicited() -> Evil:
    blocks, root = honest()
    extra = section(CID.of(RAW, UNSOLICITED), UNSOLICITED)
    return Evil(root, header([root]) + section(root, blocks.blocks[root]) + extra)


KINDS: list[tuple[Callable[[], Evil], type[ContentError], str]] = [
    (bomb, ContentTooLarge, "the limit is 10000000000"),
    (climbing, InvalidContent, "invalid entry name b'../evil'"),
    (deep, InvalidContent, "folders are nested more than 64 levels deep"),
    (wrong_size, InvalidContent, "has 3 bytes; its parent declares 4"),
    (wrong_sum, InvalidContent, "declares 4 bytes, but its parts add up to 3"),
    (wrong_codec, InvalidContent, "codec 0x71; only raw and dag-pb"),
    (repeated_name, InvalidContent, "two entries with the same name"),
    (truncated, InvalidContent, "truncated"),
    (tampered, InvalidContent, "does not match its hash"),
    (unsolicited, InvalidContent, "unexpected block"),
]


class Budget:
    """Fails when its block takes more than a second of processor time or 100 MB of memory."""

    def __enter__(self) -> None:
        tracemalloc.start()
        self._began = time.process_time()

    def __exit__(self, *exc: object) -> None:
        took, (_, peak) = time.process_time() - self._began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert took < SECONDS
        assert peak < BYTES


@pytest.mark.parametrize(("make", "error", "message"), KINDS, ids=[kind[0].__name__ for kind in KINDS])
async def test_hostile_content_from_a_peer_is_refused(net, tmp_path, make, error, message):
    store = net.peer(ALICE, content=LIMITS)
    content = Content(store, net.exchanges[ALICE], ContentPeers(candidates=lambda: [BOB]))
    evil = make()
    net.handlers[BOB] = lying(evil.stream)
    with Budget(), pytest.raises(error, match=message):
        await content.fetch(evil.root, pin_owner="job")
    assert not store.has(CID.of(RAW, UNSOLICITED))
    assert not await content.has(evil.root)
    assert store.pins() == []
    with pytest.raises(ContentError):
        await content.export(evil.root, tmp_path / "out")
    assert names(tmp_path) == [ALICE]
    blocks, root = honest(b"other")
    net.handlers[BOB] = lying(whole(blocks, root).stream)
    await content.fetch(root)
    assert await content.has(root)


IMPORTS = [(less_deep if make is deep else make, *rest) for make, *rest in KINDS if make is not unsolicited]


@pytest.mark.parametrize(("make", "error", "message"), IMPORTS, ids=[kind[0].__name__ for kind in IMPORTS])
async def test_hostile_content_in_an_import_is_refused(net, make, error, message):
    store = net.peer(ALICE, content=LIMITS)
    content = Content(store, net.exchanges[ALICE])
    evil = make()
    with Budget(), pytest.raises(error, match=message):
        await content.import_car(pieces(evil.stream), pin_owner="user")
    assert store.pins() == []
    assert not await content.has(evil.root)
    await content.collect()
    assert store.used == 0
