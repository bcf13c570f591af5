"""One machine of a simulated node and its store: carries out the same plans as the real driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

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
from bacalhau_p2p.components.protocol import Broadcast, Machine, MessageReceived, Send, Store, TimePassed
from tests.simulation.nodes.store import Durable

if TYPE_CHECKING:
    from tests.simulation.nodes.node import Life


class Component:
    """A driver with places between the steps of a plan at which the node may die."""

    def __init__(
        self, life: Life, machine: Machine, durable: Durable, perform: Callable[[Life, Any], None]
    ) -> None:
        self.life = life
        self.machine = machine
        self.durable = durable
        self._perform = perform
        self._queue: list[QueuedEvent] = []
        self._planner = CommitPlanner(life.compose)
        self._wake_at: float | None = None
        self._ticking = False

    def put(self, event: Any) -> None:
        self.put_item(QueuedEvent(event))

    def hear(self, arrival: Arrival) -> None:
        self.put_item(QueuedEvent(MessageReceived(arrival.author, arrival.message), arrival))

    def put_item(self, queued: QueuedEvent) -> None:
        self._queue.append(queued)
        if not self._ticking:
            self._ticking = True
            self.life.world.at(self.life.world.now, self.life.guarded(self._tick))

    def tidy(self) -> None:
        """Let go of messages that are acknowledged or given up; nothing hangs on when."""
        if delivered := self.life.take_finished(self.durable):
            self.durable.commit(Commit(power_safe=False), delivered)

    # --- one tick -------------------------------------------------------------------------------

    def _tick(self) -> None:
        life, world = self.life, self.life.world
        if world.now < life.busy_until:
            world.at(life.busy_until, life.guarded(self._tick))
            return
        self._ticking = False
        queue, self._queue = self._queue, []
        now = life.clock()
        handled = [self._handle(queued, now) for queued in queue]
        due = self.machine.next_deadline()
        if due is not None and due <= now:
            passed = TimePassed()
            handled.append(Handled(QueuedEvent(passed), self.machine.handle(passed, now)))
        world.watch.after_tick(self, now)
        life.after_tick(self)
        for each in handled:
            for action in each.actions:
                if isinstance(action, Store):
                    world.note(life.node.peer, "moved", None, action.record)
        self._carry_out(self._planner.plan(handled, now))
        self._wake_later()

    def _handle(self, queued: QueuedEvent, now: float) -> Handled:
        life = self.life
        if queued.arrival is not None:
            life.world.watch.before_handling(self, queued.arrival)
        actions = list(self.machine.handle(queued.event, now))
        life.world.note(life.node.peer, "handled", queued.arrival, queued.event)
        if queued.arrival is not None:
            life.world.watch.handled(self, queued.arrival, actions)
        return Handled(queued, actions)

    def _carry_out(self, steps: Sequence[PlanStep], begin: int = 0) -> None:
        life = self.life
        for number in range(begin, len(steps) + 1):
            self._crash_point_before(steps, number)
            match steps[number] if number < len(steps) else None:
                case Commit() as commit:
                    self._commit(commit)
                    if life.busy_until > life.world.now:
                        rest = partial(self._carry_out, steps, number + 1)
                        life.world.at(life.busy_until, life.guarded(rest))
                        return
                case Acknowledge(arrival):
                    life.settle(arrival)
                case Confirm(queued):
                    assert queued.confirm is not None
                    queued.confirm()
                case Dispatch(message):
                    life.world.watch.posted(self.durable, message.envelope)
                    life.dispatch(message)
                case Perform(action):
                    self._act(action)

    def _crash_point_before(self, steps: Sequence[PlanStep], number: int) -> None:
        """The node may be planned to die before the step of this number, or after the last one."""
        before = steps[number - 1] if number > 0 else None
        step = steps[number] if number < len(steps) else None
        commits = [each for each in steps[:number] if isinstance(each, Commit)]
        settles = bool(commits) and commits[-1].power_safe
        if settles and before is commits[-1]:
            self.life.point("before settling")
        if isinstance(step, Acknowledge | Confirm):
            return
        if settles and isinstance(before, Commit | Acknowledge | Confirm):
            self.life.point("after settling")
        effects = [each for each in steps[:number] if isinstance(each, Dispatch | Perform)]
        if isinstance(step, Dispatch | Perform) and len(effects) == 1:
            self.life.point("amid effects")

    def _commit(self, commit: Commit) -> None:
        life = self.life
        life.begin_commit()
        self.durable.commit(commit, life.take_finished(self.durable))
        life.world.watch.committed(self, commit)
        life.point("after commit")

    def _act(self, action: Any) -> None:
        match action:
            case Send(to, message, give_up_at):
                self.life.dispatch(self.life.compose(to, message, give_up_at))
            case Broadcast(message):
                self.life.broadcast(message)
            case _:
                self._perform(self.life, action)

    # --- time -----------------------------------------------------------------------------------

    def _wake_later(self) -> None:
        """Be back at the machine's next deadline, or when what waits is to be committed."""
        clocks = [clock for clock in (self.machine.next_deadline(), self._planner.due) if clock is not None]
        if not clocks:
            return
        due = min(clocks)
        when = self.life.world_time(due)
        if self._wake_at is None or when < self._wake_at:
            self._wake_at = when
            self.life.world.at(when, self.life.guarded(lambda: self._woken(when, due)))

    def _woken(self, when: float, due: float) -> None:
        if self._wake_at != when:
            return
        self._wake_at = None
        self.life.clock_is_at_least(due)
        if not self._ticking:
            self._ticking = True
            self._tick()
