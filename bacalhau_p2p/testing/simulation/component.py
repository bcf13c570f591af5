"""One machine of a node and what it keeps, driven as its service drives it: handle, commit, then act."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.messages import Carrier, Message
from bacalhau_p2p.machine import Broadcast, Machine, MessageReceived, Send, Store, TimePassed
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.testing.simulation.durable import Change, Durable, Posted

if TYPE_CHECKING:
    from bacalhau_p2p.testing.simulation.node import Life


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that was recognised as new. Fleeting ones and broadcasts have no id."""

    author: PeerID
    message: Message
    id: MessageID | None = None


@dataclass(frozen=True, slots=True)
class Item:
    event: Any
    arrival: Arrival | None = None
    token: tuple[str, str] | None = None
    """A user's word for the job that is submitted, and its id."""
    kept: Callable[[], None] | None = None
    """Called when what the event changed is kept."""


class Component:
    """Exactly what a tick of a service does, with places between its steps at which the node may die."""

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
        self._inbox: list[Item] = []
        self._wake_at: float | None = None
        self._ticking = False

    def put(self, event: Any) -> None:
        self.put_item(Item(event))

    def hear(self, arrival: Arrival) -> None:
        self.put_item(Item(MessageReceived(arrival.author, arrival.message), arrival))

    def put_item(self, item: Item) -> None:
        self._inbox.append(item)
        if not self._ticking:
            self._ticking = True
            self.life.world.at(self.life.world.now, self.life.guarded(self._tick))

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
        self._wake_later()
        posts = self._posts(actions)
        change = self._change(items, actions, posts, now)
        if self.acts_before_commit:
            self._act(actions, posts, [])
            self._commit(change, items)
            self._settle(items)
            return
        if self._commit(change, items):
            life.point("after commit")
        if life.busy_until > world.now:
            world.at(life.busy_until, life.guarded(lambda: self._act(actions, posts, items)))
        else:
            self._act(actions, posts, items)

    def tidy(self) -> None:
        """Let go of messages that are acknowledged or given up; nothing hangs on when."""
        change = Change(finished=self.life.take_finished(self.durable))
        if not change.empty:
            self.durable.commit(change, self.life.clock())

    def _handle(self, item: Item, now: float) -> list[Any]:
        life = self.life
        if item.arrival is not None:
            life.world.watch.before_handling(self, item.arrival)
        actions = list(self.machine.handle(item.event, now))
        life.world.note(life.node.peer, "handled", item.arrival, item.event)
        if item.arrival is not None:
            life.world.watch.handled(self, item.arrival, actions)
        return actions

    def _posts(self, actions: list[Any]) -> list[tuple[Send, Posted]]:
        life = self.life
        return [
            (action, Posted(action.to, life.envelope(action.message, action.to), action.give_up_at))
            for action in actions
            if isinstance(action, Send)
        ]

    def _change(
        self, items: list[Item], actions: list[Any], posts: list[tuple[Send, Posted]], now: float
    ) -> Change:
        change = Change()
        change.records = [action.record for action in actions if isinstance(action, Store)]
        if self.keeps_outbox:
            change.posted = [posted for _, posted in posts if _repeated(posted.envelope)]
        for item in items:
            if item.arrival is not None and item.arrival.id is not None and self.keeps_inbox:
                change.settled.append((item.arrival.author, item.arrival.id))
            if item.token is not None:
                change.tokens[item.token[0]] = item.token[1]
        change.finished = self.life.take_finished(self.durable)
        return change

    def _commit(self, change: Change, items: list[Item]) -> bool:
        if change.empty:
            return False
        life = self.life
        life.begin_commit()
        self.durable.commit(change, life.clock())
        life.world.watch.committed(self, change)
        return True

    def _act(self, actions: list[Any], posts: list[tuple[Send, Posted]], items: list[Item]) -> None:
        life = self.life
        envelopes = iter(posts)
        for number, action in enumerate(actions):
            if number == 1:
                life.point("amid effects")
            match action:
                case Send():
                    _, posted = next(envelopes)
                    life.send(posted, self.durable)
                case Broadcast(message):
                    life.broadcast(message)
                case Store(record):
                    life.world.note(life.node.peer, "kept", None, record)
                case _:
                    self._perform(life, action)
        life.point("before settling")
        self._settle(items)
        life.point("after settling")

    def _settle(self, items: list[Item]) -> None:
        for item in items:
            if item.arrival is not None and item.arrival.id is not None:
                self.life.settle(item.arrival)
            if item.kept is not None:
                item.kept()

    def _wake_later(self) -> None:
        """Be back at the machine's next deadline."""
        due = self.machine.next_deadline()
        if due is None:
            return
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


def _repeated(envelope: Envelope) -> bool:
    return envelope.message.carrier is Carrier.DIRECT
