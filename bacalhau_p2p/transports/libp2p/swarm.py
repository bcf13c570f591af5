"""py-libp2p's swarm, guarded: who may connect, for how long, and what a fault can end.

Each override names the fault of py-libp2p 0.8.1 that makes it necessary. docs/transport.md lists them all,
with the tests that show when one of them can be removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key_pair
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.transport.upgrader import TransportUpgrader

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.descriptors import shares
from bacalhau_p2p.transports.faults import FaultBarrier
from bacalhau_p2p.transports.interface import Traffic
from bacalhau_p2p.transports.libp2p.contained_tasks import CLOSE_TIMEOUT, ContainedTasks, abort
from bacalhau_p2p.transports.libp2p.inbound_slots import InboundSlots
from bacalhau_p2p.transports.libp2p.noise import NoiseSecurity
from bacalhau_p2p.transports.libp2p.tcp import TCPStream, TCPTransport
from bacalhau_p2p.transports.libp2p.yamux.connection import YamuxConnection

MAX_CONNECTIONS: Final = 1024
"""Established connections; fewer when this process may open few files."""

NEWCOMER_SHARE: Final = 8
"""One in so many connections is kept free for newcomers: one that is silent makes room for each."""

MAX_CONNECTIONS_PER_PEER: Final = 4
"""Two arise when both sides dial at once; more only waste sockets."""

MAX_HANDSHAKES: Final = 128
"""Inbound connections that have not authenticated yet; beyond, the oldest is dropped."""

HANDSHAKE_TIMEOUT: Final = 5.0
"""Seconds for a connection to authenticate, and for a stream to negotiate its protocol."""

Admits = Callable[[str], bool]
"""Whether this peer (base58) may be connected now."""

Offence = Callable[[ID, str, str], None]
"""Notes what a peer did wrong, as the name of a counter and in words."""


class _NoAutoConnector(AutoConnector):  # type: ignore[misc]
    """Dials nobody. py-libp2p's dials every address in the peer store, whatever its settings."""

    async def maybe_connect(self) -> None:
        pass


class _MuxerMultistream(MuxerMultistream):  # type: ignore[misc]
    """Makes our `YamuxConnection`. py-libp2p's makes its own Yamux whatever class it is given.

    It also refuses inbound connections here, before there is a multiplexer, so that the peer's dial fails. If
    they were closed later, a peer would find its dial a success, and dial again and again.
    """

    def __init__(self, negotiate_timeout: float, offence: Offence, admit: Callable[[ID], None]) -> None:
        super().__init__({YAMUX: YamuxConnection}, negotiate_timeout)
        self._offence = offence
        self._admit = admit

    async def new_conn(self, conn: Any, peer_id: ID) -> Any:
        if not conn.is_initiator:
            self._admit(peer_id)
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        offence = partial(self._offence, peer_id)
        muxed_conn = YamuxConnection(conn, peer_id, is_initiator=conn.is_initiator, offence=offence)
        return self._annotate_connection(muxed_conn, conn, protocol)


class GuardedSwarm(Swarm):  # type: ignore[misc]
    """A swarm that dials only by address, and limits who connects and how often."""

    def __init__(
        self,
        *args: Any,
        counters: Counter[str],
        admits: Admits,
        slots: InboundSlots,
        traffic: Traffic,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.traffic = traffic
        self._slots = slots
        self._counters = counters
        self._admits = admits
        self._handshakes: dict[trio.CancelScope, None] = {}
        self.auto_connector = _NoAutoConnector(self)

    @property
    def manager(self) -> ContainedTasks:
        return ContainedTasks(super().manager, self._counters)

    async def dial_peer(self, peer_id: ID) -> list[Any]:
        """The existing connections to a peer; never a new one.

        py-libp2p's dials whatever address anybody reported, one address per peer, and remembers a failure for
        60 seconds. We dial by address (`dial_addr`).
        """
        connections = [conn for conn in self.get_connections(peer_id) if not conn.is_closed]
        if not connections:
            raise SwarmException(f"not connected to {peer_id}")
        return connections

    async def dial_peer_replacement(self, peer_id: ID) -> None:
        """Does nothing: see `dial_peer`."""

    async def add_conn(self, muxed_conn: Any, direction: str = "unknown") -> Any:
        """As py-libp2p's, for peers that may connect."""
        try:
            self.admit(muxed_conn.peer_id)
        except SwarmException:
            await muxed_conn.secured_conn.close()
            raise
        return await super().add_conn(muxed_conn, direction)

    def admit(self, peer_id: ID) -> None:
        """Refuse this node itself, banned peers, and peers that have enough connections: SwarmException."""
        refusal = None
        if peer_id == self.self_id:
            refusal = "this peer is the node itself"
        elif not self._admits(peer_id.to_base58()):
            refusal = "this peer is banned"
        elif len(self.get_connections(peer_id)) >= MAX_CONNECTIONS_PER_PEER:
            refusal = "this peer has too many connections"
        if refusal:
            self._counters["connections_refused"] += 1
            raise SwarmException(refusal)

    async def _do_handle_inbound_connection(self, stream: Any, maddr: Any, failure_event: Any) -> None:
        """Hold an inbound slot as long as the connection lasts. py-libp2p never gives it back."""
        tcp = TCPStream(stream, self.traffic)
        raw_conn = RawConnection(tcp, False)
        slot = self._slots.take((tcp.get_remote_address() or ("",))[0])
        try:
            if slot is None:
                self._counters["connections_refused"] += 1
                return
            with self._handshake():
                muxed_conn = await self.upgrade_inbound_raw_conn(raw_conn, maddr)
                if muxed_conn is not None:
                    slot.peer = PeerID(muxed_conn.peer_id.to_base58())
            if slot.peer is not None:
                with slot.scope:
                    await muxed_conn.event_closed.wait()
                if slot.scope.cancelled_caught:
                    self._counters["connections_trimmed"] += 1
                    await abort(muxed_conn.muxed_conn)
        finally:
            if slot is not None:
                self._slots.give_back(slot)
            with trio.CancelScope(shield=True):
                await raw_conn.close()

    @contextmanager
    def _handshake(self) -> Iterator[None]:
        """Limit the connections that authenticate at the same time; the oldest is dropped first."""
        scope = trio.CancelScope()
        self._handshakes[scope] = None
        if len(self._handshakes) > MAX_HANDSHAKES:
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            oldest.cancel()
            self._counters["handshakes_dropped"] += 1
        try:
            with scope:
                yield
        finally:
            self._handshakes.pop(scope, None)

    def protocols_in_use(self, peer: str) -> set[str]:
        """The protocols of the open streams of a peer (base58)."""
        streams = [
            stream
            for conn in self.get_connections(ID.from_base58(peer))
            if not conn.is_closed
            for stream in conn.get_streams()
        ]
        return {str(stream.get_protocol() or "") for stream in streams}

    async def close_peer(self, peer_id: ID) -> None:
        """Close every connection to this peer, within CLOSE_TIMEOUT even when it does not read."""
        async with trio.open_nursery() as nursery:
            for conn in self.get_connections(peer_id):
                nursery.start_soon(close_connection, conn, self._counters)

    async def close_all_peers(self) -> None:
        """Close all connections at once; one after the other takes 0.2 seconds each."""
        async with trio.open_nursery() as nursery:
            for peer_id in list(self.connections):
                nursery.start_soon(self.close_peer, peer_id)


async def close_connection(conn: Any, counters: Counter[str]) -> None:
    """Close a connection in good order, or its socket after CLOSE_TIMEOUT."""
    with FaultBarrier(counters, "close_faults", "closing a connection"):
        with trio.move_on_after(CLOSE_TIMEOUT) as closing:
            await conn.close()
        if closing.cancelled_caught:
            await abort(conn.muxed_conn)


def new_swarm(
    seed: bytes,
    counters: Counter[str],
    admits: Admits,
    silent_for: Callable[[PeerID], float],
    offence: Offence,
) -> GuardedSwarm:
    """A swarm for this Ed25519 key that speaks only TCP, Noise and Yamux. `offence` is called for what peers
    do wrong in Yamux.

    py-libp2p's default also accepts plaintext, in which a peer can claim any identity.
    """
    key_pair = create_new_key_pair(seed)
    peer_id = ID.from_pubkey(key_pair.public_key)
    peerstore = PeerStore()
    peerstore.add_key_pair(peer_id, key_pair)
    noise = NoiseSecurity(key_pair, noise_privkey=create_new_noise_key_pair().private_key)
    most = min(MAX_CONNECTIONS, shares().swarm)
    config = ConnectionConfig(
        max_connections=most,
        min_connections=0,
        low_watermark=0,
        high_watermark=most,
        max_connections_per_peer=1,  # with more, every dial waits 0.25 s for a second address
        inbound_upgrade_timeout=HANDSHAKE_TIMEOUT,
        outbound_upgrade_timeout=HANDSHAKE_TIMEOUT,
        inbound_stream_protocol_negotiation_timeout=HANDSHAKE_TIMEOUT,
        outbound_stream_protocol_negotiation_timeout=HANDSHAKE_TIMEOUT,
    )
    upgrader = TransportUpgrader(
        secure_transports_by_protocol={NOISE: noise}, muxer_transports_by_protocol={}
    )
    traffic = Traffic()
    swarm = GuardedSwarm(
        peer_id,
        peerstore,
        upgrader,
        transports=[TCPTransport(traffic)],
        retry_config=RetryConfig(max_retries=0),
        connection_config=config,
        counters=counters,
        admits=admits,
        slots=InboundSlots(most - most // NEWCOMER_SHARE, silent_for),
        traffic=traffic,
    )
    negotiate_timeout = upgrader.muxer_multistream.negotiate_timeout
    upgrader.muxer_multistream = _MuxerMultistream(negotiate_timeout, offence, swarm.admit)
    return swarm
