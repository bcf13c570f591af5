"""Whether a job may have room on this node now: it fits, its requester may hold so much, and it is its turn.

Pure, as a part of the compute machine. A job that may not is declined, and remembered if it may later.
"""

from __future__ import annotations

from collections.abc import Mapping

from bacalhau_p2p.compute.bidding import no_disk_for_inputs
from bacalhau_p2p.compute.considered_job import ConsideredJob, Key
from bacalhau_p2p.compute.ledger import Ledger
from bacalhau_p2p.compute.missed_jobs import MissedJobs
from bacalhau_p2p.compute.turns import Turns
from bacalhau_p2p.model.base import UnixSeconds

NOT_ITS_TURN = "keeps room for a larger job that has waited for long"


class Room:
    """What one node has free, and for whom."""

    def __init__(self, ledger: Ledger, inspected: Mapping[Key, ConsideredJob]) -> None:
        """`inspected`: the jobs that may be about to get room."""
        self._ledger = ledger
        self.missed = MissedJobs()
        """The jobs for which there was none."""
        self._turns = Turns(self.missed, inspected)

    def has_room_for(self, job: ConsideredJob, now: UnixSeconds) -> bool:
        """Whether the requester can have so much room now. If not, the job is declined."""
        if not self._ledger.capacity.has_room(job.needs):
            self._decline_for_room(job, now)
            return False
        if (refusal := self._ledger.shares.refusal(job.author, job.needs, now)) is not None:
            self.missed.remember(job, now)
            self._decline(job, refusal, busy=True, now=now)
            return False
        if self.overtakes(job, self.first_in_line(now)):
            self.missed.remember(job, now)
            self._decline(job, NOT_ITS_TURN, busy=True, now=now)
            return False
        return True

    def has_more_room_for(self, job: ConsideredJob, now: UnixSeconds) -> bool:
        """Whether the requester can have room for another execution of the same job."""
        return (
            self._ledger.capacity.has_room(job.needs)
            and self._ledger.shares.refusal(job.author, job.needs, now) is None
            and not self.overtakes(job, self.first_in_line(now))
        )

    def first_in_line(self, now: UnixSeconds) -> ConsideredJob | None:
        """The job for which room is kept, if there is one."""
        if not self.missed:
            return None
        return self._turns.holder(now, lambda job: self._waits_for_room_only(job, now))

    def overtakes(self, job: ConsideredJob, first: ConsideredJob | None) -> bool:
        """Whether the job would take room that is kept for another one, which is more urgent."""
        return (
            first is not None
            and first.urgency < job.urgency
            and self._ledger.capacity.delays(job.needs, first.needs)
        )

    def _waits_for_room_only(self, job: ConsideredJob, now: UnixSeconds) -> bool:
        shares, unused = self._ledger.shares, self._ledger.unused_bids
        return not unused.pauses(job.author, now) and shares.refusal(job.author, job.needs, now) is None

    def _decline_for_room(self, job: ConsideredJob, now: UnixSeconds) -> None:
        """Decline a job for which there is no room, and remember it if there may be some later."""
        capacity, asked, wanted = self._ledger.capacity, job.message.spec.resources, job.needs
        may_fit = wanted.fits_in(capacity.limit)
        if may_fit:
            self.missed.remember(job, now)
        if capacity.has_room(asked):
            free = capacity.available.disk
            reason = no_disk_for_inputs(inputs=wanted.disk - asked.disk, job=asked.disk, free=free)
        else:
            reason = "is busy" if asked.fits_in(capacity.limit) else asked.too_large_for(capacity.limit)
        if may_fit:
            self._ledger.shares.turned_away(job.author, now)
        self._decline(job, reason, busy=may_fit, now=now)

    def _decline(self, job: ConsideredJob, reason: str, *, busy: bool, now: UnixSeconds) -> None:
        self._ledger.decline(job.author, job.message, reason, busy=busy, now=now)
