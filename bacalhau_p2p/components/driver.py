"""The loop around a machine: it handles what arrives, commits the changes, and only then acts on them.

What is committed when is planned in `commit_plan`; the driver of both components carries out the plan.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

import trio

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
)
from bacalhau_p2p.components.protocol import Broadcast, Machine, MessageReceived, Send, TimePassed
from bacalhau_p2p.components.store import ComponentStore
from bacalhau_p2p.errors import StoreFailed
from bacalhau_p2p.model.base import UnixSeconds
from bacalhau_p2p.runtime.alarm import Alarm
from bacalhau_p2p.runtime.events import AutoResetEvent


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
        self._planner = CommitPlanner(messenger.compose)
        self._queue: list[QueuedEvent] = []
        self._wake = AutoResetEvent()
        self._alarm = Alarm()

    # --- for the subclass -----------------------------------------------------------------------

    @abstractmethod
    def _perform(self, action: Any, nursery: trio.Nursery) -> None:
        """Begin an action of the component's own."""

    @abstractmethod
    def _committed(self, commit: Commit) -> None:
        """The transaction is in the store."""

    def _enqueue(self, event: Any) -> None:
        """Handle the event in the next tick."""
        self._enqueue_all(QueuedEvent(event))

    def _enqueue_all(self, *events: QueuedEvent) -> None:
        self._queue += events
        self._wake.set()

    async def _enqueue_and_confirm(self, event: Any, *, note: Any = None) -> None:
        """Returns when a power cut no longer undoes what the event changed."""
        confirmed = trio.Event()
        self._enqueue_all(QueuedEvent(event, confirm=confirmed.set, note=note))
        await confirmed.wait()

    def _receive(self, arrival: Arrival) -> None:
        self._enqueue_all(QueuedEvent(self._event_of(arrival), arrival))

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
        try:
            while True:
                self._set_alarm()
                await self._wake.wait()
                self._tick(nursery)
        except StoreFailed:
            self._planner.discard()
            raise
        finally:
            self._carry_out(self._planner.flush(self._clock()), nursery)

    def _set_alarm(self) -> None:
        """Ring when something is due; to ring too early now and then costs less than to set it later."""
        deadlines = (self._machine.next_deadline(), self._planner.due)
        due = min((deadline for deadline in deadlines if deadline is not None), default=inf)
        self._alarm.no_later_than(due - self._clock())

    async def _ring(self) -> None:
        while True:
            await self._alarm.wait()
            self._wake.set()

    def _tick(self, nursery: trio.Nursery) -> None:
        """Handle everything that has arrived, and carry out what follows from it."""
        queue, self._queue = self._queue, []
        now = self._clock()
        handled = [Handled(queued, self._machine.handle(queued.event, now)) for queued in queue]
        deadline = self._machine.next_deadline()
        if deadline is not None and deadline <= now:
            passed = TimePassed()
            handled.append(Handled(QueuedEvent(passed), self._machine.handle(passed, now)))
        self._carry_out(self._planner.plan(handled, now), nursery)

    def _carry_out(self, steps: Iterable[PlanStep], nursery: trio.Nursery) -> None:
        for step in steps:
            match step:
                case Commit():
                    self._store.commit(step, self._messenger.take_finished(self))
                    self._committed(step)
                case Acknowledge(arrival):
                    self._messenger.mark_processed(arrival)
                case Confirm(queued):
                    assert queued.confirm is not None
                    queued.confirm()
                case Dispatch(message):
                    self._messenger.dispatch(message, owner=self)
                case Perform(action):
                    self._act(action, nursery)

    def _act(self, action: Any, nursery: trio.Nursery) -> None:
        match action:
            case Send(to, message, give_up_at) if message.carrier is Carrier.DIRECT:
                self._messenger.dispatch(self._messenger.compose(to, message, give_up_at))
            case Send(to, message):
                self._messenger.send_once(to, message)
            case Broadcast(message):
                self._messenger.broadcast(message)
            case _:
                self._perform(action, nursery)
