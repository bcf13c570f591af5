"""What the machines of both components have in common: pure, with events in and actions out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bacalhau_p2p.bprotocol.messages import Message
from bacalhau_p2p.model.base import Model, PeerID, UnixSeconds

COMMIT_DELAY = 0.02
"""Seconds that a change waits to share a commit with others, if nothing depends on it yet. A fraction of
`bprotocol.delivery.FIRST_REPEAT`, after which the unacknowledged message that caused it is sent again."""


class Machine(Protocol):
    """Deterministic: the same events at the same times give the same actions."""

    def handle(self, event: Any, now: UnixSeconds) -> Sequence[Any]:
        """Take in one event; what is to be done comes back, in order.

        Whatever it says to store must be kept before anything else of it is done.
        """
        ...

    def next_deadline(self) -> UnixSeconds | None:
        """When to call `handle(TimePassed(), now)` if nothing happens before."""
        ...


class Random(Protocol):
    """A generator of random numbers, handed in so that tests can repeat what a machine does."""

    def random(self) -> float:
        """The next number, from 0.0 up to but not including 1.0."""
        ...


def rests_on_records(action: Any) -> bool:
    """Whether what has changed is to be kept before this action begins.

    Not when a crash amid it leaves nothing that matters: then it is done again, or not at all. An action
    says so by an attribute of this name.
    """
    return bool(getattr(action, "rests_on_records", True))


# --- events that both know ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """`author` is authenticated by the carrier."""

    author: PeerID
    message: Message


@dataclass(frozen=True, slots=True)
class TimePassed:
    """`next_deadline()` has come."""


# --- actions that both ask for ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Store:
    """Keep this record; it replaces the one with its id."""

    record: Model


@dataclass(frozen=True, slots=True)
class Send:
    """To one peer: until acknowledged or `give_up_at`, or once if its carrier is best effort.

    One that is not `durable` is not said again after a crash, because nothing hangs on it.
    """

    to: PeerID
    message: Message
    give_up_at: UnixSeconds
    durable: bool = True


@dataclass(frozen=True, slots=True)
class Broadcast:
    message: Message
