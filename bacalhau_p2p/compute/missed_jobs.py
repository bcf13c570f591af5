"""Jobs that this node would run and had no room for, while they wait for bids.

Pure, as a part of the compute machine. The node bids on them as soon as it has room, so that no job has to
wait until it is announced again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bacalhau_p2p.components.undo import Undoable, UndoableDict
from bacalhau_p2p.compute.considered_job import ConsideredJob, Key
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.model.validation import size_of

MAX_JOBS = 1000
"""Jobs that are remembered."""
MAX_BYTES = 16 * 1024 * 1024
"""Bytes of their specs as JSON, together."""
REMEMBER_FOR = 90.0
"""Seconds for which a job is remembered: a requester that still waits announces it again within 70 s."""


@dataclass(frozen=True, slots=True)
class _Missed:
    job: ConsideredJob
    until: UnixSeconds
    size: int

    @property
    def share(self) -> float:
        """What it takes of the limits."""
        return max(1 / MAX_JOBS, self.size / MAX_BYTES)


class MissedJobs(Undoable):
    """The missed jobs of one node. When there are too many, the requester with most of them loses one."""

    def __init__(self) -> None:
        self._missed: dict[Key, _Missed] = UndoableDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._missed)

    def remember(self, job: ConsideredJob, now: UnixSeconds) -> None:
        """Bid on this job when there is room, unless few others than this node were asked: then its requester
        does not learn that the node waits."""
        self.take(job.key)
        if job.message.only_if_local:
            return
        size = size_of(job.message.spec)
        self._missed[job.key] = _Missed(job, now + REMEMBER_FOR, size)
        self._bytes += size
        self._forget_expired(now)
        while len(self._missed) > MAX_JOBS or self._bytes > MAX_BYTES:
            self._forget_one()

    def take(self, key: Key) -> ConsideredJob | None:
        """Remove a job: it is closed, or is announced again, or this node bids on it."""
        missed = self._missed.pop(key, None)
        if missed is None:
            return None
        self._bytes -= missed.size
        return missed.job

    def find(self, key: Key) -> ConsideredJob | None:
        """One of them."""
        missed = self._missed.get(key)
        return None if missed is None else missed.job

    def jobs(self) -> Iterator[ConsideredJob]:
        """All of them, in any order."""
        return (missed.job for missed in self._missed.values())

    def in_order(self, now: UnixSeconds) -> list[ConsideredJob]:
        """All of them, the most urgent first."""
        self._forget_expired(now)
        return sorted((missed.job for missed in self._missed.values()), key=lambda job: job.urgency)

    def forget(self, author: PeerID) -> None:
        """Remove the jobs of this requester."""
        for key in [key for key in self._missed if key[0] == author]:
            self.take(key)

    def clear(self) -> None:
        """Remove all."""
        for key in list(self._missed):
            self.take(key)

    def _forget_expired(self, now: UnixSeconds) -> None:
        for key in [key for key, missed in self._missed.items() if missed.until <= now]:
            self.take(key)

    def _forget_one(self) -> None:
        """Remove the least urgent one of the requester that takes most room."""
        shares: dict[PeerID, float] = {}
        for (author, _), missed in self._missed.items():
            shares[author] = shares.get(author, 0.0) + missed.share
        most = max(shares, key=lambda author: shares[author])
        theirs = (missed.job for missed in self._missed.values() if missed.job.author == most)
        self.take(max(theirs, key=lambda job: job.urgency).key)
