"""The ids of the messages that a node has processed, by author."""

from __future__ import annotations

from bacalhau_p2p.bprotocol.codec import MessageID
from bacalhau_p2p.model.base import PeerID

REMEMBERED_IDS = 8_192
"""Maximum ids remembered, over all authors. When there are so many, the older half is forgotten. A repeat
that is not recognised changes nothing either, because the machines have no transition for it; recognising
it is cheaper."""


class ProcessedIds:
    """Two halves take turns, so that forgetting costs nothing and no time is kept for each id."""

    def __init__(self) -> None:
        self._new: dict[PeerID, set[MessageID]] = {}
        self._old: dict[PeerID, set[MessageID]] = {}
        self._added = 0
        """Ids in `_new`."""

    def has(self, author: PeerID, message_id: MessageID) -> bool:
        return message_id in self._new.get(author, ()) or message_id in self._old.get(author, ())

    def add(self, author: PeerID, message_id: MessageID) -> None:
        if self._added >= REMEMBERED_IDS // 2:
            self._new, self._old, self._added = {}, self._new, 0
        ids = self._new.setdefault(author, set())
        if message_id not in ids:
            ids.add(message_id)
            self._added += 1
