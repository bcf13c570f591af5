"""Rounds of bids: a job with an open slot is announced, bids come in, and the best are accepted.

Pure, as a part of the requester's machine. `docs/bprotocol.md` has the messages.
"""

from __future__ import annotations

from collections.abc import Set
from math import inf

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.draw import spread
from bacalhau_p2p.components.protocol import Random
from bacalhau_p2p.components.undo import UndoableDict, UndoableSet
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester import execution_transitions as executions
from bacalhau_p2p.requester import job_transitions as jobs
from bacalhau_p2p.requester.bids import (
    are_enough,
    bids_wanted,
    chosen_last,
    could_fill,
    end_round,
    hold_until,
    offers,
    refusal_of,
)
from bacalhau_p2p.requester.invitations import Invitations
from bacalhau_p2p.requester.ledger import Ledger
from bacalhau_p2p.requester.liveness import Liveness
from bacalhau_p2p.requester.ops_nodes import is_waited_for, slot_for
from bacalhau_p2p.requester.pace import FIRST_WINDOW, LONGEST_WINDOW, Pace
from bacalhau_p2p.requester.penalties import Penalties
from bacalhau_p2p.requester.ranking import ineligibility_reason, rank
from bacalhau_p2p.requester.record import JobEntry, Round
from bacalhau_p2p.requester.slots import assign
from bacalhau_p2p.requester.waiting import reasons_to_wait

S = ExecutionState

REANNOUNCE_AFTER_NEWS = 0.5
"""Seconds from the news that a node is new or offers other things to the next round, so that one round
serves several such nodes."""
ANNOUNCEMENT_SPACING = 0.05
"""Seconds between the announcements of waiting jobs after such news, so that the most urgent come first."""
INSPECTION_PATIENCE = 4.0
"""Seconds for which nodes may fetch a large spec and inspect inputs before others are asked, too."""


class Rounds:
    """Begins and ends the rounds of every job."""

    def __init__(
        self,
        ledger: Ledger,
        liveness: Liveness,
        invitations: Invitations,
        penalties: Penalties,
        *,
        rng: Random,
    ) -> None:
        self._ledger = ledger
        self._liveness = liveness
        self._invitations = invitations
        self._penalties = penalties
        self._rng = rng
        self._pace = Pace()

    # --- beginning and end ------------------------------------------------------------------

    def begin(self, entry: JobEntry, now: UnixSeconds) -> None:
        """Announce a job with an open slot."""
        current = entry.round
        if _takes_time(entry):  # who inspects a job had no time to answer before
            self._note_silence(entry, now)
        current.number += 1
        current.previous_began, current.began = current.began, now
        current.next_at = current.planned = None
        current.late = current.short = False
        current.ends_by = min((hold_until(entry, e) for e in entry.received_bids()), default=inf)
        current.answered, current.given, current.closed = UndoableSet(), UndoableDict(), False
        entry.note_open(now)
        self._invitations.send(entry, bids_wanted(entry), now)
        current.ends = now + self._window(entry)
        self._ledger.tell(entry, EventKind.ANNOUNCED, _announced(current), now)

    def _window(self, entry: JobEntry) -> float:
        """Seconds that the present round is open at most. Bids on an ops job are spread."""
        if entry.round.short:
            return self._pace.first_window
        spread_over = spread(entry.round.asked.eligible) if entry.ops else 0.0
        return self._pace.window(entry.round.number) + spread_over

    def begin_or_wait(self, entry: JobEntry, now: UnixSeconds) -> None:
        """Begin a round; after a failure a little later, so that no fault uses up all attempts at once."""
        if now >= entry.retry_at:
            self.begin(entry, now)
            return
        entry.round.next_at = entry.retry_at
        entry.note_open(now)

    def check(self, entry: JobEntry, now: UnixSeconds) -> None:
        """End the round, or begin the next one, if it is time.

        Answers to other jobs may have shown by now that answers take longer than expected.
        """
        current = entry.round
        if current.ends is not None and now >= current.ends:
            answers_by = min(current.began + self._window(entry), current.ends_by)
            if now < answers_by:
                current.ends = answers_by
                return
            if not current.answered and self._silent(entry):
                self._pace.nobody_answered()
            self._note_silence(entry, now)
            self.end_if_complete(entry, now)
        elif current.next_at is not None and now >= current.next_at:
            answers_by = current.began + self._pace.first_window
            if now < answers_by and self._silent(entry):
                current.next_at = answers_by
            else:
                self.begin(entry, now)

    def end_if_complete(self, entry: JobEntry, now: UnixSeconds) -> None:
        """End the round if its time is up, or before if no better bid can come."""
        ends = entry.round.ends
        if ends is None or entry.job.state.terminal:
            return
        bids = len(entry.placement.bids)
        enough = end_round(entry, self._penalties, now)
        everybody = self._has_everybody_answered(entry) and bool(bids or entry.round.answered)
        if enough or everybody or ends <= now:
            self._end(entry, now, everybody_answered=everybody)

    def _end(self, entry: JobEntry, now: UnixSeconds, *, everybody_answered: bool) -> None:
        entry.round.ends = None
        received = entry.received_bids()
        placed = self._accept_best(entry, received, now) if are_enough(received, entry) else 0
        if entry.is_open:
            self._plan_next(entry, placed, now)
            self._release_bids(entry, placed, now)
            return
        entry.open_since, entry.round.widened = None, 0
        for execution in entry.received_bids():
            executions.move(self._ledger, entry, execution, executions.BidNotChosen(), now)
        answers_at_once = entry.round.answers_wanted and not _takes_time(entry)
        if entry.remembering or not (everybody_answered or answers_at_once):
            self._ledger.close(entry, "placed", now, all_answer=everybody_answered or answers_at_once)

    def _release_bids(self, entry: JobEntry, placed: int, now: UnixSeconds) -> None:
        """Reject bids that are too few for the job, or that fit no open slot, so that no room is held until
        others come."""
        left = entry.received_bids()
        message = f"only {len(left)} of {entry.job.spec.min_bids} bids came in one round"
        if placed:
            message = "the node has a part in each partition that is open"
        for execution in left:
            executions.move(self._ledger, entry, execution, executions.BidNotChosen(message=message), now)

    def _accept_best(self, entry: JobEntry, received: list[Execution], now: UnixSeconds) -> int:
        """Accept the best bids, and return how many."""
        ranked = rank(offers(entry, received, self._penalties, now), rng=self._rng)
        chosen = assign(entry, ranked)
        for slot, bid in chosen:
            self._accept(entry, slot.number, entry.executions[bid.execution_id], now)
        return len(chosen)

    def _accept(self, entry: JobEntry, slot: int, execution: Execution, now: UnixSeconds) -> None:
        executions.move(self._ledger, entry, execution, executions.BidChosen(slot=slot), now)
        if entry.job.state != JobState.RUNNING:
            jobs.move(self._ledger, entry, jobs.SlotFilled(), now)

    def _plan_next(self, entry: JobEntry, placed: int, now: UnixSeconds) -> None:
        """A slot stays open: plan the next round, and say what the job waits for."""
        current = entry.round
        if current.late and current.planned is not None:
            current.next_at = max(current.planned, now)
        elif entry.divided and placed and not current.late:
            current.next_at = now  # the same nodes may have more room
        elif not (current.asked.everybody or entry.ops or self._has_each_declined(entry)):
            self._widen(entry, now)
        else:
            wait = min(FIRST_WINDOW * 2 ** min(current.number, 10), LONGEST_WINDOW)
            current.next_at = now + wait * (0.75 + self._rng.random() / 2)
        filled = len(entry.slots) - len(entry.placement.open)
        message = f"waiting for a node: {reasons_to_wait(entry, self._liveness)}"
        if filled and entry.job.state is JobState.RUNNING:
            message = f"{filled} of {len(entry.slots)} executions placed; {message}"
            jobs.move(self._ledger, entry, jobs.PartlyPlaced(message=message), now)
        else:
            jobs.move(self._ledger, entry, jobs.NothingPlaced(message=message), now)

    def _widen(self, entry: JobEntry, now: UnixSeconds) -> None:
        """Ask more nodes, at once unless those that were asked must look at more than the announcement."""
        current = entry.round
        current.widened += 1
        current.next_at = now
        if _takes_time(entry) and self._silent(entry):
            current.next_at = max(now, current.began + INSPECTION_PATIENCE)

    def bring_forward(self, info: NodeInfo, now: UnixSeconds) -> list[JobEntry]:
        """Plan an early next round for every waiting job that this node could run, the most urgent first.
        Returns these jobs."""
        waiting = [entry for entry in self._ledger.jobs.values() if entry.round.next_at is not None]
        waiting.sort(key=lambda entry: (-entry.job.spec.priority, entry.job.created, entry.job.id))
        soon = now + REANNOUNCE_AFTER_NEWS
        concerned = [entry for entry in waiting if _may_use(entry, info)]
        for entry in concerned:
            entry.round.next_at = min(entry.round.next_at or soon, soon)
            soon += ANNOUNCEMENT_SPACING
        return concerned

    # --- answers ----------------------------------------------------------------------------

    def bid(self, entry: JobEntry | None, author: PeerID, bid: say.Bid, now: UnixSeconds) -> None:
        """Record a bid, or refuse it."""
        ended = entry is None or entry.job.state.terminal
        if not ended and bid.execution_id in self._ledger.job_of:
            # A repetition, or the id of another node's execution, whose heartbeats are looked up by it.
            self._ledger.ignore(bid, "for a known execution")
            return
        if entry is not None:
            self._invitations.bid(entry, author, bid)
        if entry is not None and not bid.late:
            self._note_pace(entry, bid.round, now)
        if entry is None:
            self._ledger.ignore_unknown(bid, "job")
        refusal = (
            "the job has ended" if entry is None or ended else refusal_of(entry, author, self._penalties, now)
        )
        if entry is None or refusal is not None:
            rejected = say.BidRejected(job_id=bid.job_id, execution_id=bid.execution_id, reason=refusal or "")
            give_up_at = now + min(bid.reserved_for, executions.REPEAT_REJECTION_FOR)
            self._ledger.actions.append(ev.Send(author, rejected, give_up_at, durable=False))
            if entry is not None and not ended:
                self._ledger.tell(
                    entry,
                    EventKind.BID_REJECTED,
                    f"its bid was not needed: {refusal}",
                    now,
                    execution_id=bid.execution_id,
                    node_id=author,
                )
            return
        execution = executions.begin(self._ledger, entry, author, bid, now)
        current = entry.round
        if entry.ops:
            self._accept_on_its_node(entry, execution, bid, now)
            return
        current.ends_by = min(current.ends_by, hold_until(entry, execution))
        if current.ends is not None:
            current.ends = min(current.ends, current.ends_by)
            last = bid.late or chosen_last(entry, {author}, self._penalties, now)
            if last and could_fill(entry):  # others that had room have answered long ago
                current.short = True
                current.ends = min(current.ends, max(now, current.began + self._window(entry)))
        entry.declined.pop(author, None)
        if entry.divided:  # perhaps it had room for some of its bids only
            entry.remembering.add(author)
        else:
            entry.remembering.discard(author)
        if current.ends is None:  # between rounds, a late bid is as good as any
            enough = are_enough(entry.received_bids(), entry)
            current.ends = now if enough else min(now + self._pace.first_window, current.ends_by)
            current.late, current.planned, current.next_at = True, current.next_at, None
        if bid.round == entry.round.number and not bid.more:
            entry.round.answered.add(author)
        self.end_if_complete(entry, now)

    def _accept_on_its_node(
        self, entry: JobEntry, execution: Execution, bid: say.Bid, now: UnixSeconds
    ) -> None:
        """Accept a bid on an ops job at once: there is nothing to choose."""
        current = entry.round
        slot = slot_for(self._ledger, entry, execution.node_id)
        self._accept(entry, slot.number, execution, now)
        entry.declined.pop(execution.node_id, None)
        if bid.round == current.number:
            current.answered.add(execution.node_id)
        if not entry.is_open:
            current.ends, current.next_at = now, None
        self.end_if_complete(entry, now)

    def declined(self, entry: JobEntry, author: PeerID, message: say.BidDeclined, now: UnixSeconds) -> None:
        """Note that a node will not bid in this round."""
        if entry.job.state.terminal or author not in self._liveness.nodes:
            return
        if entry.declined.get(author) != message.reason:
            text = f"declined; {message.reason}"
            self._ledger.tell(entry, EventKind.DECLINED, text, now, node_id=author)
        entry.declined[author] = message.reason
        self._invitations.heard(author)
        self._note_pace(entry, message.round, now)
        current = entry.round
        if message.busy:
            entry.remembering.add(author)
        if entry.remembering and not entry.is_open:  # in vain
            self._ledger.close(entry, "placed", now, all_answer=True)
        if message.round != current.number:
            return
        current.answered.add(author)
        self.end_if_complete(entry, now)
        if entry.ops or current.asked.everybody or current.next_at is None:
            return
        if not self._silent(entry) and not self._has_each_declined(entry):
            current.next_at = min(current.next_at, now)  # nobody inspects it any more

    def _note_pace(self, entry: JobEntry, number: int, now: UnixSeconds) -> None:
        """Note how long a node took to answer the round of this number."""
        current = entry.round
        if number == current.number:
            self._pace.answered_after(now - current.began)
        elif number == current.number - 1:
            self._pace.answered_after(now - current.previous_began)

    def _silent(self, entry: JobEntry) -> Set[PeerID]:
        """Nodes from which an answer to this round may still come. Of those that are drawn most are not
        connected, and answer all the same."""
        current = entry.round
        silent = current.asked.nodes - current.answered - current.doubted - entry.placement.busy_nodes()
        return silent - self._liveness.disconnected_at.keys() if current.asked.chance == 1.0 else silent

    def _note_silence(self, entry: JobEntry, now: UnixSeconds) -> None:
        """Remember who was asked directly, and has not answered though there was time to."""
        current = entry.round
        patience = INSPECTION_PATIENCE if _takes_time(entry) else 0.0
        if current.asked.directly and not entry.ops and now >= current.began + patience:
            self._invitations.unanswered(self._silent(entry) | (current.doubted - current.answered), now)

    def _has_each_declined(self, entry: JobEntry) -> bool:
        """Whether each node that could run the job was asked directly, and has answered."""
        asked = entry.round.asked
        return asked.directly and len(asked.nodes) == asked.eligible and not self._silent(entry)

    def _has_everybody_answered(self, entry: JobEntry) -> bool:
        """Whether no answer to this round is still to be expected."""
        asked = entry.round.asked
        return not self._silent(entry) and (asked.chance == 1.0 or asked.others < 1)


def _announced(current: Round) -> str:
    """What the history tells of an announcement."""
    able = current.asked.eligible
    number = len(current.asked.nodes)
    asked = (
        f", and {number} are asked directly" if current.asked.directly else f", and about {number} are asked"
    )
    asked = "" if current.asked.everybody or number == able else asked
    return f"announced; round {current.number}: {able} node{'s'[: able != 1]} could run it{asked}"


def _may_use(entry: JobEntry, info: NodeInfo) -> bool:
    """Whether a job with an open slot could run on this node."""
    if entry.ops and entry.placement.seats and entry.is_open:
        return is_waited_for(entry, info.id)
    return ineligibility_reason(info, entry.job.spec) is None


def _takes_time(entry: JobEntry) -> bool:
    """Whether nodes must look at more than the announcement before they answer."""
    return bool(entry.job.spec.task.input_sources) or entry.large_spec is not None
