"""Builds the content of a node: its block store, and what fetches blocks from peers and serves them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.content.peers import ContentPeers
from bacalhau_p2p.ipfs.exchange.bitswap.bitswap import PROTOCOL as BITSWAP_PROTOCOL
from bacalhau_p2p.ipfs.exchange.bitswap.bitswap import Bitswap
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.exchange.gateways import Gateways
from bacalhau_p2p.ipfs.exchange.wire import PROTOCOL as CAR_PROTOCOL
from bacalhau_p2p.ipfs.store import pin_owners
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.node.host_limits import content_quota
from bacalhau_p2p.node.networking import Networking
from bacalhau_p2p.outbound.addresses import AddressGuard
from bacalhau_p2p.settings import Settings

MAX_PEERS_ASKED = 64
"""Peers that are asked directly for a CID. The others are found through the DHT."""


@contextmanager
def open_content(settings: Settings, networking: Networking) -> Iterator[Content]:
    """The content of a node, which serves its peers; the block store is open for the length of the block."""
    transport, dht, peer_book = networking.transport, networking.dht, networking.peer_book
    gateways = Gateways(
        lambda: networking.known_nodes.gateways(networking.clock()),
        AddressGuard(settings.allow_private_networks),
    )
    with BlockStore(settings.data_dir / "blocks", quota=content_quota(settings)) as blocks:
        bitswap = Bitswap(blocks, transport.open_stream)
        exchange = Exchange(blocks, transport.open_stream, fallback=bitswap)
        content = Content(
            blocks,
            exchange,
            ContentPeers(
                candidates=lambda: peer_book.candidates(None if dht is None else MAX_PEERS_ASKED),
                ask_for_block=bitswap.block,
                finder=dht,
                gateways=gateways.of,
            ),
            on_pin=lambda cid, owner: dht.provide(cid) if dht and is_announced(owner) else None,
            power_safe=settings.power_safe,
        )
        transport.handle_streams(CAR_PROTOCOL, exchange.serve)
        transport.handle_streams(BITSWAP_PROTOCOL, bitswap.serve)
        yield content


def is_announced(owner: str) -> bool:
    """Whether the DHT announces content with this owner of a pin: what users added and jobs published."""
    return owner == pin_owners.USER or pin_owners.is_published(owner)
