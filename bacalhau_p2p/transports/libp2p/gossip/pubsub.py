"""py-libp2p's gossipsub, guarded and tuned: what a peer sends cannot end the host, and nothing is
dropped that a small network can carry. docs/transport.md has the faults of 0.8.1 one by one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Final
from weakref import WeakKeyDictionary

import trio
from libp2p.exceptions import ValidationError
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.utils import maybe_consume_signed_record

from bacalhau_p2p.encoding.framing import encode_frame
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.faults import FaultBarrier
from bacalhau_p2p.transports.interface import MAX_BROADCAST, Broadcast
from bacalhau_p2p.transports.libp2p.direct import FrameReader
from bacalhau_p2p.transports.libp2p.signatures import is_signed_by_its_author, signed_bytes
from bacalhau_p2p.transports.libp2p.stream import Libp2pStream
from bacalhau_p2p.transports.libp2p.swarm import ContainedTasks

HEARTBEAT: Final = 1
"""Seconds between two looks at the mesh; the stock 120 leaves newcomers out for as long."""

OUTBOUND_QUEUE: Final = 4096
"""Messages that wait for one peer; the stock 32 lose bursts."""

JOINED: Final = 65536
"""Bytes of waiting messages put into one write, unless one alone is longer."""

PAUSE_AFTER: Final = 32
"""Messages verified one after the other (0.1 ms each) before other tasks have their turn."""

WRITE_WITHIN: Final = 5.0
"""Seconds for a peer to take a message; one that takes longer hears no more of us, as in stock."""

RATE: Final = 500.0
BURST: Final = 2000.0
"""Messages a second, and at once, that one neighbour may hand us; the rest is dropped and counted.

Far above what a node says (its messenger joins what waits), for a neighbour also passes on what others say.
"""


@lru_cache(maxsize=4096)
def peer_id_text(raw: bytes) -> PeerID:
    """The base58 text of a peer id in bytes, which is slow to compute and always asked again."""
    return PeerID(ID(raw).to_base58())


def framed(message: Any) -> bytes:
    """A message (or what `framed` made of one) as it goes over the wire, its length first."""
    if isinstance(message, bytes):
        return message
    return encode_frame(message.SerializeToString())


class Gossip(GossipSub):  # type: ignore[misc]
    """A router that sends our own messages to everybody it can, and others' along its mesh."""

    def __init__(self, expected_peers: int, counters: Counter[str]) -> None:
        # The hub of a star must keep all its neighbours in the mesh, or those left out hear nothing.
        degree = max(12, expected_peers)
        super().__init__(
            protocols=[PROTOCOL_ID_V11],  # later ones send an IDONTWANT for each message and peer
            degree=degree,
            degree_low=max(6, degree * 2 // 3),
            degree_high=degree * 2,
            heartbeat_initial_delay=0.1,
            heartbeat_interval=HEARTBEAT,
            spam_protection_enabled=False,  # it drops our own messages beyond 10 a second as well
            adaptive_gossip_enabled=False,  # it stretches the heartbeat
            eclipse_protection_enabled=False,  # it wants three addresses of the internet in each mesh
        )
        self._counters = counters

    @property
    def manager(self) -> ContainedTasks:
        return ContainedTasks(super().manager, self._counters)

    async def heartbeat(self) -> None:
        """A heartbeat that outlives a fault of one beat."""
        while True:
            with FaultBarrier(self._counters, "gossip_faults", "the gossip heartbeat"):
                await super().heartbeat()
            await trio.sleep(HEARTBEAT)

    async def publish(self, msg_forwarder: ID, pubsub_msg: Any) -> None:
        """Pass a message on: encoded once, and to the sockets at once.

        The stock one copies and measures it for each peer, and drops what comes fast, our own too. What
        it checks besides (equivocation, scores) the seen cache and our own limits see to.
        """
        self.mcache.put(pubsub_msg)
        rpc = rpc_pb2.RPC(publish=[pubsub_msg])
        frame = framed(rpc)
        msg_id = self.pubsub.get_message_id(pubsub_msg)
        for peer_id in self._get_peers_to_send(
            pubsub_msg.topicIDs, msg_forwarder, ID(pubsub_msg.from_id), msg_id
        ):
            if peer_id in self._pending_control:
                self.send_rpc(peer_id, rpc)  # which takes along what it could not say before
            else:
                self.pubsub.send_frame(peer_id, frame)
        now = int(time.time())
        for topic in pubsub_msg.topicIDs:
            self.time_since_last_publish[topic] = now

    def _get_peers_to_send(
        self, topic_ids: Iterable[str], msg_forwarder: ID, origin: ID, msg_id: bytes | None = None
    ) -> Iterator[ID]:
        """Flood-publish: our own messages reach every subscribed neighbour in one hop, mesh or not."""
        if origin == msg_forwarder == self.pubsub.my_id:
            reached = set()
            for topic in topic_ids:
                reached |= self.pubsub.peer_topics.get(topic, set())
            yield from reached - {origin}
        else:
            yield from super()._get_peers_to_send(topic_ids, msg_forwarder, origin, msg_id)

    def send_rpc(self, peer_id: ID, rpc: Any, priority: bool = False) -> None:
        """Without our peer record, which every message carries in stock and every receiver verifies."""
        rpc.ClearField("senderRecord")
        super().send_rpc(peer_id, rpc, priority)


class GuardedPubsub(Pubsub):  # type: ignore[misc]
    """Pubsub that hands over what arrives at once and survives whatever a peer sends.

    `deliver` gets each broadcast of a subscribed topic, our own excepted; it must not wait.
    `subscribed` is told of a peer (base58) once it can be published to: its subscriptions are known
    and a stream to it is open.
    """

    def __init__(
        self,
        host: Any,
        router: Gossip,
        *,
        deliver: Callable[[Broadcast], None],
        subscribed: Callable[[PeerID], None],
        offence: Callable[[PeerID, str], None],
        counters: Counter[str],
    ) -> None:
        super().__init__(host, router, strict_signing=True)
        # Seconds, as stock, repeat numbers after a restart when more than one message a second was
        # sent before it, and then everybody takes the new ones for old.
        self.counter = time.time_ns()
        self._deliver = deliver
        self._subscribed = subscribed
        self._offence = offence
        self._counters = counters
        self._write_locks: WeakKeyDictionary[Any, trio.Lock] = WeakKeyDictionary()
        self._allowances: dict[ID, tuple[float, float]] = {}  # tokens left, and when that was
        self._verified = 0  # messages since other tasks had their turn
        self._own_id = self.my_id.to_bytes()
        self._own_key = host.get_public_key().serialize()
        self._heard_on: dict[ID, Any] = {}  # the connection of a peer's newest gossip stream to us

    @property
    def manager(self) -> ContainedTasks:
        return ContainedTasks(super().manager, self._counters)

    async def publish(self, topic_id: str, data: bytes) -> None:
        """Sign and send. Stock verifies its own signature before it does."""
        message = rpc_pb2.Message(
            data=data, topicIDs=[topic_id], from_id=self._own_id, seqno=self._next_seqno()
        )
        message.signature = self.sign_key.sign(signed_bytes(message))
        message.key = self._own_key
        self._mark_msg_seen(message)
        await self.router.publish(self.my_id, message)

    async def push_msg(self, msg_forwarder: ID, msg: Any) -> None:
        """Take a message from a neighbour; a fault in it drops it, no more."""
        if len(msg.data) > MAX_BROADCAST or not self._allowed(msg_forwarder):
            self._counters["broadcasts_refused"] += 1
            return
        with FaultBarrier(self._counters, "gossip_faults", "a message from a peer") as barrier:
            await self._take(msg_forwarder, msg)
        if barrier.fault is not None:
            self._offence(peer_id_text(msg_forwarder.to_bytes()), "malformed message")

    async def _take(self, forwarder: ID, msg: Any) -> None:
        if msg.from_id == self._own_id or self._is_msg_seen(msg):
            return
        if self.blacklisted_peers & {forwarder, ID(msg.from_id)}:
            return
        self._verified += 1
        if not is_signed_by_its_author(msg):
            raise RemoteProtocolError("a message whose author did not sign it")
        if self.get_msg_validators(msg):
            try:
                await self.validate_msg(forwarder, msg)
            except ValidationError:
                return
        self._mark_msg_seen(msg)
        self.notify_subscriptions(msg)
        await self.router.publish(forwarder, msg)

    def notify_subscriptions(self, publish_message: Any) -> None:
        """Deliver straight away; the stock queue of 32 a topic drops bursts."""
        author = peer_id_text(publish_message.from_id)
        for topic in publish_message.topicIDs:
            if topic in self.topic_ids:
                self._deliver(Broadcast(author, topic, publish_message.data))

    async def continuously_read_stream(self, stream: Any) -> None:
        """Read in gulps, message after message. Garbage ends this stream, as every fault of it does."""
        peer_id = stream.muxed_conn.peer_id
        self._heard_on[peer_id] = stream.muxed_conn
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
                        await self._heard(peer_id, encoded)
        finally:
            if self._heard_on.get(peer_id) is stream.muxed_conn:
                del self._heard_on[peer_id]
        if barrier.fault is not None and not isinstance(barrier.fault, trio.BrokenResourceError):
            self._offence(peer_id_text(peer_id.to_bytes()), "garbage on gossip")
        await stream.reset()

    async def _heard(self, peer_id: ID, encoded: bytes) -> None:
        """One message of a peer's gossip stream: broadcasts, subscriptions, what gossipsub says of itself."""
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

    def send_frame(self, peer_id: ID, frame: bytes) -> None:
        """Write a framed message to a neighbour at once, or after those that wait for it already."""
        queue, stream = self.peer_queues.get(peer_id), self.peers.get(peer_id)
        if queue is None or stream is None:
            return
        if not len(queue) and self._write_now(stream, frame):
            return
        if not queue.push(frame):
            self._counters["broadcasts_unsent"] += 1

    def _write_now(self, stream: Any, frame: bytes) -> bool:
        if self._write_lock(stream).locked():
            return False
        try:
            return Libp2pStream(stream).send_now(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False  # the task that writes will find out

    async def handle_sending_messages(self, peer_id: ID, stream: Any, queue: Any) -> None:
        """Write what waits for a neighbour, all of it at once, until its queue or its stream is closed."""
        while (item := await queue.pop()) is not None:
            joined = bytearray(framed(item))
            while len(joined) < JOINED and len(queue):
                joined += framed(queue._queue.pop())
            if not await self._write(stream, joined):
                return

    async def write_msg(self, stream: Any, rpc_msg: Any) -> bool:
        """As of py-libp2p: False when the stream broke, or its peer took nothing for WRITE_WITHIN seconds."""
        return await self._write(stream, framed(rpc_msg))

    async def _write(self, stream: Any, frames: bytes | bytearray) -> bool:
        # One write at a time on a stream; two tasks that interleave large messages would garble both.
        async with self._write_lock(stream):
            try:
                with trio.fail_after(WRITE_WITHIN):
                    await Libp2pStream(stream).send_all(frames)
            except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
                self._handle_dead_peer(stream.muxed_conn.peer_id)
                await stream.reset()  # there may be half a message on it
                return False
        return True

    def _write_lock(self, stream: Any) -> trio.Lock:
        lock = self._write_locks.get(stream)
        if lock is None:
            lock = self._write_locks[stream] = trio.Lock()
        return lock

    async def _handle_new_peer(self, peer_id: ID) -> None:
        await super()._handle_new_peer(peer_id)
        if (queue := self.peer_queues.get(peer_id)) is not None:
            queue._queue.max_size = OUTBOUND_QUEUE
        self._tell_if_subscribed(peer_id)

    def handle_subscription(self, origin_id: ID, sub_message: Any) -> None:
        super().handle_subscription(origin_id, sub_message)
        self._tell_if_subscribed(origin_id)

    def _handle_dead_peer(self, peer_id: ID) -> None:
        self._allowances.pop(peer_id, None)
        with FaultBarrier(self._counters, "gossip_faults", "forgetting a peer"):
            super()._handle_dead_peer(peer_id)

    def connection_lost(self, muxed_conn: Any) -> None:
        """Open a new stream to a peer when its connection with our stream is gone and another stands.

        Stock keeps writing into the lost one until a write fails, as when a peer restarts so fast that
        its new connection comes before the end of the old one was noticed.
        """
        stream = self.peers.get(muxed_conn.peer_id)
        if stream is not None and stream.muxed_conn is muxed_conn:
            self._handle_dead_peer(muxed_conn.peer_id)

    def _forget_all_subscriptions(self, peer_id: ID) -> None:
        """Not while the peer's own stream stands: it has said what it wants and will not say it again."""
        heard_on = self._heard_on.get(peer_id)
        if heard_on is None or heard_on.event_shutting_down.is_set():
            super()._forget_all_subscriptions(peer_id)

    def _tell_if_subscribed(self, peer_id: ID) -> None:
        # A hello carries all subscriptions of a peer and is handled in one go, so whoever acts on
        # this in another task finds them all.
        if peer_id in self.peers and any(peer_id in peers for peers in self.peer_topics.values()):
            self._subscribed(peer_id_text(peer_id.to_bytes()))

    def _allowed(self, forwarder: ID) -> bool:
        now = trio.current_time()
        tokens, since = self._allowances.get(forwarder, (BURST, now))
        tokens = min(BURST, tokens + (now - since) * RATE)
        self._allowances[forwarder] = (max(tokens - 1, 0.0), now)
        return tokens >= 1
