"""Nodes that claim to be idle and to have all inputs, bid on every job, and do nothing of use with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.messages import Carrier, Message
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.model.resources import Resources
from tests.simulation.nodes.network import Network, next_step
from tests.simulation.nodes.node import SimulatedNode
from tests.simulation.nodes.timeline import Timeline
from tests.simulation.plans.plan import DATA, OUTLIVING, ClaimantPlan

INTERVAL = 5.0
"""Seconds between two announcements of what a claimant says to be."""
ROOM = Resources(cpu=64, memory=2**36, disk=2**42)


class Claimants:
    """All of one world."""

    def __init__(
        self,
        plans: Iterable[ClaimantPlan],
        timeline: Timeline,
        network: Network,
        nodes: Mapping[PeerID, SimulatedNode],
    ) -> None:
        self._all = [_Claimant(plan, timeline, network, nodes) for plan in plans]

    def begin(self) -> None:
        """Let them join."""
        for each in self._all:
            each.publish()


class _Claimant:
    def __init__(
        self,
        plan: ClaimantPlan,
        timeline: Timeline,
        network: Network,
        nodes: Mapping[PeerID, SimulatedNode],
    ) -> None:
        self._plan = plan
        self._peer = PeerID(plan.name)
        self._timeline = timeline
        self._network = network
        self._nodes = nodes
        self._said = 0
        self._bids = 0
        self._connected: dict[PeerID, int] = {}
        """Which life of each requester it is connected to."""
        self._answered: set[tuple[PeerID, MessageID]] = set()
        network.attach(self._peer, self._receive, lambda message: isinstance(message, say.Announcement))

    def publish(self) -> None:
        """Say what it claims to be, and connect to requesters that have started."""
        self._network.broadcast(self._peer, self._envelope(say.NodeInfoPublished(info=self._info()), None))
        for node in self._nodes.values():
            running = node.running
            if node.plan.requester and running is not None and self._connected.get(node.peer) != node.starts:
                self._connected[node.peer] = node.starts
                running.connection_changed(self._peer, stands=True)
        self._timeline.at(next_step(self._timeline.now + INTERVAL), self.publish)

    # --- answers --------------------------------------------------------------------------------

    def _receive(self, author: PeerID, envelope: Envelope) -> None:
        message = envelope.message
        if message.carrier is Carrier.DIRECT and envelope.id is not None:
            self._send(author, say.Ack(ids=(envelope.id,)))
            if (author, envelope.id) in self._answered:
                return
            self._answered.add((author, envelope.id))
        if isinstance(message, say.Announcement):
            for more in reversed(range(max(1, min(message.bids_each, self._plan.bids)))):
                self._bid(author, message, more)
        elif isinstance(message, say.BidAccepted):
            self._timeline.count_fault(f"accepted one that {self._plan.then}")
            if self._plan.then != "is silent":
                fail = partial(self._fail, author, message)
                self._timeline.at(next_step(self._timeline.now + self._plan.after), fail)

    def _bid(self, requester: PeerID, asked: say.Announcement, more: int) -> None:
        bid = self._new_bid(asked.job_id, asked.round)
        self._send(requester, bid.model_copy(update={"more": more}))

    def _fail(self, requester: PeerID, accepted: say.BidAccepted) -> None:
        """Fail, or hand back, and offer at once to do it again."""
        failed = say.ExecutionFailed(
            job_id=accepted.job_id,
            execution_id=accepted.execution_id,
            reason="it did not work",
            drained=self._plan.then == "hands back",
        )
        self._send(requester, failed)
        again = self._new_bid(accepted.job_id, 1)
        self._send(requester, again.model_copy(update={"late": True}))

    def _new_bid(self, job_id: JobID, number: int) -> say.Bid:
        self._bids += 1
        return say.Bid(
            job_id=job_id,
            execution_id=ExecutionID(f"e-{self._peer}-{self._bids}"),
            round=number,
            reserved_for=30.0,
            outlives_node=self._plan.outlives,
            input_bytes=2**30,
            local_input_bytes=2**30,
        )

    def _send(self, to: PeerID, message: Message) -> None:
        self._network.send(self._peer, to, self._envelope(message, to))

    def _envelope(self, message: Message, to: PeerID | None) -> Envelope:
        self._said += 1
        message_id = MessageID(f"{self._peer}.{self._said}".encode().ljust(16, b"."))
        return Envelope(id=message_id, message=message, to=to, sent=self._timeline.now)

    def _info(self) -> NodeInfo:
        return NodeInfo(
            id=self._peer,
            compute=ComputeInfo(
                engines=("noop", OUTLIVING),
                storage_sources=(DATA,),
                publishers=("ipfs",),
                max_capacity=ROOM,
                available_capacity=ROOM,
            ),
            interval=INTERVAL,
            sent=self._timeline.now,
        )
