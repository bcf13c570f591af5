"""One machine of a node and what it keeps, driven as its service drives it: handle, commit, then act."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bacalhau_p2p.bprotocol.codec import MessageID
from bacalhau_p2p.bprotocol.messages import Carrier, Message
from bacalhau_p2p.components.protocol import (
    COMMITS_TOGETHER,
    Broadcast,
    Machine,
    MessageReceived,
    Send,
    Store,
    TimePassed,
    rests_on_records,
)
from bacalhau_p2p.model.base import Model, PeerID
from bacalhau_p2p.model.execution import Job
from tests.simulation.durable import Change, Durable, OutboxMessage, key_of

if TYPE_CHECKING:
    from tests.simulation.node import Life


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that was recognised as new. Fleeting ones and broadcasts have no id."""

    author: PeerID
    message: Message
    id: MessageID | None = None


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    event: Any
    arrival: Arrival | None = None
    token: tuple[str, str] | None = None
    """A user's word for the job that is submitted, and its id."""
    kept: Callable[[], None] | None = None
    """Called when what the event changed is kept."""

    @property
    def matters(self) -> bool:
        """Whether the store or anybody is to learn that it was handled."""
        return self.kept is not None or (self.arrival is not None and self.arrival.id is not None)


class Component:
    """Exactly what a tick of the driver does, with places between its steps at which the node may die."""

    acts_before_commit = False
    keeps_outbox = True
    keeps_inbox = True

    def __init__(
        self, life: Life, machine: Machine, durable: Durable, perform: Callable[[Life, Any], None]
    ) -> None:
        self.life = life
        self.machine = machine
        self.durable = durable
        self._perform = perform
        self._inbox: list[QueuedEvent] = []
        self._unkept = _PendingCommit()
        self._wake_at: float | None = None
        self._ticking = False

    def put(self, event: Any) -> None:
        self.put_item(QueuedEvent(event))

    def hear(self, arrival: Arrival) -> None:
        self.put_item(QueuedEvent(MessageReceived(arrival.author, arrival.message), arrival))

    def put_item(self, item: QueuedEvent) -> None:
        self._inbox.append(item)
        if not self._ticking:
            self._ticking = True
            self.life.world.at(self.life.world.now, self.life.guarded(self._tick))

    def tidy(self) -> None:
        """Let go of messages that are acknowledged or given up; nothing hangs on when."""
        change = Change(finished=self.life.take_finished(self.durable))
        if not change.empty:
            self.durable.commit(change, self.life.clock(), power_safe=False)

    # --- one tick -------------------------------------------------------------------------------

    def _tick(self) -> None:
        life, world = self.life, self.life.world
        if world.now < life.busy_until:
            world.at(life.busy_until, life.guarded(self._tick))
            return
        self._ticking = False
        items, self._inbox = self._inbox, []
        now = life.clock()
        actions: list[Any] = []
        for item in items:
            actions += self._handle(item, now)
        due = self.machine.next_deadline()
        if due is not None and due <= now:
            actions += self.machine.handle(TimePassed(), now)
        world.watch.after_tick(self, now)
        life.after_tick(self)
        others = self._take(items, actions)
        if self.acts_before_commit:
            self._act(self._unkept.posted, others)
            self._unkept.posted = []
            others = []
        self._keep_what_must_be(others, now)
        self._wake_later()

    def _handle(self, item: QueuedEvent, now: float) -> list[Any]:
        life = self.life
        if item.arrival is not None:
            life.world.watch.before_handling(self, item.arrival)
        actions = list(self.machine.handle(item.event, now))
        life.world.note(life.node.peer, "handled", item.arrival, item.event)
        if item.arrival is not None:
            life.world.watch.handled(self, item.arrival, actions)
        return actions

    def _take(self, items: list[QueuedEvent], actions: list[Any]) -> list[Any]:
        """Sort out what is to be kept, and how soon; the actions that are left are to be done after that."""
        unkept, life = self._unkept, self.life
        unkept.items += [item for item in items if item.matters]
        unkept.leaves = any(item.kept is not None for item in items)
        unkept.begins = False
        others: list[Any] = []
        for action in actions:
            match action:
                case Store(record):
                    unkept.records[key_of(record)] = record
                    unkept.leaves |= isinstance(record, Job) and record.state.terminal
                    life.world.note(life.node.peer, "moved", None, record)
                case Send(to, message, give_up_at, durable=True) if message.carrier is Carrier.DIRECT:
                    unkept.posted.append(OutboxMessage(to, life.envelope(message, to), give_up_at))
                    unkept.leaves = True
                case Send():
                    others.append(action)
                case Broadcast():
                    unkept.leaves = True
                    others.append(action)
                case _:
                    unkept.begins |= rests_on_records(action)
                    others.append(action)
        return others

    def _keep_what_must_be(self, others: list[Any], now: float) -> None:
        """What leaves the node rests on what a power cut does not undo, a step inside it on what a crash
        does not undo; and what nothing comes of waits a moment for company, its message unacknowledged."""
        unkept = self._unkept
        if unkept.leaves or (unkept.due is not None and unkept.due <= now):
            self._unkept = _PendingCommit()
            self._commit(self._change(unkept), power_safe=True)
            self._then(lambda: self._act_on(unkept, others))
            return
        if unkept.begins and unkept.records:
            change = Change(records=list(unkept.records.values()))
            unkept.records = {}
            self._commit(change, power_safe=False)
        if unkept.due is None and (unkept.items or unkept.records):
            unkept.due = now + COMMITS_TOGETHER
        self._then(lambda: self._act([], others))

    def _change(self, unkept: _PendingCommit) -> Change:
        change = Change(records=list(unkept.records.values()))
        if self.keeps_outbox:
            change.posted = list(unkept.posted)
        for item in unkept.items:
            if item.arrival is not None and item.arrival.id is not None and self.keeps_inbox:
                change.settled.append((item.arrival.author, item.arrival.id))
            if item.token is not None:
                change.tokens[item.token[0]] = item.token[1]
        change.finished = self.life.take_finished(self.durable)
        return change

    def _commit(self, change: Change, *, power_safe: bool) -> None:
        if change.empty:
            return
        life = self.life
        life.begin_commit()
        self.durable.commit(change, life.clock(), power_safe=power_safe)
        life.world.watch.committed(self, change)
        life.point("after commit")

    def _then(self, what: Callable[[], None]) -> None:
        """Now, or when the disk has done its part."""
        life = self.life
        if life.busy_until > life.world.now:
            life.world.at(life.busy_until, life.guarded(what))
        else:
            what()

    def _act_on(self, unkept: _PendingCommit, others: list[Any]) -> None:
        self.life.point("before settling")
        for item in unkept.items:
            if item.arrival is not None and item.arrival.id is not None:
                self.life.settle(item.arrival)
            if item.kept is not None:
                item.kept()
        self.life.point("after settling")
        self._act(unkept.posted, others)

    def _act(self, posted: list[OutboxMessage], others: list[Any]) -> None:
        life = self.life
        for number, each in enumerate(posted):
            if number == 1:
                life.point("amid effects")
            life.world.watch.posted(self.durable, each.envelope)
            life.dispatch(each)
        for number, action in enumerate(others):
            if number + len(posted) == 1:
                life.point("amid effects")
            match action:
                case Send(to, message, give_up_at):
                    life.dispatch(OutboxMessage(to, life.envelope(message, to), give_up_at))
                case Broadcast(message):
                    life.broadcast(message)
                case _:
                    self._perform(life, action)

    # --- time -----------------------------------------------------------------------------------

    def _wake_later(self) -> None:
        """Be back at the machine's next deadline, or when what waits is to be kept."""
        clocks = [clock for clock in (self.machine.next_deadline(), self._unkept.due) if clock is not None]
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


@dataclass(slots=True)
class _PendingCommit:
    """What was handled and is not yet in the store."""

    items: list[QueuedEvent] = field(default_factory=list)
    records: dict[Hashable, Model] = field(default_factory=dict)
    posted: list[OutboxMessage] = field(default_factory=list)
    due: float | None = None
    leaves: bool = False
    """Somebody is about to learn of it."""
    begins: bool = False
    """A step on this node is about to begin because of it."""
