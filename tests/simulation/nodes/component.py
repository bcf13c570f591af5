"""One machine of a simulated node and its store: carries out the same plans as the real driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from bacalhau_p2p.bprotocol.inbox import Arrival
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
from bacalhau_p2p.components.event_faults import ids_of
from bacalhau_p2p.components.protocol import (
    Broadcast,
    Machine,
    MessageReceived,
    NotStored,
    Send,
    Store,
    TimePassed,
)
from tests.simulation.nodes.internal_faults import REASON, InternalFaults
from tests.simulation.nodes.messaging import Messaging
from tests.simulation.nodes.observer import Observer
from tests.simulation.nodes.process import Process
from tests.simulation.nodes.store import SimulatedStore


class Component:
    """A driver with places between the steps of a plan at which the process may die."""

    def __init__(
        self,
        process: Process,
        messaging: Messaging,
        observer: Observer,
        machine: Machine,
        store: SimulatedStore,
        *,
        perform: Callable[[Any], None],
        ticked: Callable[[], None] = lambda: None,
    ) -> None:
        """`perform` begins an action of the component's own. `ticked` is called when a tick's events are
        handled."""
        self.machine = machine
        self.store = store
        self._process = process
        self._timeline = process.timeline
        self._messaging = messaging
        self._observer = observer
        self._perform = perform
        self._ticked = ticked
        self._planner = CommitPlanner(messaging.compose)
        self._faults = InternalFaults(process, machine)
        self._refused_ids: set[str] = set()
        """Of the records that the plan which is being carried out could not store."""
        self._queue: list[QueuedEvent] = []
        self._wake_at: float | None = None
        self._ticking = False

    def put(self, event: Any) -> None:
        """Handle the event in the next tick, which is now."""
        self.enqueue(QueuedEvent(event))

    def receive(self, arrival: Arrival) -> None:
        self.enqueue(QueuedEvent(MessageReceived(arrival.author, arrival.message), arrival))

    def enqueue(self, queued: QueuedEvent) -> None:
        self._queue.append(queued)
        if not self._ticking:
            self._ticking = True
            self._process.at(self._timeline.now, self._tick)

    def clean_up(self) -> None:
        """Remove delivered messages from the outbox. Nothing depends on when."""
        if delivered := self._messaging.take_finished(self.store):
            self.store.commit(Commit(power_safe=False), delivered)

    # --- one tick -------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self._process.postpones(self._tick):
            return
        self._ticking = False
        queue, self._queue = self._queue, []
        now = self._process.clock()
        handled = [self._handle(queued, now) for queued in queue]
        due = self.machine.next_deadline()
        if due is not None and due <= now:
            passed = TimePassed()
            handled.append(Handled(QueuedEvent(passed), self.machine.handle(passed, now)))
            self.machine.take_faults()
        self._observer.ticked(self.machine, now)
        self._ticked()
        for each in handled:
            for action in each.actions:
                if isinstance(action, Store):
                    self._timeline.note(self._process.peer, "moved", None, action.record)
        self._carry_out(self._planner.plan(handled, now))
        self._set_alarm()

    def _handle(self, queued: QueuedEvent, now: float) -> Handled:
        if queued.arrival is not None:
            self._observer.handling(self.store, queued.arrival)
        queued, actions = self._faults.handle(queued, now)
        self._timeline.note(self._process.peer, "handled", queued.arrival, queued.event)
        if queued.arrival is not None:
            self._observer.handled(self._process.peer, self.store, queued.arrival, actions)
        return Handled(queued, actions)

    def _carry_out(self, steps: Sequence[PlanStep], begin: int = 0) -> None:
        for number in range(begin, len(steps) + 1):
            self._crash_point_before(steps, number)
            match steps[number] if number < len(steps) else None:
                case Commit() as commit:
                    self._commit(commit)
                    if self._process.postpones(partial(self._carry_out, steps, number + 1)):
                        return
                case Acknowledge(arrival):
                    self._messaging.acknowledge(arrival)
                case Confirm(queued):
                    self._confirm(queued)
                case Dispatch(message):
                    self._observer.dispatching(self.store, message.envelope)
                    self._messaging.dispatch(message)
                case Perform(action):
                    self._act(action)

    def _crash_point_before(self, steps: Sequence[PlanStep], number: int) -> None:
        """The process may be planned to die before the step of this number, or after the last one."""
        before = steps[number - 1] if number > 0 else None
        step = steps[number] if number < len(steps) else None
        commits = [each for each in steps[:number] if isinstance(each, Commit)]
        acknowledges = bool(commits) and commits[-1].power_safe
        if acknowledges and before is commits[-1]:
            self._process.crash_point("before acknowledging")
        if isinstance(step, Acknowledge | Confirm):
            return
        if acknowledges and isinstance(before, Commit | Acknowledge | Confirm):
            self._process.crash_point("after acknowledging")
        effects = [each for each in steps[:number] if isinstance(each, Dispatch | Perform)]
        if isinstance(step, Dispatch | Perform) and len(effects) == 1:
            self._process.crash_point("amid effects")

    def _confirm(self, queued: QueuedEvent) -> None:
        assert queued.confirm is not None
        if queued.refuse is not None and ids_of(queued.event) & self._refused_ids:
            queued.refuse(REASON)
        else:
            queued.confirm()

    def _commit(self, commit: Commit) -> None:
        self._process.begin_commit()
        commit, refused = self._faults.storable(commit)
        self._refused_ids = {str(record.id) for record in refused}
        for record in refused:
            self._observer.refused(self.store, record)
            self.put(NotStored(record, REASON))
        self.store.commit(commit, self._messaging.take_finished(self.store))
        self._observer.committed(self._process.peer, self.store, commit)
        self._process.crash_point("after commit")

    def _act(self, action: Any) -> None:
        match action:
            case Send(to, message, give_up_at):
                self._messaging.dispatch(self._messaging.compose(to, message, give_up_at))
            case Broadcast(message):
                self._messaging.broadcast(message)
            case _:
                self._perform(action)

    # --- time -----------------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        """Tick again at the machine's next deadline, or when what waits is to be committed."""
        clocks = [clock for clock in (self.machine.next_deadline(), self._planner.due) if clock is not None]
        if not clocks:
            return
        due = min(clocks)
        when = self._process.world_time(due)
        if self._wake_at is None or when < self._wake_at:
            self._wake_at = when
            self._process.at(when, lambda: self._alarm(when, due))

    def _alarm(self, when: float, due: float) -> None:
        if self._wake_at != when:
            return
        self._wake_at = None
        self._process.advance_clock(due)
        if not self._ticking:
            self._ticking = True
            self._tick()
