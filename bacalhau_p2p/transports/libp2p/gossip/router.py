"""py-libp2p's gossipsub router, guarded and tuned. docs/transport.md lists the faults of 0.8.1 one by one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

import trio
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2

from bacalhau_p2p.transports.faults import FaultBarrier
from bacalhau_p2p.transports.libp2p.contained_tasks import ContainedTasks
from bacalhau_p2p.transports.libp2p.gossip.writer import encode_rpc

HEARTBEAT_INTERVAL: Final = 1
"""Seconds between two updates of the mesh. With py-libp2p's 120, a new peer stays outside for as long."""


class GossipRouter(GossipSub):  # type: ignore[misc]
    """Sends this node's messages to every subscribed neighbour, and others' along its mesh."""

    def __init__(self, expected_peers: int, counters: Counter[str]) -> None:
        # The hub of a star must keep all its neighbours in the mesh; those outside get nothing.
        degree = max(12, expected_peers)
        super().__init__(
            protocols=[PROTOCOL_ID_V11],  # later versions send an IDONTWANT per message and peer
            degree=degree,
            degree_low=max(6, degree * 2 // 3),
            degree_high=degree * 2,
            heartbeat_initial_delay=0.1,
            heartbeat_interval=HEARTBEAT_INTERVAL,
            spam_protection_enabled=False,  # it also drops our own messages beyond 10 a second
            adaptive_gossip_enabled=False,  # it stretches the heartbeat
            eclipse_protection_enabled=False,  # it requires three internet addresses in each mesh
        )
        self._counters = counters

    @property
    def manager(self) -> ContainedTasks:
        return ContainedTasks(super().manager, self._counters)

    async def heartbeat(self) -> None:
        """Run the heartbeat; a fault ends one beat only."""
        while True:
            with FaultBarrier(self._counters, "gossip_faults", "the gossip heartbeat"):
                await super().heartbeat()
            await trio.sleep(HEARTBEAT_INTERVAL)

    async def publish(self, msg_forwarder: ID, pubsub_msg: Any) -> None:
        """Send a message on: encoded once, and written to the sockets at once.

        py-libp2p's copies and measures it for each peer, and drops messages above a rate, our own too. Its
        other checks (equivocation, scores) are covered by the cache of seen messages and our own limits.
        """
        self.mcache.put(pubsub_msg)
        rpc = rpc_pb2.RPC(publish=[pubsub_msg])
        frame = encode_rpc(rpc)
        msg_id = self.pubsub.get_message_id(pubsub_msg)
        for peer_id in self._get_peers_to_send(
            pubsub_msg.topicIDs, msg_forwarder, ID(pubsub_msg.from_id), msg_id
        ):
            if peer_id in self._pending_control:
                self.send_rpc(peer_id, rpc)  # which adds the control messages that wait
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
        """Send without our peer record, which py-libp2p adds to every message and every receiver verifies."""
        rpc.ClearField("senderRecord")
        super().send_rpc(peer_id, rpc, priority)
