"""Which blocks are in use right now, pinned or not, so that a collection that runs at the same time
leaves them alone.

Two kinds of use: a DAG is held by its root while somebody fetches, reads or sends it; and blocks
whose root is not made yet are kept in a batch until it is pinned.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from bacalhau_p2p.ipfs.format.cid import CID

Batch = set[bytes]
"""Digests of blocks that are being added."""


class Claims:
    """What is in use. May be called from any thread.

    `lock` is held for whatever must not happen in the middle of removing blocks; no block is read or
    written while it is.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._held: Counter[CID] = Counter()
        self._batches: list[Batch] = []
        self._arrived: Batch | None = None
        self._unmarked: list[CID] = []

    # --- using

    @contextmanager
    def holding(self, roots: Iterable[CID]) -> Iterator[None]:
        """No block below `roots` that is there on entry goes away inside the block, and none that comes."""
        roots = [root.v1 for root in roots]
        with self.lock:
            self._held.update(roots)
            self._tell(roots)
        try:
            yield
        finally:
            with self.lock:
                self._held.subtract(roots)
                self._held += Counter()  # drops those at zero

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """No block that is stored with this batch goes away inside the block."""
        batch: Batch = set()
        with self.lock:
            self._batches.append(batch)
        try:
            yield batch
        finally:
            with self.lock:
                self._batches = [other for other in self._batches if other is not batch]

    def arrive(self, digest: bytes, batch: Batch | None) -> None:
        """A block is about to be stored, or found to be there. It must be said before looking for it."""
        with self.lock:
            if batch is not None:
                batch.add(digest)
            if self._arrived is not None:
                self._arrived.add(digest)

    def pinned(self, root: CID) -> None:
        """A pin has been set."""
        with self.lock:
            self._tell([root.v1])

    def _tell(self, roots: list[CID]) -> None:
        if self._arrived is not None:
            self._unmarked += roots

    # --- collecting

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """From now on everything that arrives, is held or is pinned is remembered."""
        with self.lock:
            self._arrived = set()
            self._unmarked = list(self._held)
        try:
            yield
        finally:
            with self.lock:
                self._arrived = None
                self._unmarked = []

    def take_unmarked(self) -> list[CID]:
        """Roots that came into use since the last call."""
        with self.lock:
            taken, self._unmarked = self._unmarked, []
        return taken

    @property
    def anything_unmarked(self) -> bool:
        """To be asked with `lock` held."""
        return bool(self._unmarked)

    def keeps(self, digest: bytes) -> bool:
        """Whether a block is in use that no mark shows. To be asked with `lock` held."""
        return digest in (self._arrived or ()) or any(digest in batch for batch in self._batches)
