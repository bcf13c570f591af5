"""The meshes of all topics: who subscribes, who is grafted and pruned, who is offered what lately came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from random import Random
from typing import Any, Final

import trio

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.libp2p.gossip.eager import EagerLinks
from bacalhau_p2p.transports.libp2p.gossip.lazy import LazyGossip
from bacalhau_p2p.transports.libp2p.gossip.mesh import PRUNE_BACKOFF, Changes, Mesh, Reply
from bacalhau_p2p.transports.libp2p.gossip.neighbour import Neighbour
from bacalhau_p2p.transports.libp2p.gossip.streams import GossipStreams
from bacalhau_p2p.transports.libp2p.gossip.wire import FLOODSUB, RPC, Control, encode_control, encode_rpc

FLOOD_PUBLISH: Final = 16
"""Neighbours that get a message of this node at once: those in the mesh, and others up to this number."""
FLOODSUB_PEERS: Final = 16
"""Neighbours without gossipsub that messages are passed on to."""

MAX_TOPICS: Final = 64
MAX_TOPIC_LENGTH: Final = 256
"""Topics of one neighbour that are remembered, and their characters. Of one RPC so many subscriptions, GRAFTs
and PRUNEs are read."""
MAX_CONTROLS: Final = 1_000
"""IHAVEs, IWANTs and IDONTWANTs of one RPC that are read, of each."""


class Meshes:
    """The topics of this node, each with its mesh, and what neighbours say about them.

    `subscribed` is called with a peer once broadcasts reach it; `offence` records one that breaks the
    protocol.
    """

    def __init__(
        self,
        streams: GossipStreams,
        lazy: LazyGossip,
        random: Random,
        *,
        subscribed: Callable[[PeerID], None],
        offence: Callable[[PeerID, str], None],
        counters: Counter[str],
    ) -> None:
        self._streams = streams
        self._lazy = lazy
        self._random = random
        self._subscribed = subscribed
        self._offence = offence
        self._counters = counters
        self._meshes: dict[str, Mesh] = {}
        self._eager: dict[str, EagerLinks] = {}

    def __contains__(self, topic: object) -> bool:
        """Whether this node is subscribed to a topic."""
        return topic in self._meshes

    def links(self, topic: str) -> int:
        """How many neighbours are in the mesh of a topic."""
        return len(self._meshes.get(topic, ()))

    # --- who gets a message -------------------------------------------------------------------

    def audience(self, topic: str) -> list[Neighbour]:
        """Who gets a message of this node: the mesh, and others up to FLOOD_PUBLISH."""
        subscribers = [neighbour for neighbour in self._streams.open if topic in neighbour.topics]
        if len(subscribers) <= FLOOD_PUBLISH:
            return subscribers
        mesh = self._meshes.get(topic, ())
        chosen = [neighbour for neighbour in subscribers if neighbour.peer in mesh]
        others = [neighbour for neighbour in subscribers if neighbour.peer not in mesh]
        return chosen + self._random.sample(others, max(0, min(FLOOD_PUBLISH - len(chosen), len(others))))

    def members(self, topic: str) -> list[Neighbour]:
        """Those in the mesh."""
        found = map(self._streams.get, self._meshes[topic].members)
        return [neighbour for neighbour in found if neighbour is not None]

    def floodsub(self, topic: str) -> Iterator[Neighbour]:
        """Neighbours without gossipsub, which are in no mesh and must be sent everything."""
        speakers = (each for each in self._streams.without_gossipsub if topic in each.topics)
        return islice(speakers, FLOODSUB_PEERS)

    # --- this node ----------------------------------------------------------------------------

    def subscribe(self, topic: str) -> None:
        """Be subscribed to a topic, and say so."""
        if topic in self._meshes:
            return
        self._meshes[topic] = Mesh(self._random)
        self._eager[topic] = EagerLinks(self._random)
        frame = _subscriptions([topic])
        for neighbour in self._streams.open:
            neighbour.put(frame)
            self._join(neighbour, topic)

    def opened(self, neighbour: Neighbour) -> None:
        """A neighbour can be written to: say hello. A hello has all subscriptions."""
        neighbour.put(_subscriptions(self._meshes))
        for topic in sorted(neighbour.topics):
            self._join(neighbour, topic)
        if neighbour.topics:
            self._subscribed(neighbour.peer)

    def closed(self, neighbour: Neighbour) -> None:
        """A neighbour cannot be written to any more."""
        neighbour.early_grafts.clear()
        neighbour.choked.clear()
        for topic, mesh in self._meshes.items():
            self._tell(topic, mesh.left(neighbour.peer, trio.current_time()))

    def heartbeat(self) -> None:
        """A second has passed: keep the meshes, and offer ids to some neighbours outside, and to members that
        hold messages back."""
        for topic, mesh in self._meshes.items():
            self._tell(topic, mesh.heartbeat(trio.current_time()))
            chokes = self._eager[topic].heartbeat(list(mesh.members))
            self._tell_chokes(topic, chokes.choke, chokes.unchoke)
            for peer in (*mesh.next_outside(), *mesh.members):
                neighbour = self._streams.get(peer)
                if neighbour is not None and (peer not in mesh or topic in neighbour.choked):
                    self._lazy.offer(neighbour, topic)

    def came(self, topic: str, peer: PeerID, copy: int) -> None:
        """A neighbour brought a message, as the first, second, ... of all."""
        if eager := self._eager.get(topic):
            eager.came(peer, copy)

    # --- what neighbours say ------------------------------------------------------------------

    def handle(self, neighbour: Neighbour, rpc: Any) -> None:
        """The subscriptions and control messages of an RPC."""
        for subscription in islice(rpc.subscriptions, MAX_TOPICS):
            self._handle_subscription(neighbour, subscription.topicid, subscription.subscribe)
        if not rpc.HasField("control"):
            return
        control, now = rpc.control, trio.current_time()
        for graft in islice(control.graft, MAX_TOPICS):
            self._handle_graft(neighbour, graft.topicID, graft.links if graft.HasField("links") else None)
        for prune in islice(control.prune, MAX_TOPICS):
            neighbour.early_grafts.pop(prune.topicID, None)
            neighbour.choked.discard(prune.topicID)
            if mesh := self._meshes.get(prune.topicID):
                self._tell(prune.topicID, mesh.pruned(neighbour.peer, prune.backoff or PRUNE_BACKOFF, now))
        for choke in islice(control.choke, MAX_TOPICS):
            if not choke.choked:
                self._send_at_once(neighbour, choke.topicID)
            elif choke.topicID in self._meshes:
                neighbour.choked.add(choke.topicID)
        joined = [topic for topic, mesh in self._meshes.items() if neighbour.peer in mesh]
        for topic in self._lazy.offered(neighbour, islice(control.ihave, MAX_CONTROLS), self._meshes, joined):
            if self._eager[topic].missed(neighbour.peer):
                self._tell_chokes(topic, (), [neighbour.peer])
        self._lazy.asked(neighbour, islice(control.iwant, MAX_CONTROLS))
        self._lazy.unwanted(neighbour, islice(control.idontwant, MAX_CONTROLS))

    def _handle_subscription(self, neighbour: Neighbour, topic: str, subscribe: bool) -> None:
        if subscribe and len(neighbour.topics) < MAX_TOPICS and len(topic) <= MAX_TOPIC_LENGTH:
            if topic not in neighbour.topics:
                neighbour.topics.add(topic)
                self._join(neighbour, topic)
            if neighbour.is_open:
                self._subscribed(neighbour.peer)
        elif not subscribe and topic in neighbour.topics:
            neighbour.topics.discard(topic)
            if mesh := self._meshes.get(topic):
                self._tell(topic, mesh.left(neighbour.peer, trio.current_time()))

    def _handle_graft(self, neighbour: Neighbour, topic: str, links: int | None) -> None:
        mesh = self._meshes.get(topic)
        if mesh is None:
            return  # also the specification answers nothing, so that it cannot be used to flood others
        if not neighbour.is_open or topic not in neighbour.topics:
            neighbour.early_grafts[topic] = links
            return
        self._send_at_once(neighbour, topic)
        reply = mesh.grafted(neighbour.peer, links, trio.current_time())
        if reply is Reply.OFFENCE:
            self._counters["gossip_refused"] += 1
            self._offence(neighbour.peer, "a GRAFT while it is to stay out of the mesh")
        elif reply is Reply.REFUSE:
            self._tell(topic, Changes(prune=[neighbour.peer]))

    def _send_at_once(self, neighbour: Neighbour, topic: str) -> None:
        """Hold messages back from a neighbour no longer, and offer what was held back."""
        if topic in neighbour.choked:
            neighbour.choked.discard(topic)
            self._lazy.offer(neighbour, topic, after=0.0)

    def _join(self, neighbour: Neighbour, topic: str) -> None:
        """A neighbour is subscribed and can be written to: take it in, and offer what came lately."""
        mesh = self._meshes.get(topic)
        if (
            mesh is None
            or not neighbour.is_open
            or topic not in neighbour.topics
            or neighbour.protocol == FLOODSUB
        ):
            return
        self._tell(topic, mesh.joined(neighbour.peer, trio.current_time(), dialled=neighbour.dialled))
        if topic in neighbour.early_grafts:
            self._handle_graft(neighbour, topic, neighbour.early_grafts.pop(topic))
        self._lazy.offer(neighbour, topic, after=0.0)

    def _tell(self, topic: str, changes: Changes) -> None:
        """Send the changes of a mesh to those that they concern."""
        for peer in changes.graft:
            control = Control()
            control.graft.add(topicID=topic, links=len(self._meshes[topic]))
            self._put(peer, control)
        for peer in changes.prune:
            control = Control()
            control.prune.add(topicID=topic, backoff=int(PRUNE_BACKOFF))
            self._put(peer, control)

    def _tell_chokes(self, topic: str, choke: Iterable[PeerID], unchoke: Iterable[PeerID]) -> None:
        """Ask members to hold messages back, or to send them at once again."""
        for peers, choked in ((choke, True), (unchoke, False)):
            for peer in peers:
                control = Control()
                control.choke.add(topicID=topic, choked=choked)
                self._put(peer, control)

    def _put(self, peer: PeerID, control: Any) -> None:
        if neighbour := self._streams.get(peer):
            neighbour.put(encode_control(control))


def _subscriptions(topics: Iterable[str]) -> bytes:
    """The encoded RPC that subscribes to these topics."""
    rpc = RPC()
    for topic in topics:
        rpc.subscriptions.add(subscribe=True, topicid=topic)
    return encode_rpc(rpc)
