"""What one component of a node keeps: records, outbox and inbox, as a kill or a power cut leaves them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.model.base import Model, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution

MessageKey = tuple[PeerID, MessageID]


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    to: PeerID
    envelope: Envelope
    give_up_at: UnixSeconds


@dataclass(slots=True)
class Change:
    """What one tick commits, all or nothing."""

    records: list[Model] = field(default_factory=list)
    posted: list[OutboxMessage] = field(default_factory=list)
    settled: list[MessageKey] = field(default_factory=list)
    finished: list[MessageID] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not (self.records or self.posted or self.settled or self.finished or self.tokens)


def key_of(record: Model) -> Hashable:
    """Under which a record is kept. An execution's id is its bidder's word: it counts within its job only."""
    return (record.job_id, record.id) if isinstance(record, Execution) else record.id  # type: ignore[attr-defined]


_ABSENT = object()


class Durable:
    """Survives its node. Commits after the last synced one may be lost by a power cut, last ones first."""

    def __init__(self) -> None:
        self.records: dict[Hashable, Any] = {}
        self.outbox: dict[MessageID, OutboxMessage] = {}
        self.inbox: dict[MessageKey, UnixSeconds] = {}
        self.tokens: dict[str, str] = {}
        self._unsynced: list[list[tuple[dict[Any, Any], Any, Any]]] = []

    def commit(self, change: Change, now: UnixSeconds, *, power_safe: bool) -> None:
        undo: list[tuple[dict[Any, Any], Any, Any]] = []

        def put(table: dict[Any, Any], key: Any, value: Any) -> None:
            undo.append((table, key, table.get(key, _ABSENT)))
            if value is _ABSENT:
                table.pop(key, None)
            else:
                table[key] = value

        for record in change.records:
            put(self.records, key_of(record), record)
        for posted in change.posted:
            put(self.outbox, posted.envelope.id, posted)
        for key in change.settled:
            put(self.inbox, key, now)
        for message_id in change.finished:
            put(self.outbox, message_id, _ABSENT)
        for token, job_id in change.tokens.items():
            put(self.tokens, token, job_id)
        if power_safe:
            self._unsynced.clear()
        else:
            self._unsynced.append(undo)

    def forget(self, keys: Sequence[Hashable]) -> None:
        """Drop records that are too old to be asked for."""
        for key in keys:
            del self.records[key]

    def lose_power(self, rng: float) -> int:
        """Lose some of the commits that were not synced; how many."""
        lost = int(rng * (len(self._unsynced) + 1))
        for _ in range(lost):
            for table, key, before in reversed(self._unsynced.pop()):
                if before is _ABSENT:
                    table.pop(key, None)
                else:
                    table[key] = before
        self._unsynced.clear()
        return lost
