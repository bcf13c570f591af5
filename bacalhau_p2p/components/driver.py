"""The loop around a machine: it handles what arrives, commits the changes, and only then acts on them.

What is committed when is planned in `commit_plan`; the driver of both components carries out the plan.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from math import inf
from typing import Any

import trio

from bacalhau_p2p.bprotocol.codec import MessageID
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.messages import Carrier
from bacalhau_p2p.bprotocol.messenger import Messenger
from bacalhau_p2p.components.commit_plan import (
    Acknowledge,
    Commit,
    CommitPlanner,
    Confirm,
    Dispatch,
    Handled,
    Perform,
    PlanStep,
    QueuedEvent,
    record_key,
)
from bacalhau_p2p.components.event_faults import EventFaults, ids_of, shown
from bacalhau_p2p.components.protocol import (
    Broadcast,
    Machine,
    MessageReceived,
    NotStored,
    Send,
    Store,
    TimePassed,
)
from bacalhau_p2p.components.storable import storable
from bacalhau_p2p.components.store import ComponentStore
from bacalhau_p2p.errors import EventDropped, StoreFailed
from bacalhau_p2p.model.base import Model, UnixSeconds
from bacalhau_p2p.runtime.alarm import Alarm
from bacalhau_p2p.runtime.events import AutoResetEvent
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

PRUNE_INTERVAL = 10.0
"""Seconds between two deletions of what a store keeps only for a while."""
PRUNE_PAUSE = 0.05
"""Seconds between the parts of one deletion, so that messages and users do not wait."""
STORE_PATIENCE = 5.0
"""Seconds that a commit is repeated when the store fails. A job that fills the disk fails within this time,
and what it wrote is removed."""
STORE_RETRY = 0.1
"""Seconds between two of these attempts."""
MAX_REFUSED = 1000
"""Records that are remembered because they could not be stored."""


class Outcome:
    """What became of an event that somebody waits for."""

    def __init__(self) -> None:
        self._ended = trio.Event()
        self._refusal: str | None = None

    def confirm(self) -> None:
        """Its changes are durable."""
        self._ended.set()

    def refuse(self, reason: str) -> None:
        """It was dropped, or cannot be stored."""
        self._refusal = reason
        self._ended.set()

    async def wait(self) -> None:
        """Raises EventDropped."""
        await self._ended.wait()
        if self._refusal is not None:
            raise EventDropped(f"this node could not carry out the request: {self._refusal}")


class Driver(ABC):
    """Drives one machine. Use its methods while `_drive` runs."""

    def __init__(
        self,
        machine: Machine,
        store: ComponentStore,
        messenger: Messenger,
        *,
        clock: Callable[[], UnixSeconds],
    ) -> None:
        self._machine = machine
        self._store = store
        self._messenger = messenger
        self._clock = clock
        self._processor = messenger.processor
        self._planner = CommitPlanner(messenger.compose)
        self._queue: list[QueuedEvent] = []
        self._steps: deque[PlanStep] = deque()
        """Planned, and not carried out yet."""
        self._machine_due = machine.next_deadline()
        """As of the last tick: only there the machine changes."""
        self._delivered: list[MessageID] = []
        """Messages that the next commit removes from the outbox."""
        self._wake = AutoResetEvent()
        self._alarm = Alarm(clock)
        self._faults = EventFaults()
        self._refused: dict[Hashable, None] = {}
        """Keys of records that could not be stored."""
        self._watchers: list[Callable[[Model], None]] = []

    def watch_records(self, watcher: Callable[[Model], None]) -> None:
        """Call `watcher` with every version of every record as the machine makes it, from now on. A commit
        has only the latest version of each."""
        self._watchers.append(watcher)

    # --- for the subclass -----------------------------------------------------------------------

    @abstractmethod
    def _perform(self, action: Any, nursery: trio.Nursery) -> None:
        """Begin an action of the component's own."""

    @abstractmethod
    def _committed(self, commit: Commit) -> None:
        """The transaction is in the store."""

    @property
    def dropped(self) -> Counter[tuple[str, str]]:
        """Events that were dropped because they raised, by kind and author."""
        return self._faults.counts

    def _enqueue(self, event: Any) -> None:
        """Handle the event in the next tick."""
        self._enqueue_all(QueuedEvent(event))

    def _enqueue_all(self, *events: QueuedEvent) -> None:
        self._queue += events
        self._wake.set()

    async def _enqueue_and_confirm(self, event: Any, *, note: Any = None) -> None:
        """Returns when a power cut no longer undoes what the event changed. Raises EventDropped."""
        outcome = Outcome()
        self._enqueue_all(QueuedEvent(event, confirm=outcome.confirm, refuse=outcome.refuse, note=note))
        await outcome.wait()

    def _receive(self, arrival: Arrival) -> None:
        try:
            event = self._event_of(arrival)
        except Exception as error:  # noqa: BLE001 - a stranger's message must not end this node
            self._faults.dropped(arrival, arrival.author, "", error)
            event = None
        self._enqueue_all(QueuedEvent(event, arrival))

    def _event_of(self, arrival: Arrival) -> Any:
        """The machine's event for a message."""
        return MessageReceived(arrival.author, arrival.message)

    def _resume_messages(self) -> None:
        """Go on delivering what an earlier process of this node left in the outbox."""
        self._messenger.resume(*self._store.load_messages(self._clock()), owner=self)

    # --- the loop -------------------------------------------------------------------------------

    async def _drive(self, nursery: trio.Nursery) -> None:
        """Until cancelled; then what was handled is committed. Raises StoreFailed."""
        nursery.start_soon(self._ring)
        nursery.start_soon(self._prune)
        try:
            while True:
                self._set_alarm()
                await self._wake.wait()
                self._tick()
                await self._carry_out_patiently(nursery)
        except StoreFailed:
            self._planner.discard()
            self._steps.clear()
            raise
        finally:
            self._steps += self._planner.flush(self._clock())
            self._carry_out(nursery)

    def _set_alarm(self) -> None:
        """Ring when something is due; to ring too early now and then costs less than to set it later."""
        for due in (self._machine_due, self._planner.due):
            if due is not None:
                self._alarm.no_later_than(due)

    async def _prune(self) -> None:
        """Delete now and then what is kept only for a while."""
        while True:
            await trio.sleep(PRUNE_INTERVAL)
            try:
                while self._store.prune(self._clock()):  # noqa: ASYNC110 - a pause, not a condition
                    await trio.sleep(PRUNE_PAUSE)
            except Exception as error:  # noqa: BLE001 - it is not needed to go on
                log.warning("not_pruned", reason=f"{type(error).__name__}: {error}")

    async def _ring(self) -> None:
        while True:
            await self._alarm.wait()
            self._wake.set()

    def _tick(self) -> None:
        """Handle everything that has arrived, and plan what follows from it."""
        queue, self._queue = self._queue, []
        now = self._clock()
        handled = [self._handle(queued, now) for queued in queue]
        self._machine_due = self._machine.next_deadline()
        if self._machine_due is not None and self._machine_due <= now:
            handled.append(self._handle(QueuedEvent(TimePassed()), now))
            for name, error in self._machine.take_faults():
                self._faults.dropped(TimePassed(), "", name, error)
            self._machine_due = self._machine.next_deadline()
        self._steps += self._planner.plan(handled, now)

    def _handle(self, queued: QueuedEvent, now: UnixSeconds) -> Handled:
        """The actions for an event. One that raises has changed nothing, and is dropped: its message is
        acknowledged all the same, so that it does not come again."""
        event = queued.event
        if event is None:
            return Handled(queued, ())
        arrival, unknown = queued.arrival, self._machine.unknown
        began = 0.0 if arrival is None else self._processor()
        try:
            actions = self._machine.handle(event, now)
        except Exception as error:  # noqa: BLE001 - the fault of one event, or of one stranger
            self._drop(queued, error)
            return Handled(replace(queued, confirm=None, refuse=None, note=None), ())
        finally:
            if arrival is not None:
                self._messenger.charge(arrival, self._processor() - began)
        if arrival is not None and self._machine.unknown != unknown:
            self._messenger.note_unknown(arrival)
        self._faults.handled(event)
        if self._watchers:
            self._show(actions)
        return Handled(queued, actions)

    def _show(self, actions: Sequence[Any]) -> None:
        for action in actions:
            if isinstance(action, Store):
                for watcher in self._watchers:
                    self._isolated(watcher, action.record)

    def _drop(self, queued: QueuedEvent, error: Exception) -> None:
        try:
            state = self._machine.state_of(queued.event)
        except Exception:  # noqa: BLE001 - it is for the log only
            state = "unknown"
        author = queued.arrival.author if queued.arrival is not None else ""
        self._faults.dropped(queued.event, author, state, error)
        if queued.refuse is not None:
            queued.refuse(f"{type(error).__name__}: {shown(error)}")

    async def _carry_out_patiently(self, nursery: trio.Nursery) -> None:
        """Carry out what is planned. While the store fails, only the commit is repeated.
        Raises StoreFailed if it still fails after `STORE_PATIENCE`."""
        give_up = inf
        while True:
            try:
                return self._carry_out(nursery)
            except StoreFailed as error:
                if trio.current_time() >= give_up:
                    raise
                if give_up == inf:
                    give_up = trio.current_time() + STORE_PATIENCE
                    log.info("commit_is_repeated", reason=str(error), seconds=STORE_PATIENCE)
            await trio.sleep(STORE_RETRY)

    def _carry_out(self, nursery: trio.Nursery) -> None:
        """Carry out what is planned. After StoreFailed the commit and what follows it are still planned."""
        if not self._steps:
            return
        self._messenger.gather()
        try:
            self._carry_out_steps(nursery)
        finally:
            self._messenger.release()

    def _carry_out_steps(self, nursery: trio.Nursery) -> None:
        refused: dict[str, str] = {}
        steps = self._steps
        while steps:
            step = steps[0]
            if isinstance(step, Commit):
                refused.update(self._commit(step))
            steps.popleft()
            if isinstance(step, Perform):
                self._isolated(self._act, step.action, nursery)
            elif isinstance(step, Acknowledge):
                self._messenger.mark_processed(step.arrival)
            elif isinstance(step, Dispatch):
                self._isolated(self._messenger.dispatch, step.message, owner=self)
            elif isinstance(step, Confirm):
                self._confirm(step.queued, refused)

    def _commit(self, commit: Commit) -> dict[str, str]:
        """Commit; if what a record contains makes that impossible, without this record. Returns the ids of
        such records with the reasons. Raises StoreFailed."""
        self._delivered += self._messenger.take_finished(self)
        refused: dict[str, str] = {}
        try:
            self._store.commit(commit, self._delivered)
        except StoreFailed:
            raise
        except Exception:  # noqa: BLE001 - whatever a record of a stranger's making causes
            commit, left_out = storable(commit, self._store.rehearse)
            for part, error in left_out:
                reason = f"it cannot be stored: {type(error).__name__}: {shown(error)}"
                log.error("not_stored", what=type(part).__name__, part=shown(part), error=reason)
                self._faults.count(f"stored {type(part).__name__}")
                if isinstance(part, Model):
                    refused[str(getattr(part, "id", ""))] = reason
                    self._fail(part, reason)
            self._store.commit(commit, self._delivered)
        self._delivered = []
        self._committed(commit)
        return refused

    def _fail(self, record: Model, reason: str) -> None:
        """Tell the machine once that it has a record that cannot be stored."""
        key = record_key(record)
        if key not in self._refused:
            self._refused[key] = None
            if len(self._refused) > MAX_REFUSED:
                del self._refused[next(iter(self._refused))]
            self._enqueue(NotStored(record, reason))

    def _confirm(self, queued: QueuedEvent, refused: dict[str, str]) -> None:
        reason = next((refused[each] for each in ids_of(queued.event) if each in refused), None)
        if reason is not None and queued.refuse is not None:
            queued.refuse(reason)
        elif queued.confirm is not None:
            queued.confirm()

    def _isolated(self, call: Callable[..., None], what: Any, *args: Any, **named: Any) -> None:
        """Carry out one action; one that raises is counted, logged and skipped."""
        try:
            call(what, *args, **named)
        except Exception as error:  # noqa: BLE001 - for example a message that cannot be encoded
            self._faults.dropped(what, "", "", error)

    def _act(self, action: Any, nursery: trio.Nursery) -> None:
        messenger = self._messenger
        if isinstance(action, Send):
            if action.message.carrier is Carrier.DIRECT:
                messenger.dispatch(messenger.compose(action.to, action.message, action.give_up_at))
            else:
                messenger.send_once(action.to, action.message)
        elif isinstance(action, Broadcast):
            messenger.broadcast(action.message)
        else:
            self._perform(action, nursery)
