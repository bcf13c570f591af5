"""What follows for a job from the states of its executions: another round, verification, or its end."""

from __future__ import annotations

from bacalhau_p2p.model.base import UnixSeconds
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester import execution_transitions as executions
from bacalhau_p2p.requester import job_transitions as jobs
from bacalhau_p2p.requester.ledger import Ledger
from bacalhau_p2p.requester.record import GONE, JobEntry
from bacalhau_p2p.requester.rounds import Rounds
from bacalhau_p2p.verifiers.interface import Verdict

S = ExecutionState

MAX_ATTEMPTS = 3
"""Executions that may fill a slot, one after the other."""


class Progress:
    """Moves jobs on. Call `advance` whenever an execution of a job has changed."""

    def __init__(self, ledger: Ledger, rounds: Rounds) -> None:
        self._ledger = ledger
        self._rounds = rounds

    def advance(self, entry: JobEntry, now: UnixSeconds) -> None:
        """Do what follows from the states of the job's executions."""
        if entry.job.state.terminal:
            return
        if (hopeless := _hopeless(entry)) is not None:
            jobs.move(self._ledger, entry, hopeless, now)
            return
        _reopen_if_unpublished(entry)
        if entry.open_slots:
            if entry.round.ends is None and entry.round.next_at is None:
                self._tell_of_retry(entry, now)
                self._rounds.begin_or_wait(entry, now)
        else:
            self._verify_or_complete(entry, now)

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
        elif entry.open_since is not None and now >= entry.open_since + spec.queue_timeout:
            message = (
                f"no node for {len(entry.open_slots)} of {len(entry.slots)} executions within the queue "
                f"timeout of {spec.queue_timeout:g} s: {self._rounds.reasons_to_wait(entry)}"
            )
            jobs.move(self._ledger, entry, jobs.QueueTimedOut(message=message), now)

    # --- verification -----------------------------------------------------------------------

    def _verify_or_complete(self, entry: JobEntry, now: UnixSeconds) -> None:
        """Every slot is filled: ask the verifier once all have proposed, complete once all have settled."""
        filling = entry.placed_executions()
        if any(e.state == S.RESULT_PROPOSED for e in filling):
            if not entry.verifying and not any(e.state == S.BID_ACCEPTED for e in filling):
                entry.verifying = True
                # A slot that was refilled late is judged together with those accepted before.
                judged = (S.RESULT_PROPOSED, S.RESULT_ACCEPTED, S.COMPLETED)
                proposals = tuple(e.proposal for e in filling if e.state in judged and e.proposal is not None)
                self._ledger.actions.append(ev.Verify(entry.job.id, entry.job.spec, proposals))
            return
        completed = sum(e.state == S.COMPLETED for e in filling)
        if completed and all(e.state.terminal for e in filling):
            rejected = sum(e.state == S.RESULT_REJECTED for e in filling)
            note = f"; {rejected} of {len(filling)} results rejected" if rejected else ""
            message = f"{completed} result{'s'[: completed > 1]} published{note}"
            jobs.move(self._ledger, entry, jobs.ResultsPublished(message=message), now)

    def apply_verdict(self, entry: JobEntry, verdict: Verdict, now: UnixSeconds) -> None:
        """Accept and reject the results that were judged; a job without an accepted result fails."""
        entry.verifying = False
        for execution in entry.in_state(S.RESULT_PROPOSED):
            if execution.id in verdict.accepted:
                executions.move(self._ledger, entry, execution, executions.VerdictAccepted(), now)
            elif execution.id in verdict.rejected:
                rejected = executions.VerdictRejected(message=verdict.reason or "rejected by the verifier")
                executions.move(self._ledger, entry, execution, rejected, now)
        if not verdict.accepted:
            message = verdict.reason or "no result was accepted"
            jobs.move(self._ledger, entry, jobs.ResultsRejected(message=message), now)

    def fail_verification(self, entry: JobEntry, reason: str, now: UnixSeconds) -> None:
        """Fail the job, because the verifier could not judge its results."""
        failed = jobs.VerificationFailed(message=f"the verifier failed: {reason}")
        jobs.move(self._ledger, entry, failed, now)


def _hopeless(entry: JobEntry) -> jobs.JobEvent | None:
    """Why the job cannot succeed any more, or None if it can."""
    # One node's report that no node can run the job ends it. If the results of several nodes are compared,
    # no single node is trusted: then a second one must agree.
    witnesses = min(2, len(entry.slots)) if entry.job.spec.deterministic else 1
    if len(entry.permanent_failures) >= witnesses:
        return jobs.JobImpossible(message=entry.failures[min(entry.permanent_failures)])
    for slot in entry.open_slots:
        if slot.attempts >= MAX_ATTEMPTS:
            last = list(entry.failures.values())[-1]
            return jobs.AttemptsExhausted(message=f"{last} (attempt {slot.attempts} of {MAX_ATTEMPTS})")
    return None


def _reopen_if_unpublished(entry: JobEntry) -> None:
    """Open the slots of executions that are gone, if no node is left that publishes their result."""
    filling = entry.placed_executions()
    if any(e.state in (S.RESULT_ACCEPTED, S.COMPLETED) for e in filling):
        return
    for execution in filling:
        if execution.state in GONE and (slot := entry.slot_of(execution.id)) is not None:
            slot.execution = None
