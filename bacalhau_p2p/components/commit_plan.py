"""Decides what one tick of a component commits, how durably, and in which order things happen.

Pure: events with the actions of the machine go in, steps come out. The driver carries them out on a real
store and network, the simulator on simulated ones with crashes between them.

There are three cases, the most expensive first:

- Something leaves the node, or somebody waits for the result: everything is committed so that even a power
  cut does not undo it, and only then sent, acknowledged and confirmed.
- A step on this node begins that cannot simply be repeated: the records are committed so that a crash of
  the process does not undo them.
- Anything else waits up to `COMMIT_DELAY` seconds to share a commit with later changes. Its message stays
  unacknowledged until then.

What is told in histories goes along with these commits. If there is none for `HISTORY_DELAY` seconds, it gets
one of its own.

A message that changes nothing durable is acknowledged and leaves no trace in the store, because anybody may
send such messages. If it comes again after a crash, it is as if it had arrived only then.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bacalhau_p2p.bprotocol.delivery import OutboxMessage, ProcessedMessage
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.messages import Carrier, Message
from bacalhau_p2p.components.protocol import COMMIT_DELAY, Append, Broadcast, Send, Store, rests_on_records
from bacalhau_p2p.model.base import Model, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.history import HistoryEvent


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    """An event for the machine, and what is due once its changes are committed."""

    event: Any
    arrival: Arrival | None = None
    """The message that the event came with. It is acknowledged."""
    confirm: Callable[[], None] | None = None
    """Called when a power cut no longer undoes the changes. The event is committed without delay."""
    refuse: Callable[[str], None] | None = None
    """Called instead of `confirm`, with the reason, if the event was dropped or cannot be stored."""
    note: Any = None
    """Committed with the changes; only the component's store knows its meaning."""

    @property
    def needs_commit(self) -> bool:
        """Whether somebody learns that the event was handled, even if it changed nothing."""
        return self.confirm is not None or (self.arrival is not None and self.arrival.id is not None)


@dataclass(slots=True)
class Handled:
    """An event, and the actions that the machine answered it with."""

    queued: QueuedEvent
    actions: Sequence[Any]


# --- steps ----------------------------------------------------------------------------------
# They are not frozen: each tick makes some, and that would take three times as long.


@dataclass(slots=True)
class Commit:
    """One transaction: all of it is in the store afterwards, or nothing."""

    records: tuple[Model, ...] = ()
    """The latest version of each record that changed."""
    history: tuple[HistoryEvent, ...] = ()
    """What happened, in order."""
    outbox: tuple[OutboxMessage, ...] = ()
    """Messages that are delivered even if the node stops before they are sent."""
    processed: tuple[ProcessedMessage, ...] = ()
    """Messages whose effects are in this transaction or an earlier one."""
    notes: tuple[Any, ...] = ()
    power_safe: bool = True
    """Whether it must survive a power cut; a crash of the process it survives anyway."""


@dataclass(slots=True)
class Acknowledge:
    """Tell the author that the message need not be sent again."""

    arrival: Arrival


@dataclass(slots=True)
class Confirm:
    """Tell whoever waits for the event that its changes are durable."""

    queued: QueuedEvent


@dataclass(slots=True)
class Dispatch:
    """Send a message that is in the outbox."""

    message: OutboxMessage


@dataclass(slots=True)
class Perform:
    """Do what the machine asked for: broadcast, send without the outbox, or begin a step."""

    action: Any


PlanStep = Commit | Acknowledge | Confirm | Dispatch | Perform

HISTORY_DELAY = 1.0
"""Seconds that events of histories wait for a commit of something else. Nothing depends on them, but users
read them."""

Compose = Callable[[PeerID, Message, UnixSeconds], OutboxMessage]
"""Gives a message its id: to whom, what, and when to give up."""


class CommitPlanner:
    """Plans tick after tick, and remembers what still waits for a commit."""

    def __init__(self, compose: Compose) -> None:
        self._compose = compose
        self._events: list[QueuedEvent] = []
        self._traceless: list[Arrival] = []
        """Messages that changed nothing durable. That may rest on a change that waits for its commit, so they
        are acknowledged after it."""
        self._records: dict[Hashable, Model] = {}
        self._history: list[HistoryEvent] = []
        self._changes_due: UnixSeconds | None = None
        """When the changes that wait are committed at the latest."""
        self._history_due: UnixSeconds | None = None
        """The same for what waits for nothing but to be read."""

    @property
    def due(self) -> UnixSeconds | None:
        """When what waits is committed at the latest."""
        if self._changes_due is None or self._history_due is None:
            return self._changes_due if self._history_due is None else self._history_due
        return min(self._changes_due, self._history_due)

    def plan(self, handled: Iterable[Handled], now: UnixSeconds) -> list[PlanStep]:
        """The steps of a tick in which these events were handled. Carry them out in this order."""
        outbox: list[OutboxMessage] = []
        effects: list[PlanStep] = []
        leaves_node = begins_step = False
        for each in handled:
            if each.queued.needs_commit:
                self._note(each)
                leaves_node |= each.queued.confirm is not None
            for action in each.actions:
                if isinstance(action, Store):
                    record = action.record
                    self._records[record_key(record)] = record
                    leaves_node = leaves_node or _is_awaited(record)
                    continue
                if isinstance(action, Send):
                    if _is_durable(action):
                        outbox.append(self._compose(action.to, action.message, action.give_up_at))
                        continue
                elif isinstance(action, Broadcast):
                    leaves_node = True
                elif isinstance(action, Append):
                    self._history.append(action.event)
                    continue
                else:
                    begins_step = begins_step or rests_on_records(action)
                effects.append(Perform(action))
        if self._history and self._history_due is None:
            self._history_due = now + HISTORY_DELAY
        due = self.due
        if leaves_node or outbox or (due is not None and due <= now):
            return [*self._commit_everything(outbox, now), *effects]
        steps: list[PlanStep] = [self._commit_records()] if begins_step and self._records else []
        if self._changes_due is None and (self._events or self._records):
            self._changes_due = now + COMMIT_DELAY
        if self._changes_due is None:
            steps += self._acknowledge_traceless()
        return [*steps, *effects]

    def flush(self, now: UnixSeconds) -> list[PlanStep]:
        """The steps that commit whatever still waits."""
        return self._commit_everything((), now)

    def discard(self) -> None:
        """Forget what still waits: a commit failed, and a part of a change must not be committed alone."""
        self._events, self._traceless, self._records, self._history = [], [], {}, []
        self._changes_due = self._history_due = None

    def _note(self, handled: Handled) -> None:
        queued = handled.queued
        if queued.confirm is not None or queued.arrival is None or any(map(_is_durable, handled.actions)):
            self._events.append(queued)
        else:
            self._traceless.append(queued.arrival)

    def _acknowledge_traceless(self) -> list[PlanStep]:
        arrivals, self._traceless = self._traceless, []
        return [Acknowledge(arrival) for arrival in arrivals]

    def _commit_everything(self, outbox: Sequence[OutboxMessage], now: UnixSeconds) -> list[PlanStep]:
        events, records, history = self._events, self._records, self._history
        traceless = self._acknowledge_traceless()
        self._events, self._records, self._changes_due = [], {}, None
        if not (events or records or outbox or (self._history_due is not None and self._history_due <= now)):
            return traceless
        self.discard()
        arrivals = [each.arrival for each in events if each.arrival is not None]
        return [
            Commit(
                records=tuple(records.values()),
                history=tuple(history),
                outbox=tuple(outbox),
                processed=tuple(
                    [ProcessedMessage(a.author, a.id, now) for a in arrivals if a.id is not None]
                ),
                notes=tuple([each.note for each in events if each.note is not None]),
            ),
            *[Acknowledge(arrival) for arrival in arrivals],
            *traceless,
            *[Confirm(each) for each in events if each.confirm is not None],
            *[Dispatch(message) for message in outbox],
        ]

    def _commit_records(self) -> Commit:
        """The records alone: their messages are acknowledged after the next commit of everything."""
        records, self._records = self._records, {}
        history, self._history, self._history_due = self._history, [], None
        return Commit(records=tuple(records.values()), history=tuple(history), power_safe=False)


def record_key(record: Any) -> Hashable:
    """What identifies a record in its store. Execution ids are chosen by bidders: they count within a job."""
    return (record.job_id, record.id) if isinstance(record, Execution) else record.id


def _is_durable(action: Any) -> bool:
    """Whether the store holds something of this action."""
    if isinstance(action, Send):
        return action.durable and action.message.carrier is Carrier.DIRECT
    return isinstance(action, Store)


def _is_awaited(record: Model) -> bool:
    """Whether users wait for this record to be durable."""
    return isinstance(record, Job) and record.state.terminal
