"""From an announcement to a bid: the node declines, waits, or inspects the job first.

Pure, as a part of the compute machine. A node that cannot or will not run a job declines at once. A job that
has inputs, or that the operator's probes decide about, is inspected before a bid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bacalhau_p2p.bprotocol.messages import MAX_REASON, BidDeclined, JobAnnounced
from bacalhau_p2p.components.protocol import Random
from bacalhau_p2p.components.undo import Undoable, UndoableDict
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute import transitions
from bacalhau_p2p.compute.bidding import (
    EXPECTED_BIDS_PER_WANTED,
    NOTHING_FOUND,
    Assessment,
    Findings,
    bid_delay,
    bid_probability,
    no_disk_for_inputs,
)
from bacalhau_p2p.compute.ledger import Ledger
from bacalhau_p2p.compute.recent_findings import RecentFindings
from bacalhau_p2p.compute.record import with_inputs
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.resources import Resources

INSPECTION_TIMEOUT = 40.0
"""Seconds for the inspection of a job: more than any probe has, so that only what hangs is stopped."""
MAX_WAITING = 1000
"""Announced jobs that are being inspected or wait for their bid."""
MAX_UNFINISHED = 10_000
"""Executions of a node that have not ended, including bids."""


@dataclass(slots=True)
class _Waiting(Undoable):
    """An announced job that is being inspected, or on which this node will bid a little later."""

    author: PeerID
    message: JobAnnounced
    outlives_node: bool
    bid_at: UnixSeconds
    """In a large network, a little later than the announcement."""
    findings: Findings | None
    """None while the job is being inspected."""
    due: UnixSeconds
    """When to bid, or to stop the inspection."""


class Announcements(Undoable):
    """Answers announcements of jobs in which this node has no part yet."""

    def __init__(self, ledger: Ledger, *, execution_ids: Iterator[ExecutionID], rng: Random) -> None:
        self._ledger = ledger
        self._execution_ids = execution_ids
        self._rng = rng
        self._bidding = True
        self._waiting: dict[tuple[PeerID, JobID], _Waiting] = UndoableDict()
        self._recent_findings = RecentFindings()

    # --- events -----------------------------------------------------------------------------

    def announced(self, event: ev.AnnouncementReceived, now: UnixSeconds) -> None:
        """Answer an announcement, now or later."""
        author, message = event.author, event.message
        if not self._bidding or self._ledger.has_part_in(author, message.job_id):
            return
        key = (author, message.job_id)
        if (waiting := self._waiting.get(key)) is not None:
            if message.spec != waiting.message.spec:
                self._ledger.ignore(message, "with another spec than before")
            else:
                waiting.message = message  # the latest round is the one to answer
        elif len(self._waiting) >= MAX_WAITING or self._ledger.unfinished >= MAX_UNFINISHED:
            self._ledger.ignore(message, "while too many are pending")
        else:
            self._consider(author, message, event.assessment, now)

    def inspected(self, event: ev.Inspected, now: UnixSeconds) -> None:
        """Bid or decline, now that the inspection of a job has ended."""
        key = (event.requester, event.job_id)
        waiting = self._waiting.get(key)
        if waiting is None or waiting.findings is not None:
            self._ledger.ignore(event, "for a job that is not inspected")
            return
        findings = event.findings
        self._recent_findings.remember(*key, waiting.message.spec, findings, now)
        if findings.refusal is None and waiting.bid_at > now:
            waiting.findings, waiting.due = findings, waiting.bid_at
            return
        del self._waiting[key]
        self._ledger.held_jobs.drop(*key)
        self._answer(waiting, findings, now)

    def closed(self, author: PeerID, job_id: JobID) -> None:
        """The requester wants no more bids on the job."""
        self._drop((author, job_id))
        self._recent_findings.forget(author, job_id)

    def stop(self) -> None:
        """Answer no announcement from now on."""
        self._bidding = False
        for key in list(self._waiting):
            self._drop(key)

    # --- time -------------------------------------------------------------------------------

    def next_deadline(self) -> UnixSeconds | None:
        """When to call `check`."""
        return min(waiting.due for waiting in self._waiting.values()) if self._waiting else None

    def check(self, now: UnixSeconds) -> None:
        """Bid on jobs that have waited long enough, and stop inspections that take too long."""
        for key, waiting in list(self._waiting.items()):
            if waiting.due > now:
                continue
            self._drop(key)
            with self._ledger.isolated(f"announcement of {waiting.message.job_id}"):
                self._take_up(waiting, now)

    def _take_up(self, waiting: _Waiting, now: UnixSeconds) -> None:
        if waiting.findings is not None:
            self._answer(waiting, waiting.findings, now)
        else:
            reason = f"could not inspect the job within {INSPECTION_TIMEOUT:g} s"
            self._decline(waiting.author, waiting.message, reason, busy=True, now=now)

    def _drop(self, key: tuple[PeerID, JobID]) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return
        self._ledger.held_jobs.drop(*key)
        if waiting.findings is None:
            self._ledger.actions.append(ev.StopInspection(*key))

    # --- decisions --------------------------------------------------------------------------

    def _consider(
        self, author: PeerID, message: JobAnnounced, assessment: Assessment, now: UnixSeconds
    ) -> None:
        if assessment.ineligibility is not None:
            self._decline(author, message, assessment.ineligibility, busy=False, now=now)
            return
        if assessment.shortage is not None:
            self._decline(author, message, assessment.shortage, busy=True, now=now)
            return
        if self._ledger.unused_bids.pauses(author, now):
            self._decline(author, message, "waits, because bids of it were not answered", busy=True, now=now)
            return
        probability = bid_probability(
            bids_wanted=message.bids_wanted, eligible=message.eligible, round_number=message.round
        )
        if probability < 1.0 and self._rng.random() >= probability:
            return
        if not self._ledger.held_jobs.has_room_for(author, message.job_id, message.spec):
            self._decline(author, message, "holds too many jobs", busy=True, now=now)
            return
        bid_at, random = now, self._rng.random()
        if message.eligible > EXPECTED_BIDS_PER_WANTED * message.bids_wanted:
            bid_at += bid_delay(load=self._ledger.capacity.load, random=random)
        findings: Findings | None = NOTHING_FOUND
        if assessment.needs_inspection:
            findings = self._recent_findings.recall(author, message.job_id, message.spec, now)
        waiting = _Waiting(author, message, assessment.outlives_node, bid_at, findings, due=bid_at)
        if findings is None:
            self._inspect(waiting, now)
        elif bid_at > now:
            self._wait(waiting)
        else:
            self._bid(waiting, findings, now)

    def _wait(self, waiting: _Waiting) -> None:
        author, message = waiting.author, waiting.message
        self._waiting[(author, message.job_id)] = waiting
        self._ledger.held_jobs.hold(author, message.job_id, message.spec)

    def _inspect(self, waiting: _Waiting, now: UnixSeconds) -> None:
        """Inspect the job, if there is room for it at all."""
        author, message = waiting.author, waiting.message
        if not self._has_room(author, message, message.spec.resources, now):
            return
        waiting.due = now + INSPECTION_TIMEOUT
        self._wait(waiting)
        self._ledger.actions.append(ev.LearnAddresses(author, message.addresses))
        self._ledger.actions.append(ev.Inspect(author, message.job_id, message.spec))

    def _answer(self, waiting: _Waiting, findings: Findings, now: UnixSeconds) -> None:
        """Decline the job or bid on it, as the findings say."""
        if findings.refusal is not None:
            self._decline(waiting.author, waiting.message, findings.refusal, busy=False, now=now)
        elif findings.shortage is not None:
            self._decline(waiting.author, waiting.message, findings.shortage, busy=True, now=now)
        else:
            self._bid(waiting, findings, now)

    def _bid(self, waiting: _Waiting, findings: Findings, now: UnixSeconds) -> None:
        author, message = waiting.author, waiting.message
        execution_id = next(self._execution_ids)
        wanted = with_inputs(message.spec.resources, findings.disk)
        if self._has_room(author, message, wanted, now):
            self._ledger.capacity.reserve(execution_id, author, wanted)
            bid = transitions.BidPlaced(author, message, findings, waiting.outlives_node)
            transitions.begin(self._ledger, execution_id, bid, now)

    def _has_room(self, author: PeerID, message: JobAnnounced, wanted: Resources, now: UnixSeconds) -> bool:
        """Whether the requester can have so much room now. If not, the job is declined."""
        if not self._ledger.capacity.has_room(wanted):
            self._decline_for_room(author, message, wanted, now)
            return False
        if (refusal := self._ledger.shares.refusal(author, wanted, now)) is not None:
            self._decline(author, message, refusal, busy=True, now=now)
            return False
        return True

    def _decline_for_room(
        self, author: PeerID, message: JobAnnounced, wanted: Resources, now: UnixSeconds
    ) -> None:
        """Decline, because there is no room for `wanted`: what the job requests, and perhaps its inputs."""
        capacity, asked = self._ledger.capacity, message.spec.resources
        if capacity.has_room(asked):
            free = capacity.available.disk
            reason = no_disk_for_inputs(inputs=wanted.disk - asked.disk, job=asked.disk, free=free)
        else:
            reason = (
                "is busy" if asked.fits_in(capacity.limit) else "is too small for the requested resources"
            )
        if busy := wanted.fits_in(capacity.limit):
            self._ledger.shares.turned_away(author, now)
        self._decline(author, message, reason, busy=busy, now=now)

    def _decline(
        self, author: PeerID, message: JobAnnounced, reason: str, *, busy: bool, now: UnixSeconds
    ) -> None:
        if message.answers_wanted:
            self._ledger.actions.append(ev.LearnAddresses(author, message.addresses))
            declined = BidDeclined(
                job_id=message.job_id, round=message.round, reason=reason[:MAX_REASON], busy=busy
            )
            self._ledger.actions.append(ev.Send(author, declined, now))
