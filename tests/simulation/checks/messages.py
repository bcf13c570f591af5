"""Checks on messages: each has its effect once, and nothing is sent or acknowledged before its commit."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.messages import Carrier
from bacalhau_p2p.components.commit_plan import Commit, record_key
from bacalhau_p2p.components.protocol import Send, Store
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.execution import Execution
from tests.simulation.checks.violation import Violation, require
from tests.simulation.nodes.node import SimulatedNode
from tests.simulation.nodes.store import SimulatedStore
from tests.simulation.nodes.timeline import Timeline

STRANGER = PeerID("stranger")
"""A peer that knows every id and sends any message about it, but only under its own name."""


class MessageChecks:
    def __init__(self, timeline: Timeline, nodes: Mapping[PeerID, SimulatedNode]) -> None:
        self._timeline = timeline
        self._nodes = nodes
        self._uncommitted: set[tuple[SimulatedStore, Hashable]] = set()
        """Records whose last change is not committed yet."""
        self._changed_by: dict[tuple[SimulatedStore, PeerID, MessageID], list[Hashable]] = {}
        """The records that a message changed, until it is marked as processed."""
        self._last_word: dict[tuple[PeerID, ExecutionID], float] = {}
        self._traceless: set[tuple[PeerID, PeerID, MessageID]] = set()
        """Receiver, author and id of messages that changed nothing durable. Nothing is kept of them."""
        self._bids: dict[PeerID, set[ExecutionID]] = {}
        """The ids of the bids that each requester took since it started."""

    def last_word(self, requester: PeerID, execution: ExecutionID) -> float:
        """When this requester last handled a message about the execution from its node; 0.0 if never."""
        return self._last_word.get((requester, execution), 0.0)

    def handling(self, store: SimulatedStore, arrival: Arrival) -> None:
        if arrival.id is not None:
            again = (arrival.author, arrival.id) in store.inbox
            require(not again, "repeat", f"{arrival.message.kind} of {arrival.author} has an effect twice")

    def handled(self, peer: PeerID, store: SimulatedStore, arrival: Arrival, actions: Sequence[Any]) -> None:
        if arrival.id is not None:
            changed = [record_key(action.record) for action in actions if isinstance(action, Store)]
            self._changed_by[store, arrival.author, arrival.id] = changed
            self._uncommitted.update((store, key) for key in changed)
            name = (peer, arrival.author, arrival.id)
            if any(isinstance(action, Store) or _is_kept(action) for action in actions):
                self._traceless.discard(name)
            else:
                self._traceless.add(name)
        bid = arrival.message if isinstance(arrival.message, say.Bid) else None
        if arrival.author != STRANGER:
            self._note_word(peer, arrival.message)
        elif bid is None or self._is_known(peer, store, bid.execution_id):
            _check_harmless(arrival, actions)
        if bid is not None and not any(_rejects(action, bid) for action in actions):
            self._bids.setdefault(peer, set()).add(bid.execution_id)

    def committed(self, store: SimulatedStore, commit: Commit) -> None:
        """A message is marked as processed with its effects or after them: a crash must not come between."""
        self._uncommitted.difference_update((store, record_key(record)) for record in commit.records)
        for processed in commit.processed:
            for key in self._changed_by.pop((store, processed.author, processed.id), ()):
                missing = (store, key) in self._uncommitted
                require(
                    not missing, "atomic", f"a message is marked as processed without its change of {key}"
                )

    def refused(self, store: SimulatedStore, record: Any) -> None:
        """The store refuses the record for good: its change is not waited for."""
        self._uncommitted.discard((store, record_key(record)))

    def dispatching(self, store: SimulatedStore, envelope: Envelope) -> None:
        require(envelope.id in store.outbox, "outbox", f"{envelope.message.kind} is sent before its commit")

    def acknowledged(self, peer: PeerID, author: PeerID, ids: Iterable[bytes]) -> None:
        """Whoever acknowledges a message has committed its effect."""
        receiver = self._nodes.get(author)
        if receiver is None:
            return
        for raw in ids:
            message_id = MessageID(raw)
            if any((peer, message_id) in store.inbox for store in receiver.disk.stores):
                continue
            if (author, peer, message_id) in self._traceless:
                continue
            outboxes = [store.outbox for store in self._nodes[peer].disk.stores]
            sent = next((outbox[message_id] for outbox in outboxes if message_id in outbox), None)
            what = sent.envelope.message.kind if sent else "a message"
            raise Violation(
                "acknowledgement", f"{author} acknowledged {what} of {peer} before it committed the effect"
            )

    def stopped(self, node: SimulatedNode) -> None:
        stores = node.disk.stores
        self._bids.pop(node.peer, None)
        self._uncommitted = {each for each in self._uncommitted if each[0] not in stores}
        self._changed_by = {each: keys for each, keys in self._changed_by.items() if each[0] not in stores}

    def _is_known(self, requester: PeerID, store: SimulatedStore, execution: ExecutionID) -> bool:
        """Whether the requester has an execution of this id. One that was started again has forgotten bids,
        which are not stored, and ended executions: a stranger may bid under their ids as under any other."""
        if execution in self._bids.get(requester, ()):
            return True
        return any(
            record.id == execution and not record.state.terminal
            for record in store.records.values()
            if isinstance(record, Execution)
        )

    def _note_word(self, requester: PeerID, message: say.Message) -> None:
        if isinstance(message, say.Heartbeat):
            for line in message.executions:
                self._last_word[requester, line.execution_id] = self._timeline.now
        elif isinstance(message, say.Bid):  # a copy of it that comes late says nothing about the run
            self._last_word.setdefault((requester, message.execution_id), self._timeline.now)
        elif (execution_id := getattr(message, "execution_id", None)) is not None:
            self._last_word[requester, execution_id] = self._timeline.now


def _rejects(action: Any, bid: say.Bid) -> bool:
    message = action.message if isinstance(action, Send) else None
    return isinstance(message, say.BidRejected) and message.execution_id == bid.execution_id


def _is_kept(action: Any) -> bool:
    return isinstance(action, Send) and action.durable and action.message.carrier is Carrier.DIRECT


def _check_harmless(arrival: Arrival, actions: Sequence[Any]) -> None:
    for action in actions:
        harmless = isinstance(action, Send) and action.to == STRANGER and not _is_kept(action)
        if isinstance(action, Store) or not harmless:
            raise Violation("forgery", f"a stranger's {arrival.message.kind} led to {action}")
