"""What becomes of an announcement until there is a bid: a refusal, a wait, or a look at what the job needs.

Pure, like the machine whose part it is. Whoever wants no job, or cannot run this one, says so without a
look; a job with inputs, or one that the owner's probes are asked about, is looked at first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bacalhau_p2p.bprotocol.messages import MAX_REASON, BidDeclined, JobAnnounced
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.bidding import (
    NOTHING_FOUND,
    BidStrategy,
    Findings,
    bid_delay,
    bid_probability,
    no_disk_for_inputs,
)
from bacalhau_p2p.compute.capacity import Capacity
from bacalhau_p2p.compute.record import with_inputs
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.resources import Resources

EXAMINE_WITHIN = 40.0
"""Seconds to look at a job before a bid: more than any probe has, so that it only ends what hangs."""
MAX_WAITING = 1000
"""Announcements that are being looked at, or wait to be answered."""


@dataclass(slots=True)
class _Waiting:
    """An announcement that is looked at, or is to be answered by a bid a little later."""

    author: PeerID
    message: JobAnnounced
    bid_at: UnixSeconds
    """A little later than it came, in a large network."""
    findings: Findings | None
    """None while it is looked at."""
    due: UnixSeconds
    """When to bid, or to give up the look."""


class Announcements:
    """Answers announcements, of jobs in which this node has no part yet."""

    def __init__(
        self,
        strategy: BidStrategy,
        capacity: Capacity,
        *,
        new_execution_id: Callable[[], ExecutionID],
        rng: Callable[[], float],
        say: Callable[[ev.Action], None],
        bid: Callable[[ExecutionID, PeerID, JobAnnounced, Findings, UnixSeconds], None],
    ) -> None:
        """`say` takes actions in their order; `bid` bids for an execution, for which room is reserved."""
        self._strategy = strategy
        self._capacity = capacity
        self._new_execution_id = new_execution_id
        self._rng = rng
        self._say = say
        self._place_bid = bid
        self._waiting: dict[tuple[PeerID, JobID], _Waiting] = {}

    # --- what happens -------------------------------------------------------------------------

    def announced(self, author: PeerID, message: JobAnnounced, now: UnixSeconds) -> bool:
        """Answer, or begin to. False: too many others wait."""
        key = (author, message.job_id)
        if (waiting := self._waiting.get(key)) is not None:
            waiting.message = message  # what is answered is its latest round
        elif len(self._waiting) >= MAX_WAITING:
            return False
        else:
            self._consider(author, message, now)
        return True

    def _consider(self, author: PeerID, message: JobAnnounced, now: UnixSeconds) -> None:
        if (reason := self._strategy.ineligibility_reason(author, message.spec)) is not None:
            self._decline(author, message, reason, busy=False, now=now)
            return
        if (reason := self._strategy.resource_shortage(0)) is not None:
            self._decline(author, message, reason, busy=True, now=now)
            return
        probability = bid_probability(
            bids_wanted=message.bids_wanted, eligible=message.eligible, round_number=message.round
        )
        if probability < 1.0 and self._rng() >= probability:
            return
        delay = bid_delay(
            bids_wanted=message.bids_wanted,
            eligible=message.eligible,
            load=self._capacity.load,
            rng=self._rng(),
        )
        if self._strategy.takes_a_look(message.spec):
            self._examine(author, message, now + delay, now)
        elif delay > 0:
            later = now + delay
            self._waiting[(author, message.job_id)] = _Waiting(author, message, later, NOTHING_FOUND, later)
        else:
            self._bid(author, message, NOTHING_FOUND, now)

    def examined(self, event: ev.Examined, now: UnixSeconds) -> bool:
        """Bid, or refuse. False: nobody waits for this."""
        key = (event.requester, event.job_id)
        waiting = self._waiting.get(key)
        if waiting is None or waiting.findings is not None:
            return False
        findings = event.findings
        if findings.refusal is None and waiting.bid_at > now:
            waiting.findings, waiting.due = findings, waiting.bid_at
            return True
        del self._waiting[key]
        if findings.refusal is not None:
            self._decline(waiting.author, waiting.message, findings.refusal, busy=False, now=now)
        else:
            self._bid(waiting.author, waiting.message, findings, now)
        return True

    def closed(self, author: PeerID, job_id: JobID) -> None:
        """The requester wants no more bids on the job."""
        self._forget((author, job_id))

    def stop(self) -> None:
        """Answer nothing that has come so far."""
        for key in list(self._waiting):
            self._forget(key)

    # --- clocks -------------------------------------------------------------------------------

    def deadlines(self) -> list[UnixSeconds]:
        return [waiting.due for waiting in self._waiting.values()]

    def time_passed(self, now: UnixSeconds) -> None:
        for key, waiting in list(self._waiting.items()):
            if waiting.due > now:
                continue
            self._forget(key)
            if waiting.findings is None:
                reason = f"could not look at the job within {EXAMINE_WITHIN:g} s"
                self._decline(waiting.author, waiting.message, reason, busy=True, now=now)
            else:
                self._bid(waiting.author, waiting.message, waiting.findings, now)

    # --- answers ------------------------------------------------------------------------------

    def _examine(self, author: PeerID, message: JobAnnounced, bid_at: UnixSeconds, now: UnixSeconds) -> None:
        """Look at what takes time to find out, if there is room for the job at all."""
        spec = message.spec
        if not self._capacity.has_room(spec.resources):
            self._decline_for_room(author, message, spec.resources, now)
            return
        key = (author, message.job_id)
        self._waiting[key] = _Waiting(author, message, bid_at, None, now + EXAMINE_WITHIN)
        self._say(ev.LearnAddresses(author, message.addresses))
        self._say(ev.Examine(author, message.job_id, spec))

    def _forget(self, key: tuple[PeerID, JobID]) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is not None and waiting.findings is None:
            self._say(ev.StopExamining(*key))

    def _bid(self, author: PeerID, message: JobAnnounced, findings: Findings, now: UnixSeconds) -> None:
        if findings.disk and (reason := self._strategy.resource_shortage(findings.disk)) is not None:
            self._decline(author, message, reason, busy=True, now=now)
            return
        execution_id = self._new_execution_id()
        wanted = with_inputs(message.spec.resources, findings.disk)
        if self._capacity.reserve(execution_id, wanted):
            self._place_bid(execution_id, author, message, findings, now)
        else:
            self._decline_for_room(author, message, wanted, now)

    def _decline_for_room(
        self, author: PeerID, message: JobAnnounced, wanted: Resources, now: UnixSeconds
    ) -> None:
        """There is no room for a job that wants so much, which may be more than it asks for itself."""
        limit, asked = self._capacity.limit, message.spec.resources
        if self._capacity.has_room(asked):
            free = self._capacity.available.disk
            reason = no_disk_for_inputs(inputs=wanted.disk - asked.disk, job=asked.disk, free=free)
        else:
            reason = "is busy" if asked.fits_in(limit) else "is too small for the resources asked for"
        self._decline(author, message, reason, busy=wanted.fits_in(limit), now=now)

    def _decline(
        self, author: PeerID, message: JobAnnounced, reason: str, *, busy: bool, now: UnixSeconds
    ) -> None:
        if message.answers_wanted:
            self._say(ev.LearnAddresses(author, message.addresses))
            declined = BidDeclined(
                job_id=message.job_id, round=message.round, reason=reason[:MAX_REASON], busy=busy
            )
            self._say(ev.Send(author, declined, now))
