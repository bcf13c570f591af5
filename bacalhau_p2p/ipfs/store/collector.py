"""Removes blocks that nobody needs: mark what the pins and the uses lead to, sweep the rest.

Others go on adding, fetching and reading meanwhile; `claims` has what they need. A process that
dies in the middle leaves whole blocks: of a DAG that nobody needs, some may be gone.
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
from bacalhau_p2p.ipfs.format.unixfs import File, Folder, Shard, Symlink, decode
from bacalhau_p2p.ipfs.store.claims import Claims

_AGE_STEP = 60
"""Seconds: blocks whose ages differ by less are equally old."""


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


class Group(Protocol):
    """Some blocks of a store that are looked through and removed together."""

    def blocks(self) -> Iterable[StoredBlock]: ...

    def remove(self, digests: list[bytes]) -> None:
        """Called with the lock of the claims held."""
        ...


class Sweepable(BlockSource, Protocol):
    """A store as its collector sees it."""

    limits: Limits

    def groups(self) -> Iterable[Group]: ...

    def removed(self, size: int) -> None:
        """Told, with the lock of the claims held, before blocks of so many bytes vanish."""
        ...


def collect(
    store: Sweepable,
    claims: Claims,
    pinned: Callable[[], Iterable[CID]],
    *,
    excess: float = inf,
    checkpoint: Callable[[], None] = lambda: None,
) -> Collected:
    """Remove blocks that nobody needs, the oldest first, until `excess` bytes are free or none is left.

    `pinned` is asked once, after the claims have begun to listen. `checkpoint` may raise to stop.
    One collection at a time.
    """
    if excess <= 0:
        return Collected()
    with claims.collecting():
        marks: set[bytes] = set()
        _mark(store, pinned(), marks, checkpoint)
        _mark(store, claims.take_unmarked(), marks, checkpoint)
        newest = _age_limit(store, marks, excess, checkpoint)
        blocks = size = 0
        for group in store.groups():
            checkpoint()
            gone = _sweep(store, claims, group, marks, newest, checkpoint)
            blocks, size = blocks + gone.blocks, size + gone.bytes
    return Collected(blocks=blocks, bytes=size)


def digests_below(store: Sweepable, root: CID) -> set[bytes]:
    """Of every block that is here of the DAG below `root`, and of those that it misses."""
    marks: set[bytes] = set()
    _mark(store, [root], marks, lambda: None)
    return marks


def _mark(store: Sweepable, roots: Iterable[CID], marks: set[bytes], checkpoint: Callable[[], None]) -> None:
    """Add the digests of all that is below `roots`; what is missing ends a path.

    A digest may be marked as a leaf and be linked to as a node too: only nodes that were read count
    as done.
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


def _links(store: Sweepable, cid: CID) -> list[CID]:
    block = store.get(cid)
    if block is None:
        return []
    try:
        node = decode(cid, block, store.limits)
    except (InvalidContent, ContentTooLarge):
        return []  # nobody can walk further either
    match node:
        case File(parts=parts):
            return [part.cid for part in parts]
        case Folder(entries=entries):
            return [entry.cid for entry in entries]
        case Shard(links=links):
            return [cid for _, _, cid in links]
        case Symlink():
            return []


def _age_limit(store: Sweepable, marks: set[bytes], excess: float, checkpoint: Callable[[], None]) -> float:
    """Such that removing the unmarked blocks that were stored no later than this frees `excess`."""
    if excess == inf:
        return inf
    by_age: Counter[int] = Counter()
    for group in store.groups():
        checkpoint()
        for block in group.blocks():
            if block.digest not in marks:
                by_age[int(block.stored) // _AGE_STEP] += block.size
    freed = 0
    for age in sorted(by_age):
        freed += by_age[age]
        if freed >= excess:
            return (age + 1) * _AGE_STEP
    return inf


def _sweep(
    store: Sweepable,
    claims: Claims,
    group: Group,
    marks: set[bytes],
    newest: float,
    checkpoint: Callable[[], None],
) -> Collected:
    """Remove what is unmarked from one group."""
    while True:
        with claims.lock:
            if not claims.anything_unmarked:
                doomed = [
                    block
                    for block in group.blocks()
                    if block.stored < newest and block.digest not in marks and not claims.keeps(block.digest)
                ]
                size = sum(block.size for block in doomed)
                if doomed:
                    store.removed(size)
                    group.remove([block.digest for block in doomed])
                return Collected(blocks=len(doomed), bytes=size)
        _mark(store, claims.take_unmarked(), marks, checkpoint)
