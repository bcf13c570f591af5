"""py-libp2p's pubsub, guarded and tuned: nothing that a peer sends can end the host, and nothing is dropped
that a small network can carry. docs/transport.md lists the faults of 0.8.1 one by one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import trio
from libp2p.exceptions import ValidationError
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.utils import maybe_consume_signed_record

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.budgets import Budgets
from bacalhau_p2p.transports.faults import FaultBarrier
from bacalhau_p2p.transports.interface import MAX_BROADCAST, Broadcast
from bacalhau_p2p.transports.libp2p.contained_tasks import ContainedTasks
from bacalhau_p2p.transports.libp2p.direct.frames import FrameReader
from bacalhau_p2p.transports.libp2p.gossip.router import GossipRouter
from bacalhau_p2p.transports.libp2p.gossip.signatures import LONGEST_ID, is_signed_by_its_author, signed_bytes
from bacalhau_p2p.transports.libp2p.gossip.writer import GossipWriter, encode_rpc
from bacalhau_p2p.transports.libp2p.peer_ids import peer_id_text
from bacalhau_p2p.transports.libp2p.stream import Libp2pStream

OUTBOUND_QUEUE: Final = 4096
"""Messages that wait for one neighbour; py-libp2p's 32 lose bursts."""

PAUSE_AFTER: Final = 32
"""Messages verified in a row (0.1 ms each) before other tasks have their turn."""


class GuardedPubsub(Pubsub):  # type: ignore[misc]
    """Pubsub that delivers messages at once and survives whatever a peer sends.

    `deliver` takes each broadcast on a subscribed topic, except our own; it must not wait. `subscribed` is
    called with a peer once broadcasts reach it: its subscriptions are known and a stream to it is open.
    `offence` records a peer that breaks the protocol; `budgets` says what is too much.
    """

    def __init__(
        self,
        host: Any,
        router: GossipRouter,
        *,
        deliver: Callable[[Broadcast], None],
        subscribed: Callable[[PeerID], None],
        offence: Callable[[PeerID, str], None],
        budgets: Budgets,
        counters: Counter[str],
    ) -> None:
        super().__init__(host, router, strict_signing=True)
        # py-libp2p counts from seconds. A node that sent more than one message per second repeats sequence
        # numbers after a restart, and its new messages are taken for old ones.
        self.counter = time.time_ns()
        self._deliver = deliver
        self._subscribed = subscribed
        self._offence = offence
        self._counters = counters
        self._writer = GossipWriter()
        self._budgets = budgets
        self._verified = 0  # messages since other tasks had their turn
        self._own_id = self.my_id.to_bytes()
        self._own_key = host.get_public_key().serialize()
        self._read_from: dict[ID, Any] = {}  # the connection of each peer's newest gossip stream to us

    @property
    def manager(self) -> ContainedTasks:
        return ContainedTasks(super().manager, self._counters)

    # --- sending ------------------------------------------------------------------------------

    async def publish(self, topic_id: str, data: bytes) -> None:
        """Sign and send. py-libp2p's also verifies its own signature."""
        message = rpc_pb2.Message(
            data=data, topicIDs=[topic_id], from_id=self._own_id, seqno=self._next_seqno()
        )
        message.signature = self.sign_key.sign(signed_bytes(message))
        message.key = self._own_key
        self._mark_msg_seen(message)
        await self.router.publish(self.my_id, message)

    def send_frame(self, peer_id: ID, frame: bytes) -> None:
        """Write an encoded message to a neighbour at once, or after those that wait for it already."""
        queue, stream = self.peer_queues.get(peer_id), self.peers.get(peer_id)
        if queue is None or stream is None:
            return
        if not len(queue) and self._writer.write_now(stream, frame):
            return
        if not queue.push(frame):
            self._counters["broadcasts_unsent"] += 1

    async def handle_sending_messages(self, peer_id: ID, stream: Any, queue: Any) -> None:
        """Write what waits for a neighbour, until its queue or its stream is closed."""
        if not await self._writer.write_queue(stream, queue):
            await self._drop_stream(stream)

    async def write_msg(self, stream: Any, rpc_msg: Any) -> bool:
        """py-libp2p's interface: False when the message could not be written."""
        if await self._writer.write(stream, encode_rpc(rpc_msg)):
            return True
        await self._drop_stream(stream)
        return False

    async def _drop_stream(self, stream: Any) -> None:
        self._handle_dead_peer(stream.muxed_conn.peer_id)
        await stream.reset()

    # --- receiving ----------------------------------------------------------------------------

    async def continuously_read_stream(self, stream: Any) -> None:
        """Read a neighbour's messages, many per read. Garbage ends this stream only."""
        peer_id = stream.muxed_conn.peer_id
        self._read_from[peer_id] = stream.muxed_conn
        try:
            with FaultBarrier(
                self._counters,
                "gossip_faults",
                "a peer's gossip stream",
                expected=(trio.BrokenResourceError, trio.ClosedResourceError),
            ) as barrier:
                source, reader = Libp2pStream(stream), FrameReader("gossip message")
                while data := await source.receive_some():
                    for encoded in reader.feed(data):
                        await self._handle_rpc(peer_id, encoded)
        finally:
            if self._read_from.get(peer_id) is stream.muxed_conn:
                del self._read_from[peer_id]
        if barrier.fault is not None and not isinstance(barrier.fault, trio.BrokenResourceError):
            self._offence(peer_id_text(peer_id.to_bytes()), "garbage on a gossip stream")
        await stream.reset()

    async def _handle_rpc(self, peer_id: ID, encoded: bytes) -> None:
        """One message of a gossip stream: broadcasts, subscriptions and gossipsub's control messages."""
        rpc = rpc_pb2.RPC.FromString(encoded)
        if not maybe_consume_signed_record(rpc, self.host, peer_id):
            return
        rpc.ClearField("senderRecord")  # or the router verifies it again
        for msg in rpc.publish:
            if self._is_subscribed_to_msg(msg):
                await self.push_msg(peer_id, msg)
                if self._verified >= PAUSE_AFTER:
                    self._verified = 0
                    await trio.lowlevel.checkpoint()
        if len(rpc.subscriptions) <= self.max_subscriptions_per_rpc:
            for subscription in rpc.subscriptions:
                self.handle_subscription(peer_id, subscription)
        if rpc.HasField("control"):
            await self.router.handle_rpc(rpc, peer_id)

    async def push_msg(self, msg_forwarder: ID, msg: Any) -> None:
        """Take a broadcast from a neighbour. A fault drops this message only."""
        if len(msg.data) > MAX_BROADCAST:
            self._counters["broadcasts_refused"] += 1
            return
        with FaultBarrier(self._counters, "gossip_faults", "a message from a peer") as barrier:
            await self._verify_and_deliver(msg_forwarder, msg)
        if barrier.fault is not None:
            self._offence(peer_id_text(msg_forwarder.to_bytes()), "malformed gossip message")

    async def _verify_and_deliver(self, forwarder: ID, msg: Any) -> None:
        if msg.from_id == self._own_id or self._is_msg_seen(msg):
            return
        if len(msg.from_id) > LONGEST_ID:
            raise RemoteProtocolError("the author of a gossip message has too long an id")
        author, neighbour = peer_id_text(msg.from_id), peer_id_text(forwarder.to_bytes())
        if not self._budgets.admits(author, neighbour):
            self._counters["broadcasts_refused"] += 1
            return
        self._verified += 1
        if not is_signed_by_its_author(msg):
            raise RemoteProtocolError("a gossip message is not signed by its author")
        if self.get_msg_validators(msg):
            try:
                await self.validate_msg(forwarder, msg)
            except ValidationError:
                return
        self._mark_msg_seen(msg)
        if not self._budgets.takes_broadcast(author, neighbour, msg.data):
            self._counters["broadcasts_refused"] += 1
            return
        for topic in msg.topicIDs:
            if topic in self.topic_ids:  # at once: py-libp2p's queue of 32 per topic drops bursts
                self._deliver(Broadcast(author, topic, msg.data, neighbour))
        await self.router.publish(forwarder, msg)

    # --- neighbours ---------------------------------------------------------------------------

    def connection_lost(self, muxed_conn: Any) -> None:
        """Open a new stream to a peer when its connection with our stream is lost and another one exists.

        py-libp2p's writes to the lost one until a write fails. That happens when a peer restarts so fast that
        its new connection comes before the loss of the old one is noticed.
        """
        stream = self.peers.get(muxed_conn.peer_id)
        if stream is not None and stream.muxed_conn is muxed_conn:
            self._handle_dead_peer(muxed_conn.peer_id)

    async def _handle_new_peer(self, peer_id: ID) -> None:
        await super()._handle_new_peer(peer_id)
        if (queue := self.peer_queues.get(peer_id)) is not None:
            queue._queue.max_size = OUTBOUND_QUEUE
        self._check_subscribed(peer_id)

    def handle_subscription(self, origin_id: ID, sub_message: Any) -> None:
        super().handle_subscription(origin_id, sub_message)
        self._check_subscribed(origin_id)

    def _handle_dead_peer(self, peer_id: ID) -> None:
        with FaultBarrier(self._counters, "gossip_faults", "forgetting a peer"):
            super()._handle_dead_peer(peer_id)

    def _forget_all_subscriptions(self, peer_id: ID) -> None:
        """Keep them while the peer's own stream is open: it does not send its subscriptions again."""
        connection = self._read_from.get(peer_id)
        if connection is None or connection.event_shutting_down.is_set():
            super()._forget_all_subscriptions(peer_id)

    def _check_subscribed(self, peer_id: ID) -> None:
        """Call `subscribed` if broadcasts reach this peer now."""
        # A hello contains all subscriptions of a peer and is handled without a checkpoint, so another task
        # that acts on this finds them all.
        if peer_id in self.peers and any(peer_id in peers for peers in self.peer_topics.values()):
            self._subscribed(peer_id_text(peer_id.to_bytes()))
