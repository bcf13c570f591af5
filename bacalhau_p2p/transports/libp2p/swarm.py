"""py-libp2p's swarm, with the doors guarded: who gets in, for how long, and what a fault may end.

Every override names the fault of py-libp2p 0.8.1 that makes it necessary; docs/transport.md has the
whole list, with the test that tells when one of them can go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key_pair
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.tools.anyio_service import LifecycleError
from libp2p.transport.upgrader import TransportUpgrader

from bacalhau_p2p.transports.faults import FaultBarrier
from bacalhau_p2p.transports.libp2p.noise import LeanNoise
from bacalhau_p2p.transports.libp2p.tcp import LeanTCP, LeanTCPStream
from bacalhau_p2p.transports.libp2p.yamux import LeanYamux

MAX_CONNECTIONS: Final = 1024
MAX_CONNECTIONS_PER_PEER: Final = 4
"""Two arise when both ends dial at once; a peer that holds more wastes our sockets."""

MAX_HANDSHAKES: Final = 128
"""Inbound connections that have not yet said who they are; beyond it the oldest is dropped."""

HANDSHAKE_TIMEOUT: Final = 5.0
"""Seconds for a connection to authenticate, and for a stream to name its protocol."""

CLOSE_TIMEOUT: Final = 1.0
"""Seconds for a connection to close in good manners before its socket is closed."""

Admits = Callable[[str], bool]
"""Whether this peer (base58) may be connected to now."""


class ContainedTasks:
    """Stands for a service's manager and starts its tasks so that a fault in one ends that task alone.

    py-libp2p 0.8.1 cancels the whole service, and with it the host, when any task of it fails. It also
    walks its whole tree of tasks to start one (gossip starts one a message) and allows a task 1,000
    children: these run in the manager's nursery, past that tree.
    """

    def __init__(self, manager: Any, counters: Counter[str]) -> None:
        self._manager = manager
        self._counters = counters

    def run_task(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        if not self._manager.is_running:
            raise LifecycleError("the service has ended")

        async def contained() -> None:
            owner = getattr(function, "__self__", None)
            with FaultBarrier(self._counters, "task_faults", f"task {function!r}") as barrier:
                await function(*args)
            if barrier.fault is not None and isinstance(owner, LeanYamux | SwarmConn):
                # Without the task that reads it, or takes its streams, a connection hangs for ever.
                await abort(owner if isinstance(owner, LeanYamux) else owner.muxed_conn)

        self._manager._task_nursery.start_soon(contained)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)


class _NoAutoConnector(AutoConnector):  # type: ignore[misc]
    """Dials nobody. The stock one dials whatever the peer store has heard of, whatever it is told."""

    async def maybe_connect(self) -> None:
        pass


class _MuxerMultistream(MuxerMultistream):  # type: ignore[misc]
    """The stock one makes a stock Yamux whatever class it is given."""

    def __init__(self, negotiate_timeout: float, counters: Counter[str]) -> None:
        super().__init__({YAMUX: LeanYamux}, negotiate_timeout)
        self._counters = counters

    async def new_conn(self, conn: Any, peer_id: ID) -> Any:
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        muxed_conn = LeanYamux(conn, peer_id, is_initiator=conn.is_initiator, counters=self._counters)
        return self._annotate_connection(muxed_conn, conn, protocol)


class GuardedSwarm(Swarm):  # type: ignore[misc]
    """A swarm that dials only what it is told to, and lets nobody in for longer than they stay."""

    def __init__(self, *args: Any, counters: Counter[str], admits: Admits, **options: Any) -> None:
        super().__init__(*args, **options)
        self._counters = counters
        self._admits = admits
        self._handshakes: dict[trio.CancelScope, None] = {}
        self.auto_connector = _NoAutoConnector(self)

    @property
    def manager(self) -> ContainedTasks:
        return ContainedTasks(super().manager, self._counters)

    async def dial_peer(self, peer_id: ID) -> list[Any]:
        """Connections that stand, never a new one.

        The stock one dials whatever address anybody ever reported, one address a peer, and
        remembers a failure for 60 seconds. We dial by address (`dial_addr`).
        """
        connections = [conn for conn in self.get_connections(peer_id) if not conn.is_closed]
        if not connections:
            raise SwarmException(f"not connected to {peer_id}")
        return connections

    async def dial_peer_replacement(self, peer_id: ID) -> None:
        """None: see `dial_peer`."""

    async def add_conn(self, muxed_conn: Any, direction: str = "unknown") -> Any:
        """Refuse ourselves, the banned, and whoever holds enough connections already."""
        peer_id = muxed_conn.peer_id
        refusal = None
        if peer_id == self.self_id:
            refusal = "this is ourselves"
        elif not self._admits(peer_id.to_base58()):
            refusal = "this peer is banned"
        elif len(self.get_connections(peer_id)) >= MAX_CONNECTIONS_PER_PEER:
            refusal = "this peer has enough connections"
        if refusal:
            self._counters["connections_refused"] += 1
            await muxed_conn.secured_conn.close()
            raise SwarmException(refusal)
        return await super().add_conn(muxed_conn, direction)

    async def _do_handle_inbound_connection(self, stream: Any, maddr: Any, failure_event: Any) -> None:
        """Hold an inbound slot while the connection stands, not, as the stock one, for ever."""
        raw_conn = RawConnection(LeanTCPStream(stream), False)
        muxed_conn = None
        try:
            with self._handshake():
                muxed_conn = await self.upgrade_inbound_raw_conn(raw_conn, maddr)
            if muxed_conn is not None:
                await muxed_conn.event_closed.wait()
        finally:
            with trio.CancelScope(shield=True):
                await raw_conn.close()

    @contextmanager
    def _handshake(self) -> Iterator[None]:
        """Half-open connections make room for newcomers, the oldest first."""
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

    async def close_peer(self, peer_id: ID) -> None:
        """Close every connection to this peer, politely if it listens and within CLOSE_TIMEOUT anyway."""
        async with trio.open_nursery() as nursery:
            for conn in self.get_connections(peer_id):
                nursery.start_soon(close_connection, conn, self._counters)

    async def close_all_peers(self) -> None:
        """Close every connection; all of them at once, as each takes 0.2 seconds in stock."""
        async with trio.open_nursery() as nursery:
            for peer_id in list(self.connections):
                nursery.start_soon(self.close_peer, peer_id)


async def close_connection(conn: Any, counters: Counter[str]) -> None:
    """Say goodbye to the other end, or close the socket when that takes long."""
    with FaultBarrier(counters, "close_faults", "closing a connection"):
        with trio.move_on_after(CLOSE_TIMEOUT) as polite:
            await conn.close()
        if polite.cancelled_caught:
            await abort(conn.muxed_conn)


async def abort(muxed_conn: Any) -> None:
    """Close the socket under a connection and let py-libp2p clear up behind it.

    A polite close writes, and so would wait for ever for a peer that reads nothing.
    """
    with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_TIMEOUT):
        await muxed_conn.abort()


def new_swarm(seed: bytes, counters: Counter[str], admits: Admits) -> GuardedSwarm:
    """A swarm of this Ed25519 key that speaks TCP, Noise and Yamux, and nothing else.

    The default of py-libp2p also accepts plaintext, in which anybody is whoever he says.
    """
    key_pair = create_new_key_pair(seed)
    peer_id = ID.from_pubkey(key_pair.public_key)
    peerstore = PeerStore()
    peerstore.add_key_pair(peer_id, key_pair)
    noise = LeanNoise(key_pair, noise_privkey=create_new_noise_key_pair().private_key)
    config = ConnectionConfig(
        max_connections=MAX_CONNECTIONS,
        min_connections=0,
        low_watermark=0,
        high_watermark=MAX_CONNECTIONS,
        max_connections_per_peer=1,  # with more, every dial waits 0.25 s for a second address
        inbound_upgrade_timeout=HANDSHAKE_TIMEOUT,
        outbound_upgrade_timeout=HANDSHAKE_TIMEOUT,
        inbound_stream_protocol_negotiation_timeout=HANDSHAKE_TIMEOUT,
        outbound_stream_protocol_negotiation_timeout=HANDSHAKE_TIMEOUT,
    )
    upgrader = TransportUpgrader(
        secure_transports_by_protocol={NOISE: noise}, muxer_transports_by_protocol={}
    )
    upgrader.muxer_multistream = _MuxerMultistream(upgrader.muxer_multistream.negotiate_timeout, counters)
    return GuardedSwarm(
        peer_id,
        peerstore,
        upgrader,
        transports=[LeanTCP()],
        retry_config=RetryConfig(max_retries=0),
        connection_config=config,
        counters=counters,
        admits=admits,
    )
