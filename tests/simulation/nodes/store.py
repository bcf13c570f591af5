"""The store of a simulated component: records, outbox and inbox, as a crash or a power cut leaves them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from bacalhau_p2p.bprotocol.codec import MessageID
from bacalhau_p2p.bprotocol.delivery import OutboxMessage
from bacalhau_p2p.components.commit_plan import Commit, record_key
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution
from bacalhau_p2p.model.history import HistoryEvent

MessageKey = tuple[PeerID, MessageID]

_ABSENT = object()


class SimulatedStore:
    """Survives its process. A power cut may undo the last commits, back to the last power-safe one."""

    def __init__(self) -> None:
        self.records: dict[Hashable, Any] = {}
        self.pruned: dict[Hashable, Any] = {}
        """What was deleted because it had ended, for the checks: the node has it no more."""
        self.outbox: dict[MessageID, OutboxMessage] = {}
        self.inbox: dict[MessageKey, UnixSeconds] = {}
        self.tokens: dict[str, str] = {}
        self.histories: dict[JobID, tuple[HistoryEvent, ...]] = {}
        self._unsynced: list[list[tuple[dict[Any, Any], Any, Any]]] = []

    def commit(self, commit: Commit, delivered: Sequence[MessageID]) -> None:
        """As `ComponentStore.commit`."""
        undo: list[tuple[dict[Any, Any], Any, Any]] = []

        def put(table: dict[Any, Any], key: Any, value: Any) -> None:
            undo.append((table, key, table.get(key, _ABSENT)))
            if value is _ABSENT:
                table.pop(key, None)
            else:
                table[key] = value

        for record in commit.records:
            if not isinstance(record, Execution) or record.job_id in self.records:
                put(self.records, record_key(record), record)
        for event in commit.history:
            if event.job_id in self.records:
                put(self.histories, event.job_id, (*self.history(event.job_id), event))
        for message in commit.outbox:
            put(self.outbox, message.envelope.id, message)
        for processed in commit.processed:
            put(self.inbox, (processed.author, processed.id), processed.since)
        for message_id in delivered:
            put(self.outbox, message_id, _ABSENT)
        for note in commit.notes:
            put(self.tokens, note.token, note.job_id)
        if commit.power_safe:
            self._unsynced.clear()
        else:
            self._unsynced.append(undo)

    def known(self, key: Hashable) -> Any:
        """The record of this key, even if it was deleted; None if there never was one."""
        return self.records.get(key, self.pruned.get(key))

    def prune(self) -> int:
        """Delete as the real stores do, in a commit that is not power-safe. Returns how much was deleted."""
        undo: list[tuple[dict[Any, Any], Any, Any]] = []
        for key in [key for key, record in self.records.items() if self._may_go(record)]:
            undo += [(self.records, key, self.records[key]), (self.pruned, key, _ABSENT)]
            self.pruned[key] = self.records.pop(key)
        deleted = len(undo) // 2
        for job_id in [job_id for job_id in self.histories if job_id not in self.records]:
            undo.append((self.histories, job_id, self.histories.pop(job_id)))
        self._unsynced.append(undo)
        return deleted

    def history(self, job_id: JobID) -> tuple[HistoryEvent, ...]:
        """The events of a job, in the order in which they were written."""
        return self.histories.get(job_id, ())

    def _may_go(self, record: Any) -> bool:
        if isinstance(record, Execution):
            return bool(self.records[record.job_id].state.terminal)
        if isinstance(record, ComputeExecution):
            told = [getattr(each.envelope.message, "execution_id", None) for each in self.outbox.values()]
            return record.state.terminal and record.id not in told
        return bool(record.state.terminal)

    def lose_power(self, share: float) -> None:
        """Undo this share, from 0 to 1, of the commits that were not synced, the last ones first."""
        lost = int(share * (len(self._unsynced) + 1))
        for _ in range(lost):
            for table, key, before in reversed(self._unsynced.pop()):
                if before is _ABSENT:
                    table.pop(key, None)
                else:
                    table[key] = before
        self._unsynced.clear()
