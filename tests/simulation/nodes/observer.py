"""What a simulated node reports of itself, for the checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from bacalhau_p2p.bprotocol.codec import Envelope
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.components.protocol import Machine
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import PeerID
from tests.simulation.nodes.store import SimulatedStore


class Observer(Protocol):
    """Called as things happen. Raises Violation when a promise is broken."""

    def handling(self, store: SimulatedStore, arrival: Arrival) -> None:
        """The component of this store is about to handle a message."""

    def handled(self, peer: PeerID, store: SimulatedStore, arrival: Arrival, actions: Sequence[Any]) -> None:
        """The message was handled, with these actions."""

    def ticked(self, machine: Machine, now: float) -> None:
        """All events of a tick were handled, at this time of the node's clock."""

    def committed(self, peer: PeerID, store: SimulatedStore, commit: Commit) -> None:
        """The commit is in the store."""

    def refused(self, store: SimulatedStore, record: Any) -> None:
        """The record could not be stored."""

    def dispatching(self, store: SimulatedStore, envelope: Envelope) -> None:
        """A message from the outbox is about to be sent."""

    def sent(self, kind: str) -> None:
        """A message of this kind is sent for the first time, to be repeated until it is acknowledged."""

    def acknowledged(self, peer: PeerID, author: PeerID, ids: Iterable[bytes]) -> None:
        """`author` has acknowledged messages of the node `peer`."""

    def preparing(self, execution: ComputeExecution) -> None:
        """An execution is about to be prepared."""

    def running(self, peer: PeerID, execution: ComputeExecution) -> None:
        """A run is about to begin."""

    def publishing(self, execution: ComputeExecution) -> None:
        """A result is about to be published."""
