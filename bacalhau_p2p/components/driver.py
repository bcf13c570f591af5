"""Drives a pure machine: what arrives in one tick is handled, kept, and only then acted on.

Both components are driven alike. A subclass says how records are kept and how actions are performed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import trio

from bacalhau_p2p.bprotocol.codec import MessageID
from bacalhau_p2p.bprotocol.delivery import OutboxMessage, ProcessedMessage
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.messages import Carrier
from bacalhau_p2p.bprotocol.messenger import Messenger
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
from bacalhau_p2p.errors import StoreFailed
from bacalhau_p2p.model.base import Model, UnixSeconds
from bacalhau_p2p.runtime.alarm import Alarm


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    """An event on its way to the machine, with the message that it came by, if any."""

    event: Any
    arrival: Arrival | None = None
    kept: trio.Event | None = None
    """Set when what the event changed is durable."""
    note: Any = None
    """For the subclass: kept with the event's changes."""

    @property
    def matters(self) -> bool:
        """Whether the store or anybody is to learn that it was handled."""
        return self.kept is not None or (self.arrival is not None and self.arrival.id is not None)


@dataclass(slots=True)
class PendingCommit:
    """What was handled and is not yet in the store: one transaction."""

    items: list[QueuedEvent] = field(default_factory=list)
    records: dict[str, Model] = field(default_factory=dict)
    """By id, the latest."""
    posted: list[OutboxMessage] = field(default_factory=list)
    due: UnixSeconds | None = None

    @property
    def arrivals(self) -> list[Arrival]:
        return [item.arrival for item in self.items if item.arrival is not None]

    def settled(self, now: UnixSeconds) -> list[ProcessedMessage]:
        """The messages whose effects are in here."""
        return [ProcessedMessage(a.author, a.id, now) for a in self.arrivals if a.id is not None]


class Driver(ABC):
    """The loop around a machine. Use its methods while `run` runs."""

    def __init__(
        self,
        machine: Machine,
        messenger: Messenger,
        *,
        clock: Callable[[], UnixSeconds],
        power_safe: bool = True,
    ) -> None:
        """Not `power_safe`: nothing waits for the disk, and a power cut may undo what was promised."""
        self._power_safe = power_safe
        self._driven = machine
        self._messenger = messenger
        self._clock = clock
        self._inbox: list[QueuedEvent] = []
        self._wake = trio.Event()
        self._unkept = PendingCommit()
        self._alarm = Alarm()

    # --- for the subclass -----------------------------------------------------------------------

    @abstractmethod
    def _commit(
        self, unkept: PendingCommit, finished: Sequence[MessageID], now: UnixSeconds, *, power_safe: bool
    ) -> None:
        """Keep all of it in one transaction; outbox rows of `finished` may go. On return a crash of this
        process does not undo it, and if `power_safe` neither does one of the machine."""

    @abstractmethod
    def _perform(self, action: Any, nursery: trio.Nursery) -> None:
        """Begin an action that is not of storing or sending."""

    @abstractmethod
    def _was_kept(self, unkept: PendingCommit) -> None:
        """Tell those who wait for it."""

    def _must_keep_now(self, record: Model) -> bool:
        """Whether somebody waits for this record to be kept."""
        return False

    def _put(self, item: QueuedEvent) -> None:
        self._inbox.append(item)
        self._wake.set()

    async def _put_and_keep(self, event: Any, *, note: Any = None) -> None:
        """Returns when what the event changed is durable."""
        kept = trio.Event()
        self._put(QueuedEvent(event, kept=kept, note=note))
        await kept.wait()

    def _hear(self, arrival: Arrival) -> None:
        self._put(QueuedEvent(MessageReceived(arrival.author, arrival.message), arrival))

    # --- the loop -------------------------------------------------------------------------------

    async def _drive(self, nursery: trio.Nursery) -> None:
        """Until cancelled. What was handled by then is kept. Raises StoreFailed."""
        try:
            nursery.start_soon(self._ring)
            while True:
                self._set_alarm()
                await self._wake.wait()
                self._tick(nursery)
        except StoreFailed:
            self._unkept = PendingCommit()  # a part of what could not be kept must not be either
            raise
        finally:
            self._keep(self._clock())

    def _set_alarm(self) -> None:
        """Ring when something is due; to ring too early now and then costs less than to set it later."""
        clocks = [self._driven.next_deadline(), self._unkept.due]
        due = min((clock for clock in clocks if clock is not None), default=inf)
        self._alarm.no_later_than(due - self._clock())

    async def _ring(self) -> None:
        while True:
            await self._alarm.rings()
            self._wake.set()

    def _tick(self, nursery: trio.Nursery) -> None:
        """Handle all that has arrived; keep what it changed before anything comes of it.

        Three cases, from the costliest: what leaves this node rests on what even a power cut does not
        undo; a step inside it, unless it is simply done again, on what a crash of the process does not
        undo; and a change of which nothing else comes waits a moment for others, its message
        unacknowledged.
        """
        items, self._inbox = self._inbox, []
        self._wake = trio.Event()
        now = self._clock()
        actions: list[Any] = []
        for item in items:
            actions += self._driven.handle(item.event, now)
        deadline = self._driven.next_deadline()
        if deadline is not None and deadline <= now:
            actions += self._driven.handle(TimePassed(), now)
        self._unkept.items += [item for item in items if item.matters]
        leaves, begins = any(item.kept is not None for item in items), False
        others: list[Any] = []
        for action in actions:
            match action:
                case Store(record):
                    self._unkept.records[record.id] = record  # type: ignore[attr-defined]
                    leaves = leaves or self._must_keep_now(record)
                    continue
                case Send(to, message, give_up_at, durable=True) if message.carrier is Carrier.DIRECT:
                    self._unkept.posted.append(self._messenger.compose(to, message, give_up_at))
                    leaves = True
                    continue
                case Send():
                    pass
                case Broadcast():
                    leaves = True
                case _:
                    begins = begins or rests_on_records(action)
            others.append(action)
        if leaves or (self._unkept.due is not None and self._unkept.due <= now):
            self._keep(now)
        else:
            if begins:
                self._keep_against_crash(now)
            if self._unkept.due is None and (self._unkept.items or self._unkept.records):
                self._unkept.due = now + COMMITS_TOGETHER
        for action in others:
            self._act(action, nursery)

    def _act(self, action: Any, nursery: trio.Nursery) -> None:
        match action:
            case Send(to, message, give_up_at):
                if message.carrier is Carrier.DIRECT:
                    self._messenger.dispatch(self._messenger.compose(to, message, give_up_at))
                else:
                    self._messenger.send_once(to, message)
            case Broadcast(message):
                self._messenger.broadcast(message)
            case _:
                self._perform(action, nursery)

    def _keep(self, now: UnixSeconds) -> None:
        """Keep everything, and tell whoever waits for that."""
        unkept, self._unkept = self._unkept, PendingCommit()
        if unkept.items or unkept.records or unkept.posted:
            self._commit(unkept, self._messenger.take_finished(self), now, power_safe=self._power_safe)
        for arrival in unkept.arrivals:
            self._messenger.mark_processed(arrival)
        for item in unkept.items:
            if item.kept is not None:
                item.kept.set()
        for posted in unkept.posted:
            self._messenger.dispatch(posted, owner=self)
        self._was_kept(unkept)

    def _keep_against_crash(self, now: UnixSeconds) -> None:
        """Keep the records; their messages are acknowledged with the next commit that is power safe."""
        records = PendingCommit(records=self._unkept.records)
        self._unkept.records = {}
        if records.records:
            self._commit(records, (), now, power_safe=False)
            self._was_kept(records)
