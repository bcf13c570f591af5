"""Rounds of bids: a job with an open slot is announced, bids come in, and the best are accepted.

Pure, like the machine whose part it is. `docs/bprotocol.md` has what is said.
"""

from __future__ import annotations

from collections.abc import Callable

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.ledger import Ledger
from bacalhau_p2p.requester.liveness import Liveness
from bacalhau_p2p.requester.ranking import RankedBid, ineligibility_reason, rank
from bacalhau_p2p.requester.record import BidTerms, JobEntry, Slot

S = ExecutionState

FIRST_WINDOW = 0.3
"""Seconds that the first round of bids is open at most, where answers are quick; doubles each round."""
LONGEST_FIRST_WINDOW = 2.0
"""The same where answers have lately taken long, because machines are busy or the network is slow."""
LONGEST_WINDOW = 30.0
REANNOUNCE_AFTER_NEWS = 0.5
"""Seconds from the news of a new or freer node to the next round, so that news is taken together."""
ANNOUNCED_APART = 0.05
"""Seconds between the jobs that such news concerns, so that the more urgent find the room first."""
BIDS_PER_SLOT = 3
BIDS_A_NODE = 30
"""Bids of one node on one job that are recorded; a node that bids on and on fills no memory."""
ANSWERS_WANTED_UP_TO = 30
"""Eligible nodes up to which everybody is asked to answer; more would be a flood."""


class Pace:
    """How long the answers to announcements have taken lately.

    A smoothed average and its deviation, weighted as TCP does for its retransmissions, and doubled while
    nobody answers (RFC 6298): one node that is slow once changes little, and a burst on a busy machine is
    noticed within it.
    """

    def __init__(self) -> None:
        self._average = self._deviation = 0.0
        self._patience = 1.0

    def answered_after(self, seconds: float) -> None:
        """A node answered a round so long after it began."""
        self._patience = 1.0
        took = min(max(seconds, 0.0), LONGEST_FIRST_WINDOW)
        if not self._average:
            self._average, self._deviation = took, took / 2
        else:
            self._deviation += (abs(took - self._average) - self._deviation) / 4
            self._average += (took - self._average) / 8

    def nobody_answered(self) -> None:
        """A round is over, and of the nodes that should have answered none did."""
        self._patience = min(2 * self._patience, LONGEST_FIRST_WINDOW / FIRST_WINDOW)

    @property
    def first_window(self) -> float:
        """Seconds in which nearly all answers to a first round come."""
        expected = max(self._average + 4 * self._deviation, FIRST_WINDOW) * self._patience
        return min(expected, LONGEST_FIRST_WINDOW)


class Rounds:
    """Begins and ends the rounds of every job. `rng` gives numbers from 0 to 1."""

    def __init__(
        self,
        ledger: Ledger,
        liveness: Liveness,
        *,
        addresses: Callable[[], tuple[str, ...]],
        rng: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._liveness = liveness
        self._addresses = addresses
        self._rng = rng
        self._pace = Pace()

    def begin(self, entry: JobEntry, now: UnixSeconds) -> None:
        """Announce a job with an open slot."""
        spec, current = entry.job.spec, entry.round
        current.number += 1
        current.began_before, current.began = current.began, now
        current.ends = now + self._window(current.number)
        current.next_at = None
        current.answered = set()
        if entry.open_since is None:
            entry.open_since = now
        current.eligible = eligible = self._liveness.eligible(entry)
        self._ledger.out.append(
            ev.Broadcast(
                say.JobAnnounced(
                    job_id=entry.job.id,
                    spec=spec,
                    addresses=self._addresses(),
                    bids_wanted=self._bids_wanted(entry),
                    round=current.number,
                    eligible=len(eligible),
                    answers_wanted=len(eligible) <= ANSWERS_WANTED_UP_TO,
                    deadline=entry.ends,
                )
            )
        )

    def look_at_clock(self, entry: JobEntry, now: UnixSeconds) -> None:
        """End the round, or begin the next one, if it is time.

        Answers to other jobs may have shown meanwhile that those to this one take longer than was thought.
        """
        current = entry.round
        if current.ends is not None and now >= current.ends:
            answers_by = current.began + self._window(current.number)
            if now < answers_by:
                current.ends = answers_by
                return
            if not current.answered and self._silent(entry):
                self._pace.nobody_answered()
            self.maybe_end(entry, now)
        elif current.next_at is not None and now >= current.next_at:
            answers_by = current.began + self._pace.first_window
            if now < answers_by and self._silent(entry):
                current.next_at = answers_by
            else:
                self.begin(entry, now)

    def _window(self, number: int) -> float:
        """Seconds for which the round of this number is open at most."""
        doubled = FIRST_WINDOW * 2.0 ** min(number - 1, 10)
        return min(max(doubled, self._pace.first_window), LONGEST_WINDOW)

    def _note_pace(self, entry: JobEntry, number: int, now: UnixSeconds) -> None:
        """Somebody answered this round."""
        current = entry.round
        if number == current.number:
            self._pace.answered_after(now - current.began)
        elif number == current.number - 1:
            self._pace.answered_after(now - current.began_before)

    def bring_forward(self, info: NodeInfo, now: UnixSeconds) -> list[JobEntry]:
        """Plan the next rounds of jobs that wait for a node like this one, which has room: soon, the most
        urgent first. Returns those jobs."""
        waiting = [entry for entry in self._ledger.jobs.values() if entry.round.next_at is not None]
        waiting.sort(key=lambda entry: (-entry.job.spec.priority, entry.job.created, entry.job.id))
        soon = now + REANNOUNCE_AFTER_NEWS
        concerned = [entry for entry in waiting if ineligibility_reason(info, entry.job.spec) is None]
        for entry in concerned:
            entry.round.next_at = min(entry.round.next_at or soon, soon)
            soon += ANNOUNCED_APART
        return concerned

    def _bids_wanted(self, entry: JobEntry) -> int:
        missing = len(entry.open_slots) - len(entry.in_state(S.BID_RECEIVED))
        return max(1, missing * BIDS_PER_SLOT, entry.job.spec.min_bids)

    def bid(self, entry: JobEntry | None, author: PeerID, bid: say.Bid, now: UnixSeconds) -> bool:
        """Take in a bid, or refuse it. False: it was known, or its id is of another execution."""
        refusal = None
        if entry is None or entry.job.state.terminal:
            refusal = "the job is over"
        elif bid.execution_id in self._ledger.job_of:
            # A repeat, or an id that somebody else minted: heartbeats are told apart by it.
            return False
        elif author in entry.busy_nodes():
            refusal = "this node has a part in the job already"
        elif not entry.open_slots:
            refusal = "enough other nodes bid"
        elif sum(e.node_id == author for e in entry.executions.values()) >= BIDS_A_NODE:
            refusal = "this node has bid too often"
        if entry is not None:
            self._note_pace(entry, bid.round, now)
        if entry is None or refusal is not None:
            self._ledger.out.append(
                ev.Send(
                    author,
                    say.BidRejected(job_id=bid.job_id, execution_id=bid.execution_id, reason=refusal or ""),
                    now + bid.reserved_for,
                )
            )
            return True
        execution = Execution(
            id=bid.execution_id,
            job_id=entry.job.id,
            node_id=author,
            state=S.BID_RECEIVED,
            created=now,
            modified=now,
            outlives_node=bid.outlives_node,
            input_bytes=bid.input_bytes,
            local_input_bytes=min(bid.local_input_bytes, bid.input_bytes),
        )
        entry.executions[execution.id] = execution
        entry.bids[execution.id] = BidTerms(load=bid.load, expires=now + bid.reserved_for)
        entry.declined.pop(author, None)
        # Not stored: a bid that a crash forgets expires on its node, and is made again.
        self._ledger.job_of[execution.id] = entry.job.id
        if entry.round.ends is None:  # a late bid while slots wait is as good as any
            entry.round.ends = now
            entry.round.next_at = None
        if bid.round == entry.round.number:
            entry.round.answered.add(author)
        self.maybe_end(entry, now)
        return True

    def declined(self, entry: JobEntry, author: PeerID, message: say.BidDeclined, now: UnixSeconds) -> None:
        """A node that is not to be waited for in this round."""
        if entry.job.state.terminal or author not in self._liveness.nodes:
            return
        entry.declined[author] = message.reason
        self._note_pace(entry, message.round, now)
        if message.round == entry.round.number and entry.round.ends is not None:
            entry.round.answered.add(author)
            self.maybe_end(entry, now)

    def maybe_end(self, entry: JobEntry, now: UnixSeconds) -> None:
        """End the round early when nothing more is to be expected of it."""
        ends = entry.round.ends
        if ends is None or entry.job.state.terminal:
            return
        bids = entry.in_state(S.BID_RECEIVED)
        enough = len(bids) >= max(BIDS_PER_SLOT * len(entry.open_slots), entry.job.spec.min_bids)
        everybody = not self._silent(entry) and bool(bids or entry.round.answered)
        if enough or everybody or ends <= now:
            self._end(entry, now, everybody_answered=everybody)

    def _silent(self, entry: JobEntry) -> set[PeerID]:
        """Nodes from which an answer to this round may still come."""
        current = entry.round
        return current.eligible - current.answered - entry.busy_nodes() - self._liveness.broken.keys()

    def _end(self, entry: JobEntry, now: UnixSeconds, *, everybody_answered: bool) -> None:
        entry.round.ends = None
        received = entry.in_state(S.BID_RECEIVED)
        placed = any(slot.attempts for slot in entry.slots)
        if placed or len(received) >= entry.job.spec.min_bids:
            ranked = rank(
                (RankedBid(e.id, e.node_id, entry.bids[e.id].load, e.local_input_bytes) for e in received),
                tried=entry.troubled.keys(),
                rng=self._rng,
            )
            for slot, bid in zip(entry.open_slots, ranked, strict=False):
                self._accept(entry, slot, entry.executions[bid.execution_id], now)
        if entry.open_slots:
            self._wait(entry, now)
            return
        entry.open_since = None
        for execution in entry.in_state(S.BID_RECEIVED):
            self.reject(entry, execution, "other bids were better", now)
        if not everybody_answered:
            self._ledger.out.append(ev.Broadcast(say.JobClosed(job_id=entry.job.id, reason="placed")))

    def _accept(self, entry: JobEntry, slot: Slot, execution: Execution, now: UnixSeconds) -> None:
        slot.execution = execution.id
        slot.attempts += 1
        entry.heard[execution.id] = now
        execution = execution.replace(slot=slot.number)
        self._ledger.move(entry, execution, S.BID_ACCEPTED, "accepted; preparing", now)
        self._ledger.send(execution, say.BidAccepted, now, repeat_for=entry.bids[execution.id].expires - now)
        if entry.job.state in (JobState.PENDING, JobState.QUEUED):
            self._ledger.set_job(entry, JobState.RUNNING, "", now)

    def reject(self, entry: JobEntry, execution: Execution, reason: str, now: UnixSeconds) -> None:
        self._ledger.move(entry, execution, S.BID_REJECTED, reason, now)
        self._ledger.send(execution, say.BidRejected, now, repeat_for=60.0, reason=reason)

    def _wait(self, entry: JobEntry, now: UnixSeconds) -> None:
        """Some slot stays open: plan the next round, and say what the job waits for."""
        wait = min(FIRST_WINDOW * 2 ** min(entry.round.number, 10), LONGEST_WINDOW)
        entry.round.next_at = now + wait * (0.75 + self._rng() / 2)
        filled = len(entry.slots) - len(entry.open_slots)
        state = JobState.QUEUED if filled == 0 else JobState.RUNNING
        need = f"{filled} of {len(entry.slots)} executions placed; " if filled else ""
        self._ledger.set_job(entry, state, f"{need}waiting for a node: {self.why_nobody(entry)}", now)

    def why_nobody(self, entry: JobEntry) -> str:
        """What keeps each compute node from taking the job, for its user to read."""
        spec = entry.job.spec
        reasons: dict[str, list[str]] = {}
        for peer, info in self._liveness.nodes.items():
            if info.compute is None:
                continue
            reason = ineligibility_reason(info, spec) or entry.declined.get(peer) or entry.troubled.get(peer)
            if peer in self._liveness.broken:
                reason = reason or "cannot be reached"
            if reason is None and peer in entry.busy_nodes():
                reason = "has a part in the job already"
            reasons.setdefault(reason or "did not answer", []).append(peer[-8:])
        if not reasons:
            return "no compute node is known"
        return "; ".join(f"{', '.join(sorted(peers))} {reason}" for reason, peers in sorted(reasons.items()))
