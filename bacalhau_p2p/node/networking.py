"""A node as a peer: its addresses, the peers that it knows, and how it stays connected to them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from bacalhau_p2p.bprotocol.codec import MessageID
from bacalhau_p2p.bprotocol.messages import MESSAGE_ID_BYTES
from bacalhau_p2p.bprotocol.messenger import ConnectionListener, Messenger
from bacalhau_p2p.discovery.mdns import Mdns
from bacalhau_p2p.discovery.networks import has_private_address
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.ipfs.dht.peerstore import Peerstore
from bacalhau_p2p.ipfs.dht.service import Dht
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.node.addresses import NodeAddresses
from bacalhau_p2p.node.connection_keeper import ConnectionKeeper
from bacalhau_p2p.node.info_exchange import NodeInfoExchange
from bacalhau_p2p.node.known_nodes import KnownNodes
from bacalhau_p2p.node.neighbours_file import NeighboursFile
from bacalhau_p2p.node.peer_book import PeerBook
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.transports.interface import Transport


@dataclass(frozen=True, kw_only=True)
class Networking:
    """The parts that every node has, whichever components it runs."""

    identity: Identity
    transport: Transport
    clock: Callable[[], UnixSeconds]
    messenger: Messenger
    addresses: NodeAddresses
    known_nodes: KnownNodes
    peer_book: PeerBook
    info_exchange: NodeInfoExchange
    keeper: ConnectionKeeper
    dht: Dht | None
    mdns: Mdns | None


def build_networking(
    settings: Settings,
    identity: Identity,
    transport: Transport,
    clock: Callable[[], UnixSeconds],
    rng: random.Random,
) -> Networking:
    """Put the parts together. Nothing runs yet."""
    messenger = _build_messenger(settings, transport, clock, rng)
    known_nodes = KnownNodes()
    peer_book = PeerBook(transport, known_nodes, clock)
    dht = _build_dht(settings, transport, peer_book, clock)
    info_exchange = NodeInfoExchange(
        messenger,
        transport,
        known_nodes,
        clock,
        is_acquainted=lambda peer: (
            peer == identity.peer_id or transport.budgets.has_answered(peer) or peer in transport.peers
        ),
        random=rng.random,
        network=settings.network,
    )
    keeper = ConnectionKeeper(
        transport,
        known_nodes,
        NeighboursFile(settings.data_dir / "neighbours.json"),
        wanted=settings.neighbours,
        clock=clock,
        rng=rng,
    )
    named = {PeerID(address.rpartition("/p2p/")[2]) for address in settings.peers}
    keeper.protect(lambda: named | peer_book.from_users)
    keeper.protect(messenger.waiting_for)
    messenger.watch_connections(_connection_listener(keeper, info_exchange, dht))
    return Networking(
        identity=identity,
        transport=transport,
        clock=clock,
        messenger=messenger,
        addresses=NodeAddresses(settings, transport),
        known_nodes=known_nodes,
        peer_book=peer_book,
        info_exchange=info_exchange,
        keeper=keeper,
        dht=dht,
        mdns=_build_mdns(settings, transport, keeper, rng),
    )


def _build_messenger(
    settings: Settings, transport: Transport, clock: Callable[[], UnixSeconds], rng: random.Random
) -> Messenger:
    return Messenger(
        transport,
        network=settings.network,
        clock=clock,
        rng=rng.random,
        new_message_id=lambda: MessageID(rng.randbytes(MESSAGE_ID_BYTES)),
    )


def _connection_listener(
    keeper: ConnectionKeeper, info_exchange: NodeInfoExchange, dht: Dht | None
) -> ConnectionListener:
    """Tells the parts of a node that a peer has connected, or is gone."""

    def connection_changed(peer: PeerID, connected: bool) -> None:
        keeper.look_soon()
        if connected:
            info_exchange.met(peer)
        else:
            info_exchange.left(peer)
        if dht is not None and not connected:
            dht.disconnected(peer)

    return connection_changed


def _build_dht(
    settings: Settings,
    transport: Transport,
    peer_book: PeerBook,
    clock: Callable[[], UnixSeconds],
) -> Dht | None:
    """This node's part in the DHT that the settings name."""
    if settings.dht == "off":
        return None
    protocol = f"{settings.dht_prefix or f'/bacalhau/{settings.network}'}/kad/1.0.0"
    dht = Dht(
        transport.peer_id,
        protocol,
        transport.open_stream,
        Peerstore(
            bootstrap=peer_book.dht_nodes,
            add_addresses=peer_book.learn_from_peer,
            own_addresses=lambda: transport.addresses,
            connected=lambda: transport.peers,
        ),
        clock=clock,
        lookup_each_key=bool(settings.dht_prefix),
    )
    if settings.dht == "server":
        transport.handle_streams(protocol, dht.serve)
    return dht


def _build_mdns(
    settings: Settings, transport: Transport, keeper: ConnectionKeeper, rng: random.Random
) -> Mdns | None:
    """How this node finds others on its local network, if it can be reached there."""
    if not settings.mdns or not has_private_address(transport.addresses):
        return None
    return Mdns(lambda: transport.addresses, keeper.found_nearby, rng)
