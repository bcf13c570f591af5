"""What a node remembers of messages: the ids of all that it saw, and the last few seconds' as a whole."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from bacalhau_p2p.model.base import PeerID

SEEN_DURATION: Final = 120.0
"""Seconds for which the id of a message is remembered at least, unless there are too many."""
MAX_SEEN: Final = 100_000
"""Ids that are remembered; about 150 bytes each."""

MAX_SERVED: Final = 3
"""How often one neighbour gets the same message when it asks."""

RECENT_DURATION: Final = 5.0
"""Seconds for which a message can be asked for."""
MAX_RECENT: Final = 4_096
MAX_RECENT_BYTES: Final = 16 * 1024 * 1024
"""Messages that can be asked for, and their bytes; beyond, the oldest are dropped."""
MAX_HOLDERS: Final = 256
"""Neighbours of which is remembered that they have a message, or got it when they asked; for each message."""


class SeenIds:
    """The ids of messages that this node saw. Two sets take turns, so forgetting costs nothing."""

    def __init__(self) -> None:
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()
        self._turned = 0.0

    def __contains__(self, message_id: object) -> bool:
        return message_id in self._new or message_id in self._old

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def add(self, message_id: bytes, now: float) -> None:
        """Remember this id. `now` in seconds."""
        if len(self._new) >= MAX_SEEN // 2 or now >= self._turned + SEEN_DURATION:
            self._new, self._old, self._turned = set(), self._new, now
        self._new.add(message_id)


@dataclass(slots=True)
class Recent:
    """A message that can be asked for."""

    frame: bytes
    topic: str
    since: float
    holders: set[PeerID]
    """Who has shown to have it, or was told of it."""
    copies: int = 1
    """How often it has come."""
    served: dict[PeerID, int] = field(default_factory=dict)
    """How often it was sent to those who asked."""

    def held_by(self, peer: PeerID) -> bool:
        """Remember that this neighbour has it, or was told; False if that is known, or there are too many."""
        if peer in self.holders or len(self.holders) >= MAX_HOLDERS:
            return False
        self.holders.add(peer)
        return True

    def may_serve(self, peer: PeerID) -> bool:
        """Whether a neighbour that asks for it gets it; counts it."""
        times = self.served.get(peer, 0)
        if times >= MAX_SERVED or (not times and len(self.served) >= MAX_HOLDERS):
            return False
        self.served[peer] = times + 1
        return True


class RecentMessages:
    """The messages of the last seconds, oldest first."""

    def __init__(self) -> None:
        self._messages: OrderedDict[bytes, Recent] = OrderedDict()
        self._bytes = 0

    def add(self, message_id: bytes, message: Recent) -> None:
        """Keep a message for RECENT_DURATION."""
        self._messages[message_id] = message
        self._bytes += len(message.frame)
        while len(self._messages) > MAX_RECENT or self._bytes > MAX_RECENT_BYTES:
            self._drop_oldest()

    def get(self, message_id: bytes) -> Recent | None:
        return self._messages.get(message_id)

    def forget_old(self, now: float) -> None:
        """Drop what is older than RECENT_DURATION."""
        while self._messages and next(iter(self._messages.values())).since <= now - RECENT_DURATION:
            self._drop_oldest()

    def newest_first(self) -> Iterator[tuple[bytes, Recent]]:
        """Ids and messages."""
        return reversed(self._messages.items())

    def forget_peer(self, peer: PeerID) -> None:
        """Nothing is known any more of what this peer has."""
        for message in self._messages.values():
            message.holders.discard(peer)

    def __len__(self) -> int:
        return len(self._messages)

    def _drop_oldest(self) -> None:
        _, message = self._messages.popitem(last=False)
        self._bytes -= len(message.frame)
