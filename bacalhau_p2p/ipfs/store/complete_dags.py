"""Which DAGs are known to be complete, so that they are not walked again."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.dag_stat import DagStat

_LIMIT = 10_000


class CompleteDags:
    """The stats of complete DAGs, until any block is removed. May be called from any thread."""

    def __init__(self, lock: Lock) -> None:
        """`lock` is held while blocks are removed."""
        self._lock = lock
        self._removals = 0
        self._stats: dict[CID, DagStat] = {}

    def __contains__(self, root: CID) -> bool:
        with self._lock:
            return root.v1 in self._stats

    def get(self, root: CID, compute: Callable[[], DagStat]) -> DagStat:
        """The stat of a DAG, from the cache or computed; it is cached when the DAG is complete."""
        with self._lock:
            known, removals = self._stats.get(root.v1), self._removals
        if known is not None:
            return known
        stat = compute()
        with self._lock:
            if stat.complete and removals == self._removals:
                if len(self._stats) >= _LIMIT:
                    del self._stats[next(iter(self._stats))]
                self._stats[root.v1] = stat
        return stat

    def clear(self) -> None:
        """Must be called with the lock held."""
        self._removals += 1
        self._stats.clear()
