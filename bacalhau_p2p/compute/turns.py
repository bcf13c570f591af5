"""Whose turn it is: a job that has long waited for room is not overtaken for ever by smaller ones.

Pure, as a part of the compute machine. For a while, smaller jobs may use room that is too little for an older
one. Then it is the turn of the older one: what is released is kept for it until it fits, is placed on another
node, or has had its turn for long. Between two turns there is a pause, so that those who never accept a bid
keep a node idle for half of the time at most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import nsmallest

from bacalhau_p2p.components.undo import Undoable
from bacalhau_p2p.compute.considered_job import ConsideredJob, Key
from bacalhau_p2p.compute.missed_jobs import MissedJobs
from bacalhau_p2p.model.base import UnixSeconds

PATIENCE = 30.0
"""Seconds for which a job that finds no room may be overtaken by younger ones."""
LONGEST_TURN = 600.0
"""Seconds for which room is kept for one job."""


MAX_CANDIDATES = 16
"""Jobs that are looked at when a turn may begin, the most urgent ones."""


class Turns(Undoable):
    """Remembers whose turn it is."""

    def __init__(self, missed: MissedJobs, inspected: Mapping[Key, ConsideredJob]) -> None:
        """`missed`: the jobs that wait for room; `inspected`: those that may be about to get it."""
        self._missed = missed
        self._inspected = inspected
        self._holder: Key | None = None
        self._began: UnixSeconds = 0.0
        self._pause_ends: UnixSeconds = 0.0

    def holder(self, now: UnixSeconds, may_bid: Callable[[ConsideredJob], bool]) -> ConsideredJob | None:
        """The job for which room is kept, if there is one. `may_bid`: whether room is all that it lacks."""
        if self._holder is not None:
            job = self._missed.find(self._holder) or self._inspected.get(self._holder)
            if job is not None and now < self._began + LONGEST_TURN and may_bid(job):
                return job
            self._pause_ends = now + min(now - self._began, LONGEST_TURN)
            self._holder = None
        if now < self._pause_ends:
            return None
        waited = (job for job in self._missed.jobs() if now >= job.since + PATIENCE)
        for job in nsmallest(MAX_CANDIDATES, waited, key=lambda job: job.urgency):
            if may_bid(job):
                self._holder, self._began = job.key, now
                return job
        return None
