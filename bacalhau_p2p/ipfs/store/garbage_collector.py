"""Removes unneeded blocks: marks what is reachable from pins and uses, and sweeps the rest.

Other threads go on adding, fetching and reading; the `LiveSet` records what they need. A process that is
killed in the middle leaves whole blocks: some blocks of an unneeded DAG may be missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import NamedTuple, Protocol

from bacalhau_p2p.errors import ContentTooLarge, InvalidContent
from bacalhau_p2p.ipfs.format.block_source import BlockSource
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.format.traversal import ROOT, links_of
from bacalhau_p2p.ipfs.format.unixfs import decode
from bacalhau_p2p.ipfs.store.live_set import LiveSet

_AGE_STEP = 60
"""Seconds; blocks whose ages differ by less count as equally old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a collection removed."""

    blocks: int = 0
    bytes: int = 0


class StoredBlock(NamedTuple):
    """A block in a store: its digest, when it was stored (UNIX seconds), and its bytes."""

    digest: bytes
    stored: float
    size: int


class Page(Protocol):
    """Some blocks of a store, which are read and removed together."""

    def blocks(self) -> Iterable[StoredBlock]: ...

    def remove(self, digests: list[bytes]) -> None:
        """Called with the lock of the live set held."""
        ...


class CollectableStore(BlockSource, Protocol):
    """A store as the collector sees it."""

    limits: Limits

    def pages(self) -> Iterable[Page]: ...

    def before_removal(self, size: int) -> None:
        """Called, with the lock of the live set held, before blocks of `size` bytes in all are removed."""
        ...


def collect(
    store: CollectableStore,
    live: LiveSet,
    pinned: Callable[[], Iterable[CID]],
    *,
    bytes_to_free: float = inf,
    checkpoint: Callable[[], None] = lambda: None,
) -> Collected:
    """Remove unneeded blocks, the oldest first, until `bytes_to_free` are free or none is left.

    `pinned` is called once, after the live set has begun to record. `checkpoint` may raise to stop.
    Only one collection may run at a time.
    """
    if bytes_to_free <= 0:
        return Collected()
    with live.collecting():
        marks: set[bytes] = set()
        _mark(store, pinned(), marks, checkpoint)
        _mark(store, live.take_new_roots(), marks, checkpoint)
        newest = _newest_to_remove(store, marks, bytes_to_free, checkpoint)
        blocks = size = 0
        for page in store.pages():
            checkpoint()
            removed = _sweep(store, live, page, marks, newest, checkpoint)
            blocks, size = blocks + removed.blocks, size + removed.bytes
    return Collected(blocks=blocks, bytes=size)


def reachable_digests(store: CollectableStore, root: CID) -> set[bytes]:
    """The digests of all blocks below `root` that are here, and of those that are linked to and missing."""
    marks: set[bytes] = set()
    _mark(store, [root], marks, lambda: None)
    return marks


def _mark(
    store: CollectableStore, roots: Iterable[CID], marks: set[bytes], checkpoint: Callable[[], None]
) -> None:
    """Add the digests of everything below `roots`; a path ends where a block is missing.

    The same digest may be both a leaf and a node, so that only nodes that were read count as done.
    """
    done: set[CID] = set()
    pending = [root.v1 for root in roots]
    while pending:
        cid = pending.pop()
        if not cid.fetchable:
            continue
        marks.add(cid.digest)
        if cid.codec == RAW or cid in done:
            continue
        done.add(cid)
        checkpoint()
        pending += [link.v1 for link in _links(store, cid) if link.fetchable]


def _links(store: CollectableStore, cid: CID) -> list[CID]:
    block = store.get(cid)
    if block is None:
        return []
    try:
        return [link for link, _ in links_of(decode(cid, block, store.limits), ROOT, store.limits)]
    except (InvalidContent, ContentTooLarge):
        return []  # it cannot be read any further either


def _newest_to_remove(
    store: CollectableStore, marks: set[bytes], bytes_to_free: float, checkpoint: Callable[[], None]
) -> float:
    """The time for which removing the unmarked blocks that were stored before it frees `bytes_to_free`."""
    if bytes_to_free == inf:
        return inf
    by_age: Counter[int] = Counter()
    for page in store.pages():
        checkpoint()
        for block in page.blocks():
            if block.digest not in marks:
                by_age[int(block.stored) // _AGE_STEP] += block.size
    freed = 0
    for age in sorted(by_age):
        freed += by_age[age]
        if freed >= bytes_to_free:
            return (age + 1) * _AGE_STEP
    return inf


def _sweep(
    store: CollectableStore,
    live: LiveSet,
    page: Page,
    marks: set[bytes],
    newest: float,
    checkpoint: Callable[[], None],
) -> Collected:
    """Remove the unmarked blocks of one page, after marking what has come into use since."""
    while True:
        with live.lock:
            if not live.has_new_roots:
                old = (block for block in page.blocks() if block.stored < newest)
                unused = [
                    block for block in old if block.digest not in marks and not live.has_block(block.digest)
                ]
                size = sum(block.size for block in unused)
                if unused:
                    store.before_removal(size)
                    page.remove([block.digest for block in unused])
                return Collected(blocks=len(unused), bytes=size)
        _mark(store, live.take_new_roots(), marks, checkpoint)
