"""From an announcement to a bid: the node declines, waits, or inspects the job first.

Pure, as a part of the compute machine. A node that may not bid does nothing. One that cannot or will not run
a job declines at once. A job that has inputs, or that the operator's probes decide about, is inspected before
a bid. A job for which there is no room is remembered, and gets a bid when there is some.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bacalhau_p2p.bprotocol.draw import spread
from bacalhau_p2p.bprotocol.messages import JobOutlined
from bacalhau_p2p.components.protocol import Random
from bacalhau_p2p.components.undo import Undoable, UndoableDict
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute import transitions
from bacalhau_p2p.compute.bidding import (
    NOTHING_FOUND,
    Findings,
    bid_delay,
)
from bacalhau_p2p.compute.considered_job import ConsideredJob, Key
from bacalhau_p2p.compute.ledger import Ledger
from bacalhau_p2p.compute.recent_findings import RecentFindings
from bacalhau_p2p.compute.room import Room
from bacalhau_p2p.compute.spec_requests import SpecRequests
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds

INSPECTION_TIMEOUT = 40.0
"""Seconds for the inspection of a job: more than any probe has, so that only what hangs is stopped."""
MAX_WAITING = 1000
"""Announced jobs that are being inspected or wait for their bid."""
MAX_UNFINISHED = 10_000
"""Executions of a node that have not ended, including bids."""
MAX_IN_VAIN = 50
"""Jobs of one requester that are looked at in vain when room was released, the most urgent ones."""
PAUSES = "does not bid for a while, because the requester left earlier bids unanswered"


class Announcements(Undoable):
    """Answers announcements of jobs in which this node has no part yet."""

    def __init__(self, ledger: Ledger, *, execution_ids: Iterator[ExecutionID], rng: Random) -> None:
        self._ledger = ledger
        self._execution_ids = execution_ids
        self._rng = rng
        self._bidding = True
        self._waiting: dict[Key, ConsideredJob] = UndoableDict()
        self._room = Room(ledger, self._waiting)
        self._missed = self._room.missed
        self._recent_findings = RecentFindings()
        self._spec_requests = SpecRequests(ledger)

    # --- events -----------------------------------------------------------------------------

    def announced(self, event: ev.AnnouncementReceived, now: UnixSeconds) -> None:
        """Answer an announcement, now or later."""
        author, message = event.author, event.message
        several = message.bids_each > 0
        if not self._bidding or self._ledger.has_part_in(author, message.job_id, several=several):
            return
        key = (author, message.job_id)
        self._spec_requests.drop(key)
        waiting = self._waiting.get(key)
        if waiting is not None and waiting.message.only_if_local != message.only_if_local:
            self._drop(key)  # what is found out about it would not answer this
            waiting = None
        if waiting is not None:
            if message.spec != waiting.message.spec:
                self._ledger.ignore(message, "with another spec than before")
            else:
                waiting.message = message  # the latest round is the one to answer
        elif not event.assessment.drawn:
            pass
        elif len(self._waiting) >= MAX_WAITING or self._ledger.unfinished >= MAX_UNFINISHED:
            self._ledger.ignore(message, "while too many are pending")
        else:
            missed = self._missed.take(key)
            since = missed.since if missed is not None else now
            self._consider(ConsideredJob(author, message, event.assessment, since, now, None, now), now)

    def outlined(self, event: ev.OutlineReceived, now: UnixSeconds) -> None:
        """Ask for the spec of a large job, if this node may bid on it and could run it."""
        author, message, assessment = event.author, event.message, event.assessment
        key = (author, message.job_id)
        if (
            not self._bidding
            or not assessment.drawn
            or self._ledger.has_part_in(*key, several=message.bids_each > 0)
            or key in self._waiting
        ):
            return
        if key in self._spec_requests:
            self._spec_requests.ask(author, message, now)
            return
        ineligibility = assessment.ineligibility
        asked, limit = message.outline.resources, self._ledger.capacity.limit
        if not asked.fits_in(limit):
            ineligibility = ineligibility or asked.too_large_for(limit)
        if ineligibility is not None:
            self._ledger.decline(author, message, ineligibility, busy=False, now=now)
        elif assessment.shortage is not None:
            self._ledger.decline(author, message, assessment.shortage, busy=True, now=now)
        elif self._ledger.unused_bids.pauses(author, now):
            self._ledger.decline(author, message, PAUSES, busy=True, now=now)
        else:
            self._spec_requests.ask(author, message, now)

    def awaited(self, author: PeerID, job_id: JobID) -> JobOutlined | None:
        """The outline of a job whose spec this node has asked for."""
        return self._spec_requests.message(author, job_id)

    def considers(self, author: PeerID, job_id: JobID) -> bool:
        """Whether a job is inspected, waits for its bid, or its spec is awaited."""
        key = (author, job_id)
        return key in self._waiting or key in self._spec_requests

    def spec_received(self, event: ev.SpecReceived, now: UnixSeconds) -> None:
        """Answer the announcement of a large job, now that its spec is here."""
        if (event.author, event.message.job_id) in self._spec_requests:
            self.announced(ev.AnnouncementReceived(event.author, event.message, event.assessment), now)
        else:
            self._ledger.ignore(event, "that was not asked for")

    def spec_refused(self, event: ev.SpecRefused, now: UnixSeconds) -> None:
        """The requester did not deliver what it announced."""
        self._spec_requests.give_up(event.author, event.job_id, event.reason, now)

    def inspected(self, event: ev.Inspected, now: UnixSeconds) -> None:
        """Bid or decline, now that the inspection of a job has ended."""
        key = (event.requester, event.job_id)
        waiting = self._waiting.get(key)
        wanted = waiting is not None and event.only_if_local == waiting.message.only_if_local
        if waiting is None or waiting.findings is not None or not wanted:
            self._ledger.ignore(event, "for a job that is not inspected")
            return
        findings = event.findings
        self._recent_findings.remember(*key, waiting.message.spec, findings, now)
        if findings.refusal is None and waiting.bid_at > now:
            waiting.findings, waiting.due = findings, waiting.bid_at
            return
        self._drop(key, inspected=True)
        waiting.findings = findings
        self._answer(waiting, findings, now)

    def closed(self, author: PeerID, job_id: JobID) -> None:
        """The requester wants no more bids on the job."""
        self._missed.take((author, job_id))
        self._spec_requests.drop((author, job_id))
        self._drop((author, job_id))
        self._recent_findings.forget(author, job_id)

    def rejected(self, author: PeerID, job_id: JobID) -> None:
        """The requester does not want a bid: it announces the job again when it wants others."""
        self._missed.take((author, job_id))

    def forget(self, author: PeerID) -> None:
        """Bid on no job that this requester has announced so far."""
        self._missed.forget(author)
        for key in [key for key in self._waiting if key[0] == author]:
            self._drop(key)
        self._spec_requests.drop_all_of(author)

    def stop(self) -> None:
        """Answer no announcement from now on."""
        self._bidding = False
        self._missed.clear()
        self._spec_requests.clear()
        for key in list(self._waiting):
            self._drop(key)

    def use_room(self, now: UnixSeconds) -> None:
        """Bid on jobs for which there was no room, if some was released since the last call."""
        capacity, shares = self._ledger.capacity, self._ledger.shares
        if not capacity.has_released:
            return
        capacity.has_released = False
        first, in_vain = self._room.first_in_line(now), Counter[PeerID]()
        for job in self._missed.in_order(now):
            if self._ledger.unfinished >= MAX_UNFINISHED:
                return
            is_first = first is not None and job.key == first.key
            if in_vain[job.author] >= MAX_IN_VAIN and not is_first:
                continue
            fits = capacity.has_room(job.needs) and not shares.refusal(job.author, job.needs, now)
            if not fits or self._room.overtakes(job, first):
                in_vain[job.author] += 1
                continue
            if is_first:
                first = None
            if job.findings is not None or not self._inspects_late():
                self._missed.take(job.key)
                with self._ledger.isolated(f"announcement of {job.message.job_id}"):
                    self._bid_late(job, now)

    def _bid_late(self, job: ConsideredJob, now: UnixSeconds) -> None:
        if self._ledger.unused_bids.pauses(job.author, now):
            return
        if not self._ledger.held_jobs.has_room_for(*job.key, job.message.spec):
            return
        job.late = True
        if job.findings is None:
            self._inspect(job, now)
        else:
            self._bid(job, job.findings, now)

    def _inspects_late(self) -> bool:
        """Whether a job is inspected that may take the room. Others wait: perhaps there is none left then."""
        return any(waiting.late and waiting.findings is None for waiting in self._waiting.values())

    # --- time -------------------------------------------------------------------------------

    def next_deadline(self) -> UnixSeconds | None:
        """When to call `check`."""
        due = [waiting.due for waiting in self._waiting.values()]
        if (specs := self._spec_requests.next_deadline()) is not None:
            due.append(specs)
        return min(due) if due else None

    def check(self, now: UnixSeconds) -> None:
        """Bid on jobs that have waited long enough, and stop inspections that take too long."""
        self._spec_requests.check(now)
        for key, waiting in list(self._waiting.items()):
            if waiting.due > now:
                continue
            self._drop(key)
            with self._ledger.isolated(f"announcement of {waiting.message.job_id}"):
                self._take_up(waiting, now)

    def _take_up(self, waiting: ConsideredJob, now: UnixSeconds) -> None:
        if waiting.findings is not None:
            self._answer(waiting, waiting.findings, now)
        else:
            reason = f"could not inspect the job within {INSPECTION_TIMEOUT:g} s"
            self._decline(waiting, reason, busy=True, now=now)

    def _drop(self, key: Key, *, inspected: bool = False) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return
        self._ledger.held_jobs.drop(*key)
        if waiting.findings is not None:
            return
        if not inspected:
            self._ledger.actions.append(ev.StopInspection(*key))
        if waiting.late:
            self._ledger.capacity.has_released = True  # what it might have taken

    # --- decisions --------------------------------------------------------------------------

    def _consider(self, job: ConsideredJob, now: UnixSeconds) -> None:
        message, assessment = job.message, job.assessment
        if assessment.ineligibility is not None:
            self._decline(job, assessment.ineligibility, busy=False, now=now)
            return
        if assessment.shortage is not None:
            self._decline(job, assessment.shortage, busy=True, now=now)
            return
        if self._ledger.unused_bids.pauses(job.author, now):
            self._decline(job, PAUSES, busy=True, now=now)
            return
        if not self._ledger.held_jobs.has_room_for(*job.key, message.spec):
            self._decline(job, "holds too many jobs", busy=True, now=now)
            return
        if message.chance < 1.0:
            job.bid_at += bid_delay(load=self._ledger.capacity.load, random=self._rng.random())
        elif message.spec.is_ops:
            job.bid_at += spread(message.eligible) * self._rng.random()
        job.findings, job.due = NOTHING_FOUND, job.bid_at
        if assessment.needs_inspection:
            job.findings = self._recent_findings.recall(*job.key, message.spec, now)
        if job.findings is None:
            self._inspect(job, now)
        elif job.bid_at > now:
            self._wait(job)
        else:
            self._bid(job, job.findings, now)

    def _wait(self, job: ConsideredJob) -> None:
        self._waiting[job.key] = job
        self._ledger.held_jobs.hold(*job.key, job.message.spec)

    def _inspect(self, job: ConsideredJob, now: UnixSeconds) -> None:
        """Inspect the job, if there is room for it at all."""
        author, message = job.author, job.message
        if not self._room.has_room_for(job, now):
            return
        job.due = now + INSPECTION_TIMEOUT
        self._wait(job)
        self._ledger.actions.append(ev.LearnAddresses(author, message.addresses))
        inspect = ev.Inspect(author, message.job_id, message.spec, message.only_if_local)
        self._ledger.actions.append(inspect)

    def _answer(self, job: ConsideredJob, findings: Findings, now: UnixSeconds) -> None:
        """Decline the job or bid on it, as the findings say."""
        if findings.refusal is not None:
            self._decline(job, findings.refusal, busy=False, now=now)
        elif findings.shortage is not None:
            self._decline(job, findings.shortage, busy=True, now=now)
        else:
            self._bid(job, findings, now)

    def _bid(self, job: ConsideredJob, findings: Findings, now: UnixSeconds) -> None:
        """Bid on the job: once, or if it is divided as often as it asks for and there is room."""
        if not self._room.has_room_for(job, now):
            return
        wanted, ids = max(1, job.message.bids_each), list[ExecutionID]()
        while len(ids) < wanted and (not ids or self._may_bid_again(job, now)):
            ids.append(next(self._execution_ids))
            self._ledger.capacity.reserve(ids[-1], job.author, job.needs)
        outlives_node = job.assessment.outlives_node
        for number, execution_id in enumerate(ids, 1):
            more = len(ids) - number
            bid = transitions.BidPlaced(job.author, job.message, findings, outlives_node, job.late, more)
            transitions.begin(self._ledger, execution_id, bid, now)
        if len(ids) < wanted:
            self._missed.remember(job, now)

    def _may_bid_again(self, job: ConsideredJob, now: UnixSeconds) -> bool:
        return self._ledger.unfinished < MAX_UNFINISHED and self._room.has_more_room_for(job, now)

    def _decline(self, job: ConsideredJob, reason: str, *, busy: bool, now: UnixSeconds) -> None:
        self._ledger.decline(job.author, job.message, reason, busy=busy, now=now)
