"""Blocks that are in use now, pinned or not, so that a concurrent garbage collection keeps them.

There are two kinds of use: somebody fetches, reads or sends a DAG and holds its root, or adds blocks whose
root does not exist yet, in a batch that ends when the root is pinned.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from bacalhau_p2p.ipfs.format.cid import CID

Batch = set[bytes]
"""Digests of blocks that are being added."""


class LiveSet:
    """What is in use. May be called from any thread.

    `lock` is held while blocks are removed, and for everything that must not happen in the middle of that;
    no block is read or written under it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._held: Counter[CID] = Counter()
        self._batches: list[Batch] = []
        self._put_meanwhile: Batch | None = None
        """Digests of blocks put since the collection began; None while there is none."""
        self._new_roots: list[CID] = []

    # --- for users of blocks

    @contextmanager
    def holding(self, roots: Iterable[CID]) -> Iterator[None]:
        """Inside the block, no block below `roots` is collected, whether it is there on entry or arrives."""
        roots = [root.v1 for root in roots]
        with self.lock:
            self._held.update(roots)
            self._add_roots(roots)
        try:
            yield
        finally:
            with self.lock:
                self._held.subtract(roots)
                self._held += Counter()  # drops those at zero

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """Inside the block, no block that is put with this batch is collected."""
        batch: Batch = set()
        with self.lock:
            self._batches.append(batch)
        try:
            yield batch
        finally:
            with self.lock:
                self._batches = [other for other in self._batches if other is not batch]

    def add_block(self, digest: bytes, batch: Batch | None) -> None:
        """Must be called before a block is put, or looked up in order not to put it again."""
        with self.lock:
            if batch is not None:
                batch.add(digest)
            if self._put_meanwhile is not None:
                self._put_meanwhile.add(digest)

    def add_pin(self, root: CID) -> None:
        """Must be called after a pin is set."""
        with self.lock:
            self._add_roots([root.v1])

    def _add_roots(self, roots: list[CID]) -> None:
        if self._put_meanwhile is not None:
            self._new_roots += roots

    # --- for the collector

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Inside the block, everything that is put, held or pinned is recorded."""
        with self.lock:
            self._put_meanwhile = set()
            self._new_roots = list(self._held)
        try:
            yield
        finally:
            with self.lock:
                self._put_meanwhile = None
                self._new_roots = []

    def take_new_roots(self) -> list[CID]:
        """Roots that came into use since the last call; at the first call, all that are held."""
        with self.lock:
            taken, self._new_roots = self._new_roots, []
        return taken

    @property
    def has_new_roots(self) -> bool:
        """Must be called with `lock` held."""
        return bool(self._new_roots)

    def has_block(self, digest: bytes) -> bool:
        """Whether a block was put since the collection began or is in a batch. `lock` must be held."""
        return digest in (self._put_meanwhile or ()) or any(digest in batch for batch in self._batches)
