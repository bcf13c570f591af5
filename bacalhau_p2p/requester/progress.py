"""What follows for a job from the states of its executions: another round, verification, or its end."""

from __future__ import annotations

from bacalhau_p2p.model.base import UnixSeconds
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester import execution_transitions as executions
from bacalhau_p2p.requester import job_transitions as jobs
from bacalhau_p2p.requester.groups import CONFIRMED, GONE, MAX_ATTEMPTS, Slot
from bacalhau_p2p.requester.ledger import Ledger
from bacalhau_p2p.requester.liveness import Liveness
from bacalhau_p2p.requester.ops_nodes import give_up_absent, outcome
from bacalhau_p2p.requester.record import JobEntry
from bacalhau_p2p.requester.rounds import Rounds
from bacalhau_p2p.requester.waiting import reasons_to_wait
from bacalhau_p2p.verifiers.interface import Verdict

S = ExecutionState


class Progress:
    """Moves jobs on. Call `advance` whenever an execution of a job has changed."""

    def __init__(self, ledger: Ledger, rounds: Rounds, liveness: Liveness) -> None:
        self._ledger = ledger
        self._rounds = rounds
        self._liveness = liveness

    def advance(self, entry: JobEntry, now: UnixSeconds) -> None:
        """Do what follows from the states of the job's executions."""
        if entry.job.state.terminal:
            return
        if (hopeless := _hopeless(entry)) is not None:
            jobs.move(self._ledger, entry, hopeless, now)
            return
        for group in sorted(entry.placement.groups.to_reopen):
            _reopen(entry, group)
        if entry.is_open and entry.round.ends is None and entry.round.next_at is None:
            self._tell_of_retry(entry, now)
            self._rounds.begin_or_wait(entry, now)
        for group in entry.groups_to_judge():
            self._verify(entry, group)
        if not (entry.placement.open or entry.placement.active):
            self._complete(entry, now)

    def _tell_of_retry(self, entry: JobEntry, now: UnixSeconds) -> None:
        if not entry.failures:
            return
        attempt = max(slot.attempts for slot in entry.open_slots) + 1
        pause = f" in {entry.retry_at - now:.0f} s" if entry.retry_at > now else ""
        text = f"attempt {attempt} of {MAX_ATTEMPTS}{pause}, because of: {list(entry.failures.values())[-1]}"
        self._ledger.tell(entry, EventKind.RETRIED, text, now)

    def check_timeouts(self, entry: JobEntry, now: UnixSeconds) -> None:
        """End the job if its queue timeout or its total timeout has passed."""
        spec = entry.job.spec
        if now >= entry.deadline:
            message = f"total timeout of {spec.total_timeout:g} s exceeded"
            if entry.job.message:
                message += f": {entry.job.message}"
            jobs.move(self._ledger, entry, jobs.TotalTimedOut(message=message), now)
        elif entry.ops:
            give_up_absent(self._ledger, entry, self._liveness, now)
        elif entry.open_since is not None and now >= entry.open_since + spec.queue_timeout:
            if entry.divided and self._waits_for_its_own(entry, now):
                return
            message = (
                f"no node for {len(entry.placement.open)} of {len(entry.slots)} executions within the queue "
                f"timeout of {spec.queue_timeout:g} s: {reasons_to_wait(entry, self._liveness)}"
            )
            jobs.move(self._ledger, entry, jobs.QueueTimedOut(message=message), now)

    def _waits_for_its_own(self, entry: JobEntry, now: UnixSeconds) -> bool:
        """Whether partitions wait while others of the same job run: then their time begins anew."""
        if entry.placement.active:
            entry.open_since = now
        else:
            ended = [each.modified for each in entry.placed_executions()]
            entry.open_since = max([entry.open_since or now, *ended])
        return now < entry.open_since + entry.job.spec.queue_timeout

    # --- verification -----------------------------------------------------------------------

    def _verify(self, entry: JobEntry, group: int) -> None:
        """Ask the verifier about a group: each of its slots has a proposal."""
        entry.placement.groups.ask(group)
        filling = entry.placement.filling(entry.slots_of(group))
        # A slot that was refilled late is judged together with those accepted before.
        judged = CONFIRMED | {S.RESULT_PROPOSED}
        proposals = tuple(e.proposal for e in filling if e.state in judged and e.proposal is not None)
        self._ledger.actions.append(ev.Verify(entry.job.id, entry.job.spec, proposals, group))

    def _complete(self, entry: JobEntry, now: UnixSeconds) -> None:
        """Every slot is filled, and no execution is active: end the job."""
        filling = entry.placed_executions()
        completed = sum(e.state == S.COMPLETED for e in filling)
        if entry.ops:
            jobs.move(self._ledger, entry, outcome(entry, completed), now)
        elif completed:
            rejected = sum(e.state == S.RESULT_REJECTED for e in filling)
            note = f"; {rejected} of {len(filling)} results rejected" if rejected else ""
            what = f" of {entry.job.spec.partitions} partitions" if entry.divided else ""
            message = f"{completed} result{'s'[: completed > 1]}{what} published{note}"
            jobs.move(self._ledger, entry, jobs.ResultsPublished(message=message), now)

    def apply_verdict(self, entry: JobEntry, group: int, verdict: Verdict, now: UnixSeconds) -> None:
        """Accept and reject the results of a group that were judged; a job fails without one that was
        accepted, unless it is an ops job, whose other nodes go on."""
        entry.placement.groups.answered(group)
        for execution in entry.placement.filling(entry.slots_of(group)):
            if execution.state is not S.RESULT_PROPOSED:
                continue
            if execution.id in verdict.accepted:
                code = execution.proposal.output.exit_code if execution.proposal is not None else None
                accepted = executions.VerdictAccepted(exit_code=code)
                executions.move(self._ledger, entry, execution, accepted, now)
            elif execution.id in verdict.rejected:
                rejected = executions.VerdictRejected(message=verdict.reason or "rejected by the verifier")
                executions.move(self._ledger, entry, execution, rejected, now)
        if not verdict.accepted and not entry.ops:
            message = _of_partition(entry, group) + (verdict.reason or "no result was accepted")
            jobs.move(self._ledger, entry, jobs.ResultsRejected(message=message), now)

    def fail_verification(self, entry: JobEntry, reason: str, now: UnixSeconds) -> None:
        """Fail the job, because the verifier could not judge its results."""
        failed = jobs.VerificationFailed(message=f"the verifier failed: {reason}")
        jobs.move(self._ledger, entry, failed, now)


def _hopeless(entry: JobEntry) -> jobs.JobEvent | None:
    """Why the job cannot succeed any more, or None if it can."""
    if entry.ops:
        return None
    # One node's report that no node can run the job ends it. If the results of several nodes are compared,
    # no single node is trusted: then a second one must agree.
    witnesses = min(2, entry.job.spec.group_size) if entry.job.spec.deterministic else 1
    if len(entry.permanent_failures) >= witnesses:
        return jobs.JobImpossible(message=entry.failures[min(entry.permanent_failures)])
    if entry.placement.exhausted:
        slot = entry.slots[min(entry.placement.exhausted)]
        last = _of_partition(entry, slot.group) + _last_failure(entry, slot)
        return jobs.AttemptsExhausted(message=f"{last} (attempt {slot.attempts} of {MAX_ATTEMPTS})")
    return None


def _last_failure(entry: JobEntry, slot: Slot) -> str:
    """Why the latest execution in a slot failed."""
    of_slot = (each for each in entry.executions.values() if each.slot == slot.number and each.state in GONE)
    last = max(of_slot, key=lambda each: each.modified, default=None)
    return last.message.partition("\n")[0] if last is not None else list(entry.failures.values())[-1]


def _of_partition(entry: JobEntry, group: int) -> str:
    """Which partition of a job that is divided a message is about."""
    return f"partition {group} of {entry.job.spec.partitions}: " if entry.divided else ""


def _reopen(entry: JobEntry, group: int) -> None:
    """Open the slots of a group whose executions are gone: no node is left that publishes their result."""
    for slot in entry.slots_of(group):
        if slot.execution is not None and entry.executions[slot.execution].state in GONE:
            entry.placement.reopen(slot)
