"""Faults put into the machines, the delivery and the plans of commits on purpose: a test of the simulator.

Each is a named patch that some world must notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import inf
from typing import Any

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol import proposals
from bacalhau_p2p.bprotocol.delivery import Delivery, Recognition
from bacalhau_p2p.components.commit_plan import (
    Acknowledge,
    Commit,
    CommitPlanner,
    Dispatch,
    Handled,
    Perform,
    PlanStep,
)
from bacalhau_p2p.components.protocol import MessageReceived, Send
from bacalhau_p2p.components.transitions import Row
from bacalhau_p2p.compute import events as cv
from bacalhau_p2p.compute import machine as compute
from bacalhau_p2p.compute import transitions as compute_transitions
from bacalhau_p2p.compute.capacity import Capacity
from bacalhau_p2p.compute.commands import Commands
from bacalhau_p2p.compute.machine import ComputeMachine
from bacalhau_p2p.compute.presence import Presence
from bacalhau_p2p.compute.supervision import Supervision as ComputeSupervision
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.requester import events as rv
from bacalhau_p2p.requester import execution_transitions as executions
from bacalhau_p2p.requester import machine as requester
from bacalhau_p2p.requester import progress, reports, rounds, supervision
from bacalhau_p2p.requester.groups import GONE
from bacalhau_p2p.requester.ledger import Ledger as RequesterLedger
from bacalhau_p2p.requester.liveness import Liveness
from bacalhau_p2p.requester.machine import RequesterMachine
from bacalhau_p2p.requester.penalties import Penalties
from bacalhau_p2p.requester.progress import Progress
from bacalhau_p2p.requester.record import JobEntry
from bacalhau_p2p.requester.rounds import Rounds
from bacalhau_p2p.requester.supervision import Supervision

Patch = tuple[Any, Any, Any]
"""An attribute of a class or module, or a key of a table, and what is put in its place."""


def _does_nothing(self: Any, *arguments: Any, **named: Any) -> None:
    return None


# --- plans of commits -------------------------------------------------------------------------


def _steps_changed(change: Callable[[list[PlanStep]], list[PlanStep]]) -> tuple[Patch, ...]:
    """Every plan is `change(plan)` instead."""

    def planned(self: CommitPlanner, handled: Iterable[Handled], now: float) -> list[PlanStep]:
        return change(_PLAN(self, handled, now))

    def flushed(self: CommitPlanner, now: float) -> list[PlanStep]:
        return change(_FLUSH(self, now))

    return (CommitPlanner, "plan", planned), (CommitPlanner, "flush", flushed)


def _commits_changed(change: Callable[[Commit], Iterable[Commit]]) -> tuple[Patch, ...]:
    """Every commit of a plan becomes `change(commit)`: other ones, or none."""

    def changed(steps: list[PlanStep]) -> list[PlanStep]:
        return [new for step in steps for new in (change(step) if isinstance(step, Commit) else (step,))]

    return _steps_changed(changed)


_PLAN, _FLUSH = CommitPlanner.plan, CommitPlanner.flush


def _commits_last(steps: list[PlanStep]) -> list[PlanStep]:
    return sorted(steps, key=lambda step: not isinstance(step, Dispatch | Perform))


def _acknowledges_first(self: CommitPlanner, handled: Sequence[Handled], now: float) -> list[PlanStep]:
    arrivals = [each.queued.arrival for each in handled if each.queued.arrival and each.queued.arrival.id]
    steps = [step for step in _PLAN(self, handled, now) if not isinstance(step, Acknowledge)]
    return [*map(Acknowledge, arrivals), *steps]


def _commits_nothing(self: CommitPlanner) -> Commit:
    """In place of the records before a step: they stay, and are committed with the next message."""
    return Commit(power_safe=False)


def _marks_then_effects(commit: Commit) -> Iterable[Commit]:
    return Commit(processed=commit.processed, power_safe=commit.power_safe), replace(commit, processed=())


# --- behaviours -------------------------------------------------------------------------------


def _always_new(self: Delivery, author: Any, message_id: Any) -> Recognition:
    return Recognition.NEW


_never_acknowledges = _does_nothing


def _believes_any_node(handle: Callable[..., Any]) -> Callable[..., Any]:
    def handled(self: RequesterMachine, event: MessageReceived, now: float) -> Any:
        execution_id: Any = getattr(event.message, "execution_id", None)
        entry = self.jobs.get(getattr(event.message, "job_id", None))  # type: ignore[arg-type]
        execution = entry.executions.get(execution_id) if entry else None
        if execution is not None and not isinstance(event.message, say.Bid):
            event = MessageReceived(execution.node_id, event.message)
        return handle(self, event, now)

    return handled


def _obeys_any_requester(self: Commands, author: Any, message: Any, now: float) -> None:
    execution = self._ledger.executions.get(message.execution_id)
    _TAKE(self, execution.requester_id if execution else author, message, now)


_TAKE = Commands.take


def _accepts_two_bids_a_slot(self: Rounds, entry: Any, slot: Any, execution: Any, now: float) -> None:
    _ACCEPT(self, entry, slot, execution, now)
    others = entry.received_bids()
    if others:
        _ACCEPT(self, entry, slot, others[0], now)


_ACCEPT = Rounds._accept


def _believes_any_root(proposal: Any, root: object) -> None:
    return None


def _believes_what_is_published(execution: Any, message: Any) -> executions.ExecutionEvent:
    return executions.Published(published=message.result)


def _takes_every_result(self: RequesterMachine, event: Any, now: float) -> None:
    verdict = event.verdict
    everybody = verdict.accepted | verdict.rejected
    changed = type(verdict)(accepted=everybody, rejected=frozenset(), reason="")
    _VERIFIED(self, type(event)(event.job_id, changed), now)


_VERIFIED = RequesterMachine._verified


def _resumes_without_heartbeat(self: ComputeMachine, event: Any, now: float) -> None:
    before = self._ledger.heartbeat_due
    _RESUMED(self, event, now)
    self._ledger.heartbeat_due = before


_RESUMED = ComputeMachine._resumed


def _sends_no_heartbeats(self: ComputeSupervision, now: float) -> None:
    self._ledger.heartbeat_due = now + compute_transitions.HEARTBEAT_INTERVAL


def _runs_again_on_resume(self: ComputeMachine, event: Any, now: float) -> None:
    _RESUMED(self, event, now)
    actions = self._ledger.actions
    actions[:] = [cv.Run(a.execution) if isinstance(a, cv.Reattach) else a for a in actions]


def _forgets_jobs_that_run(self: RequesterMachine, event: Any, now: float) -> None:
    if event.job.state == "Pending":
        _RESUMED_JOB(self, event, now)


_RESUMED_JOB = RequesterMachine._resumed


def _gives_up_containers(self: Liveness, entry: JobEntry, execution: Any) -> float:
    return _LOST_AT(self, entry, execution.replace(outlives_node=False))


_LOST_AT = Liveness.lost_at


def _forgets_what_outlives(self: RequesterMachine, event: Any, now: float) -> None:
    executions = tuple(execution.replace(outlives_node=False) for execution in event.executions)
    _RESUMED_JOB(self, replace(event, executions=executions), now)


def _forgets_attempts(self: RequesterMachine, event: Any, now: float) -> None:
    executions = tuple(e.replace(slot=None) if e.state in GONE else e for e in event.executions)
    _RESUMED_JOB(self, replace(event, executions=executions), now)


def _forgets_witnesses(self: RequesterMachine, event: Any, now: float) -> None:
    executions = tuple(execution.replace(permanent=False) for execution in event.executions)
    _RESUMED_JOB(self, replace(event, executions=executions), now)


def _forgets_what_it_told(self: RequesterMachine, event: Any, now: float) -> None:
    _RESUMED_JOB(self, replace(event, told=0), now)


def _tells_only_of_the_end(self: RequesterLedger, entry: Any, kind: Any, *about: Any, **more: Any) -> None:
    if not entry.job.state.terminal or kind is EventKind.ENDED:
        _TELL(self, entry, kind, *about, **more)


_TELL = RequesterLedger.tell


def _has_always_room(self: Capacity, amount: Any) -> bool:
    return True


def _steals_ids(self: Rounds, entry: Any, author: Any, bid: Any, now: float) -> None:
    if entry is not None and bid.execution_id not in entry.executions:
        self._ledger.job_of.pop(bid.execution_id, None)
    _BID(self, entry, author, bid, now)


_BID = Rounds.bid


def _announces_once(self: Rounds, entry: Any, placed: int, now: float) -> None:
    _PLAN_NEXT(self, entry, placed, now)
    entry.round.next_at = now + 1e6


def _hears_no_news(self: RequesterMachine, event: Any, now: float) -> None:
    self._liveness.update(event.info)


_PLAN_NEXT = Rounds._plan_next


def _has_no_end(self: Progress, entry: Any, now: float) -> None:
    entry.deadline = max(entry.deadline, now + 10.0)
    _CHECK_TIMEOUTS(self, entry, now)


_CHECK_TIMEOUTS = Progress.check_timeouts


def _repeats_at_once(self: Delivery, message: Any, now: float) -> None:
    message.wait = 0.02
    _SCHEDULE(self, message, now)


_SCHEDULE = Delivery._schedule


def _never_gives_up(self: Delivery, to: Any, envelope: Any, *, give_up_at: float, now: float) -> None:
    _POST(self, to, envelope, give_up_at=inf, now=now)


_POST = Delivery.post

_HANDLERS = requester._HANDLERS
_COMPUTE_HANDLERS = compute._HANDLERS


def _rows(
    table: dict[Any, Any], event: type | None, change: Callable[[Any, Row[Any, Any]], Row[Any, Any]]
) -> tuple[Patch, ...]:
    """The rows of this event, or of all events, changed."""
    return tuple(
        (table, key, change(key[0], row)) for key, row in table.items() if event is None or key[1] is event
    )


def _without(module: Any, action: Any, event: type | None = None) -> tuple[Patch, ...]:
    """The rows of this event, or of all events, without one action."""

    def change(state: Any, row: Row[Any, Any]) -> Row[Any, Any]:
        return Row(row.to, *(each for each in row.actions if each is not action))

    return _rows(module.TRANSITIONS, event, change)


_STRAY_CANCEL = RequesterLedger.send_stray_cancel


def _keeps_stray_cancels(self: RequesterLedger, *arguments: Any) -> None:
    """What is over is answered with messages that outlive a restart."""
    _STRAY_CANCEL(self, *arguments)
    sent = self.actions[-1]
    assert isinstance(sent, Send)
    self.actions[-1] = replace(sent, durable=True)


MUTANTS: dict[str, tuple[Patch, ...]] = {
    "keep answers about what is over": ((RequesterLedger, "send_stray_cancel", _keeps_stray_cancels),),
    "drop the dedupe": ((Delivery, "recognise", _always_new),),
    "acknowledge before the commit": ((CommitPlanner, "plan", _acknowledges_first),),
    "send before the commit": _steps_changed(_commits_last),
    "keep no outbox": _commits_changed(lambda commit: [replace(commit, outbox=())]),
    "keep no inbox": _commits_changed(lambda commit: [replace(commit, processed=())]),
    "mark messages as processed before their effects": _commits_changed(_marks_then_effects),
    "commit without power safety": _commits_changed(lambda commit: [replace(commit, power_safe=False)]),
    "begin steps before the commit": ((CommitPlanner, "_commit_records", _commits_nothing),),
    "never repeat": ((Delivery, "repeats", lambda self, now: self._heap.clear() or []),),
    "repeat without back-off": ((Delivery, "_schedule", _repeats_at_once),),
    "never give up": ((Delivery, "post", _never_gives_up),),
    "never acknowledge": ((Delivery, "mark_processed", _never_acknowledges),),
    "forget to release when a run ends": _without(
        compute_transitions, compute_transitions.release_room, cv.RunFinished
    ),
    "forget to release at the end": tuple(
        patch
        for patch in _without(compute_transitions, compute_transitions.release_room)
        if patch[2].to.terminal
    ),
    "leave the run and its result behind": _without(compute_transitions, compute_transitions.clean_up),
    "reserve more than there is": ((Capacity, "has_room", _has_always_room),),
    "believe any node": (
        (_HANDLERS, MessageReceived, _believes_any_node(RequesterMachine._message_received)),
    ),
    "obey any requester": ((Commands, "take", _obeys_any_requester),),
    "let bids steal ids": ((Rounds, "bid", _steals_ids),),
    "accept two bids a slot": ((Rounds, "_accept", _accepts_two_bids_a_slot),),
    "forget to reject bids": (
        *_without(executions, executions.send_bid_rejected, executions.BidNotChosen),
        *_without(executions, executions.send_bid_rejected, executions.JobEnded),
    ),
    "announce once": (
        (Rounds, "_plan_next", _announces_once),
        (_HANDLERS, rv.NodeInfoReceived, _hears_no_news),
    ),
    "resume no jobs": ((_HANDLERS, rv.Resumed, _does_nothing),),
    "resume only pending jobs": ((_HANDLERS, rv.Resumed, _forgets_jobs_that_run),),
    "resume no executions": ((_COMPUTE_HANDLERS, cv.Resumed, _does_nothing),),
    "resume without heartbeats": ((_COMPUTE_HANDLERS, cv.Resumed, _resumes_without_heartbeat),),
    "run again what still runs": ((_COMPUTE_HANDLERS, cv.Resumed, _runs_again_on_resume),),
    "publish before acceptance": _rows(
        compute_transitions.TRANSITIONS,
        cv.RunFinished,
        lambda state, row: Row(row.to, *row.actions, compute_transitions.publish),
    ),
    "believe any root": ((proposals, "_check_root", _believes_any_root),),
    "believe what is published": ((reports, "_published", _believes_what_is_published),),
    "accept what the verifier rejected": ((_HANDLERS, rv.Verified, _takes_every_result),),
    "never refill a slot": (
        *_without(executions, executions.open_slot, executions.FailureReported),
        *_without(executions, executions.open_slot, executions.NodeLost),
        (progress, "_reopen", _does_nothing),
    ),
    "never give up a silent node": ((Liveness, "lost_at", lambda self, entry, execution: inf),),
    "give up containers as anything else": ((Liveness, "lost_at", _gives_up_containers),),
    "forget which runs outlive their nodes": ((_HANDLERS, rv.Resumed, _forgets_what_outlives),),
    "forget attempts when started again": ((_HANDLERS, rv.Resumed, _forgets_attempts),),
    "forget who called a failure permanent": ((_HANDLERS, rv.Resumed, _forgets_witnesses),),
    "send no heartbeats": ((ComputeSupervision, "_send_heartbeats", _sends_no_heartbeats),),
    "forget what was told when started again": ((_HANDLERS, rv.Resumed, _forgets_what_it_told),),
    "tell nothing of executions that end with their job": (
        (RequesterLedger, "tell", _tells_only_of_the_end),
    ),
    "commit no history": _commits_changed(lambda commit: [replace(commit, history=commit.history[1:])]),
    "never reconcile": (
        (Supervision, "reconcile", _does_nothing),
        (supervision, "_reconcile_at", lambda entry, execution: inf),
    ),
    "ignore cancellations": _rows(
        compute_transitions.TRANSITIONS, say.CancelExecution, lambda state, row: Row(state)
    ),
    "run for requesters that are gone": ((Presence, "gone", lambda self, now: iter(())),),
    "ignore the total timeout": ((Progress, "check_timeouts", _has_no_end),),
}
"""By what they do wrong."""


def _takes_them_as_they_come(entry: JobEntry, ranked: Sequence[Any]) -> list[Any]:
    return list(zip(entry.open_slots, ranked, strict=False))


def _waits_for_all(entry: JobEntry) -> list[int]:
    states = {execution.state for execution in entry.placed_executions()}
    waits = entry.is_open or entry.placement.groups.verifying or ExecutionState.BID_ACCEPTED in states
    return [0] if ExecutionState.RESULT_PROPOSED in states and not waits else []


MUTANTS_OF_DIVIDED: dict[str, tuple[Patch, ...]] = {
    "refill the slots of ops jobs": ((JobEntry, "is_final", lambda self, execution: False),),
    "give each execution the first partition": ((JobEntry, "partition_of", lambda self, execution: 0),),
    "forget the partition on the node": ((compute_transitions._RECORDED, say.BidAccepted, ()),),
    "let a node do the same twice": ((rounds, "assign", _takes_them_as_they_come),),
    "judge all partitions together": (
        (JobEntry, "groups_to_judge", _waits_for_all),
        (JobEntry, "slots_of", lambda self, group: self.slots),
    ),
}
"""The same, of ops jobs and jobs with partitions, which only worlds of the kind `divided` have."""

MUTANTS_OF_CLAIMANTS: dict[str, tuple[Patch, ...]] = {
    "forget who wasted time": ((Penalties, "among", lambda self, nodes, now: set()),),
}
"""The same, of nodes that waste time, which only worlds of the kind `claimants` have."""

MUTANTS_OF = {"any": MUTANTS, "divided": MUTANTS_OF_DIVIDED, "claimants": MUTANTS_OF_CLAIMANTS}
"""By the kind of worlds in which they are noticed."""


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """The mutant is in force for the length of the block."""
    with ExitStack() as stack:
        for where, what, instead in (MUTANTS | MUTANTS_OF_DIVIDED | MUTANTS_OF_CLAIMANTS)[name]:
            stack.enter_context(_patched(where, what, instead))
        yield


@contextmanager
def _patched(where: Any, what: Any, instead: Any) -> Iterator[None]:
    if isinstance(where, dict):
        before = where[what]
        where[what] = instead
        try:
            yield
        finally:
            where[what] = before
    else:
        before = getattr(where, what)
        setattr(where, what, instead)
        try:
            yield
        finally:
            setattr(where, what, before)
