"""What both machines have in common: they are pure, and take in events and give out actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bacalhau_p2p.bprotocol.messages import Message
from bacalhau_p2p.model.base import Model, PeerID, UnixSeconds
from bacalhau_p2p.model.history import HistoryEvent

COMMIT_DELAY = 0.02
"""Seconds that a change waits to share a commit with others, if nothing depends on it yet. A fraction of
`bprotocol.delivery.FIRST_REPEAT`, after which the unacknowledged message that caused it is sent again."""


class Machine(Protocol):
    """A deterministic state machine: the same events at the same times give the same actions."""

    def handle(self, event: Any, now: UnixSeconds) -> Sequence[Any]:
        """Take in one event, and return the actions to perform, in order.

        Records must be stored before any other action is performed. If this raises, the machine is as it was
        before the event.
        """
        ...

    def next_deadline(self) -> UnixSeconds | None:
        """When to call `handle(TimePassed(), now)` if nothing happens before."""
        ...

    def take_faults(self) -> list[tuple[str, Exception]]:
        """What raised when its deadline had come, since the last call: a name, and the exception. It has
        changed nothing, and its deadline is set anew."""
        ...

    @property
    def unknown(self) -> int:
        """How many events were about jobs or executions that the machine does not know."""
        ...

    def state_of(self, event: Any) -> str:
        """The state of what an event concerns, for the log."""
        ...


class Random(Protocol):
    """A generator of random numbers, handed in so that tests can repeat what a machine does."""

    def random(self) -> float:
        """The next number, from 0.0 up to but not including 1.0."""
        ...


def rests_on_records(action: Any) -> bool:
    """Whether the records must be stored before this action begins, which is the default.

    They need not if a crash during the action does no harm, because the action is then repeated or not
    needed. An action says so with an attribute of this name.
    """
    return bool(getattr(action, "rests_on_records", True))


# --- events of both machines ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A message arrived. Its carrier has authenticated the `author`."""

    author: PeerID
    message: Message


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The time of `next_deadline()` has come."""


@dataclass(frozen=True, slots=True)
class NotStored:
    """A record of the machine cannot be stored: the store refuses what is in it."""

    record: Model
    reason: str


# --- actions of both machines ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Store:
    """Store this record, in place of an earlier one with its id."""

    record: Model


@dataclass(slots=True)
class Append:
    """Append this event to a history, with the next commit of something else or a little later.

    A crash before that loses it. Not frozen, because that takes three times as long.
    """

    event: HistoryEvent


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to one peer: until it is acknowledged or `give_up_at`, or once if its carrier is best
    effort.

    If it is not `durable`, it is not sent again after a crash, because nothing depends on it.
    """

    to: PeerID
    message: Message
    give_up_at: UnixSeconds
    durable: bool = True


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send a message to every peer that listens to its topic."""

    message: Message
