"""Gossipsub 1.2: broadcasts from and to neighbours. docs/transport.md says what each part is for.

py-libp2p opens the streams; the rest is ours. Its own gossipsub is slow, and can be ended by one packet.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from random import Random
from typing import Any, Final

import trio

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.budgets import Budgets
from bacalhau_p2p.transports.faults import FaultBarrier
from bacalhau_p2p.transports.interface import MAX_BROADCAST, Broadcast
from bacalhau_p2p.transports.libp2p.direct.frames import FrameReader
from bacalhau_p2p.transports.libp2p.gossip.lazy import LazyGossip
from bacalhau_p2p.transports.libp2p.gossip.meshes import Meshes
from bacalhau_p2p.transports.libp2p.gossip.neighbour import Neighbour
from bacalhau_p2p.transports.libp2p.gossip.recent import Recent, RecentMessages, SeenIds
from bacalhau_p2p.transports.libp2p.gossip.signatures import (
    LONGEST_ID,
    PREFIX,
    bare_bytes,
    is_signed_by_its_author,
)
from bacalhau_p2p.transports.libp2p.gossip.streams import GossipStreams
from bacalhau_p2p.transports.libp2p.gossip.wire import (
    GOSSIPSUB_12,
    RPC,
    Control,
    Message,
    encode_control,
    encode_message,
    message_id,
    peek_message_id,
)
from bacalhau_p2p.transports.libp2p.peer_ids import peer_id_text

HEARTBEAT_INTERVAL: Final = 1.0
"""Seconds between two updates of the meshes."""

UNWANTED_SIZE: Final = 8 * 1024
"""Bytes of a message from which on the mesh is told that it need not send it again (IDONTWANT). A smaller one
costs less than telling."""

PAUSE_AFTER: Final = 32
"""Messages verified in a row (0.1 ms each) before other tasks have their turn."""

MAX_MESSAGES: Final = 1_000
"""Messages in one RPC that are read."""
MAX_REPEATS: Final = 1_000
"""Messages that one neighbour sends twice, a heartbeat, before it is an offence."""
MAX_OVERHEAD: Final = 4 * 1024
"""Bytes of a message beside its data: ids, topic, signature and key."""


class Gossip:
    """The broadcasts of one node.

    `deliver` takes each broadcast on a subscribed topic, except our own; it must not wait. `subscribed` is
    called with a peer once broadcasts reach it: its subscriptions are known and a stream to it is open.
    `offence` records a peer that breaks the protocol; `budgets` says what is too much. Tasks run in
    `nursery`.
    """

    def __init__(
        self,
        host: Any,
        nursery: trio.Nursery,
        *,
        deliver: Callable[[Broadcast], None],
        subscribed: Callable[[PeerID], None],
        offence: Callable[[PeerID, str], None],
        budgets: Budgets,
        counters: Counter[str],
    ) -> None:
        self._budgets = budgets
        self._deliver = deliver
        self._offence = offence
        self._counters = counters
        self._sign = host.get_private_key().sign
        self._own_id = host.get_id().to_bytes()
        self._own_key = host.get_public_key().serialize()
        # From nanoseconds, so that a node that restarts does not use a number again.
        self._seqno = time.time_ns()
        self._verified = 0  # messages since other tasks had their turn
        self._seen = SeenIds()
        self._recent = RecentMessages()
        self._streams = GossipStreams(
            host,
            nursery,
            opened=self._opened,
            closed=self._closed,
            receive=self._receive,
            may_send=self._may_send,
            offence=offence,
            counters=counters,
        )
        self._lazy = LazyGossip(
            self._seen, self._recent, clock=trio.current_time, offence=offence, counters=counters
        )
        self.meshes = Meshes(
            self._streams,
            self._lazy,
            Random(),  # noqa: S311 - not for secrets
            subscribed=subscribed,
            offence=offence,
            counters=counters,
        )
        self.connected = self._streams.connected
        self.connection_lost = self._streams.connection_lost

    @property
    def waiting(self) -> int:
        """The most messages that wait for one neighbour."""
        return max((neighbour.waiting for neighbour in self._streams.open), default=0)

    # --- this node ----------------------------------------------------------------------------

    async def subscribe(self, topic: str) -> None:
        """Receive broadcasts on this topic, and pass them on."""
        await trio.lowlevel.checkpoint()
        self.meshes.subscribe(topic)
        self._streams.flush()

    def publish(self, topic: str, data: bytes) -> None:
        """Sign a message and send it to the neighbours at once."""
        self._seqno += 1
        message = Message(
            data=data, topicIDs=[topic], from_id=self._own_id, seqno=self._seqno.to_bytes(8, "big")
        )
        bare = bare_bytes(message)
        frame = encode_message(bare, self._sign(PREFIX + bare), self._own_key)
        identity, now = message_id(message), trio.current_time()
        self._seen.add(identity, now)
        self._recent.add(identity, Recent(frame, topic, now, set()))
        for neighbour in self.meshes.audience(topic):
            neighbour.put(frame, identity)
        self._streams.flush()

    async def run(self) -> None:
        """Keep the meshes until cancelled. A fault ends one beat only."""
        while True:
            await trio.sleep(HEARTBEAT_INTERVAL)
            with FaultBarrier(self._counters, "gossip_faults", "the gossip heartbeat"):
                self._heartbeat()

    def _heartbeat(self) -> None:
        self.meshes.heartbeat()
        self._lazy.heartbeat()
        for neighbour in self._streams.all:
            neighbour.heartbeat()
        self._streams.flush()

    # --- neighbours ---------------------------------------------------------------------------

    def _opened(self, neighbour: Neighbour) -> None:
        self.meshes.opened(neighbour)
        self._streams.flush()

    def _closed(self, neighbour: Neighbour) -> None:
        """A neighbour cannot be written to any more. It may have restarted, and then has forgotten all."""
        self._recent.forget_peer(neighbour.peer)
        self.meshes.closed(neighbour)
        self._streams.flush()

    # --- receiving ----------------------------------------------------------------------------

    async def _receive(self, neighbour: Neighbour, reader: FrameReader, data: bytes) -> None:
        """What one read of a neighbour's stream brought. Raises RemoteProtocolError, DecodeError."""
        for encoded in reader.feed(data):
            identity = peek_message_id(encoded)
            if identity is not None and identity in self._seen:
                self._repeated(neighbour, identity)
                continue
            began = self._budgets.processor()
            rpc = RPC.FromString(encoded)
            self.meshes.handle(neighbour, rpc)
            neighbour.parsing.spend(trio.current_time(), self._budgets.processor() - began)
            for message in islice(rpc.publish, MAX_MESSAGES):
                self._heard(neighbour, message)
                if self._verified >= PAUSE_AFTER:
                    self._verified = 0
                    self._streams.flush()
                    await trio.lowlevel.checkpoint()
        self._streams.flush()
        if (rest := neighbour.parsing.debt_lasts(trio.current_time())) > 0:
            await trio.sleep(rest)

    def _heard(self, neighbour: Neighbour, message: Any) -> None:
        """One message of a neighbour. A fault drops this message only."""
        identity = message_id(message)
        if identity in self._seen:
            self._repeated(neighbour, identity)
            return
        if (
            message.from_id == self._own_id
            or len(message.topicIDs) != 1
            or message.topicIDs[0] not in self.meshes
        ):
            return
        self._counters["broadcasts_received"] += 1
        self._lazy.arrived(identity)
        with FaultBarrier(self._counters, "gossip_faults", "a message from a peer") as barrier:
            self._take(neighbour, identity, message)
        if barrier.fault is not None:
            self._offence(neighbour.peer, "malformed gossip message")

    def _repeated(self, neighbour: Neighbour, identity: bytes) -> None:
        """A message came that this node has: remember who else has it, and do nothing more."""
        self._counters["broadcasts_received"] += 1
        recent = self._recent.get(identity)
        if recent is not None:
            recent.copies += 1
            self.meshes.came(recent.topic, neighbour.peer, recent.copies)
            if recent.held_by(neighbour.peer):
                return
        neighbour.used["repeats"] += 1
        if neighbour.used["repeats"] == MAX_REPEATS + 1:
            self._offence(neighbour.peer, f"more than {MAX_REPEATS} repeated messages within a second")

    def _take(self, neighbour: Neighbour, identity: bytes, message: Any) -> None:
        """Verify, deliver and pass on a message that is new. Raises RemoteProtocolError, and for malformed
        keys anything."""
        if len(message.data) > MAX_BROADCAST or message.ByteSize() > len(message.data) + MAX_OVERHEAD:
            self._counters["broadcasts_refused"] += 1
            return
        if len(message.from_id) > LONGEST_ID:
            raise RemoteProtocolError("the author of a gossip message has too long an id")
        author = peer_id_text(message.from_id)
        if not self._budgets.admits(author, neighbour.peer):
            self._counters["broadcasts_refused"] += 1
            return
        self._verified += 1
        self._counters["broadcasts_verified"] += 1
        bare = bare_bytes(message)
        if not is_signed_by_its_author(message, bare):
            raise RemoteProtocolError("a gossip message is not signed by its author")
        now = trio.current_time()
        self._seen.add(identity, now)
        if not self._budgets.takes_broadcast(author, neighbour.peer, message.data):
            self._counters["broadcasts_refused"] += 1
            return
        topic = message.topicIDs[0]
        frame = encode_message(bare, message.signature, message.key)
        self._recent.add(identity, Recent(frame, topic, now, {neighbour.peer, author}))
        self.meshes.came(topic, neighbour.peer, 1)
        self._deliver(Broadcast(author, topic, message.data, neighbour.peer))
        if len(frame) >= UNWANTED_SIZE:
            self._refuse_more(topic, identity)
        self._pass_on(identity, topic, frame)

    # --- passing on ---------------------------------------------------------------------------

    def _refuse_more(self, topic: str, identity: bytes) -> None:
        """Tell the mesh that it need not send a message (IDONTWANT)."""
        control = Control()
        control.idontwant.add(messageIDs=[identity])
        unwanted = encode_control(control)
        for neighbour in self.meshes.members(topic):
            if neighbour.protocol == GOSSIPSUB_12 and self._may_send(neighbour, identity):
                neighbour.put(unwanted)

    def _pass_on(self, identity: bytes, topic: str, frame: bytes) -> None:
        for neighbour in (*self.meshes.members(topic), *self.meshes.floodsub(topic)):
            if topic not in neighbour.choked and self._may_send(neighbour, identity):
                neighbour.put(frame, identity)

    def _may_send(self, neighbour: Neighbour, identity: bytes) -> bool:
        """Whether a neighbour has not shown to have this message."""
        recent = self._recent.get(identity)
        if recent is not None and neighbour.peer in recent.holders:
            return False
        return not neighbour.unwanted(identity)
