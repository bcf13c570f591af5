"""Messages that are neither acknowledged nor expired, with a share for each peer and a limit for all.

Pure, as a part of delivery. A peer that does not acknowledge, whatever the reason, takes no more than its
share, and when all shares together are too much, the largest gives way. So nobody loses messages by what
others do.
"""

from __future__ import annotations

from dataclasses import dataclass

from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.model.base import PeerID, UnixSeconds


@dataclass(frozen=True, slots=True)
class Limit:
    messages: int
    size: int
    """Bytes of the messages."""


MAX_DURABLE_TO_PEER = 10_000
MAX_DURABLE = 50_000
"""Messages in the outbox. One that is dropped is made up for when the peer reconciles its executions."""
MAX_DURABLE_BYTES_TO_PEER = 32 * 1024 * 1024
MAX_DURABLE_BYTES = 64 * 1024 * 1024
MAX_FLEETING_TO_PEER = 1_000
MAX_FLEETING = 10_000
"""Messages that a crash forgets: bids and their rejections, and answers to anybody. Beyond it, each is sent
once."""
MAX_FLEETING_BYTES_TO_PEER = 1024 * 1024
MAX_FLEETING_BYTES = 8 * 1024 * 1024

DURABLE_TO_PEER = Limit(MAX_DURABLE_TO_PEER, MAX_DURABLE_BYTES_TO_PEER)
DURABLE_TO_ALL = Limit(MAX_DURABLE, MAX_DURABLE_BYTES)
FLEETING_TO_PEER = Limit(MAX_FLEETING_TO_PEER, MAX_FLEETING_BYTES_TO_PEER)
FLEETING_TO_ALL = Limit(MAX_FLEETING, MAX_FLEETING_BYTES)


@dataclass(slots=True)
class InFlightMessage:
    """A message that was sent and is sent again when it is due."""

    to: PeerID
    envelope: Envelope
    give_up_at: UnixSeconds
    due: UnixSeconds
    wait: float
    size: int
    durable: bool


class Share:
    """The messages to one peer, or the sum of all peers."""

    __slots__ = ("messages", "size")

    def __init__(self) -> None:
        self.messages: dict[MessageID, InFlightMessage] = {}
        """The oldest first."""
        self.size = 0

    def exceeds(self, limit: Limit) -> bool:
        return len(self.messages) > limit.messages or self.size > limit.size

    def add(self, message: InFlightMessage) -> None:
        self.messages[message.envelope.id] = message
        self.size += message.size

    def remove(self, message: InFlightMessage) -> None:
        del self.messages[message.envelope.id]
        self.size -= message.size

    @property
    def oldest(self) -> InFlightMessage:
        return next(iter(self.messages.values()))


class Shares:
    """The messages of one sort to all peers."""

    def __init__(self, to_peer: Limit, to_all: Limit) -> None:
        self._to_peer = to_peer
        self._to_all = to_all
        self._peers: dict[PeerID, Share] = {}
        self._all = Share()

    def add(self, message: InFlightMessage) -> None:
        share = self._peers.get(message.to)
        if share is None:
            share = self._peers[message.to] = Share()
        share.add(message)
        self._all.add(message)

    def remove(self, message: InFlightMessage) -> None:
        share = self._peers[message.to]
        share.remove(message)
        self._all.remove(message)
        if not share.messages:
            del self._peers[message.to]

    def to(self, peer: PeerID) -> list[InFlightMessage]:
        """The messages to this peer, the oldest first."""
        share = self._peers.get(peer)
        return list(share.messages.values()) if share is not None else []

    def one_too_many(self, last: InFlightMessage) -> InFlightMessage | None:
        """A message to drop after `last` was added: the oldest of its peer, or of the peer with most."""
        share = self._peers.get(last.to)
        if share is not None and share.exceeds(self._to_peer):
            return share.oldest
        if not self._all.exceeds(self._to_all):
            return None
        by_number = len(self._all.messages) > self._to_all.messages
        largest = max(self._peers.values(), key=lambda each: len(each.messages) if by_number else each.size)
        return largest.oldest

    def add_if_room(self, message: InFlightMessage) -> bool:
        """Add the message, unless that would be too much."""
        self.add(message)
        if self.one_too_many(message) is None:
            return True
        self.remove(message)
        return False
