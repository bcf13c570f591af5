"""Sessions: one for each connected peer, from its first connection to its last.

A session emits PeerConnected once broadcasts reach the peer, checks that its connections are alive, and emits
PeerDisconnected after everything that the peer had sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import trio
from libp2p.abc import INotifee
from libp2p.peer.id import ID

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.faults import FaultBarrier
from bacalhau_p2p.transports.interface import PeerConnected, PeerDisconnected
from bacalhau_p2p.transports.libp2p.contained_tasks import abort
from bacalhau_p2p.transports.libp2p.peer_ids import peer_id_text
from bacalhau_p2p.transports.libp2p.swarm import GuardedSwarm

SUBSCRIPTION_TIMEOUT: Final = 1.0
"""Seconds that PeerConnected waits for the peer's subscriptions; it may have none."""

PING_INTERVAL: Final = 2.5
"""Seconds without a sign of life after which a peer is pinged, by a node with few connections."""
FEW_CONNECTIONS: Final = 4
"""Connections up to which that holds. With twice as many a node waits twice as long, and so sends no more
pings a second."""
LONGEST_PING_INTERVAL: Final = 7.5
LISTENER_PATIENCE: Final = 1.0
"""Seconds that who was dialled waits longer: so one of the two pings, and the other hears that."""
ROUND_TRIP_LASTS: Final = 30.0
"""Seconds after which a ping measures the round trip again, though the peer sends all the time."""
AT_ONCE: Final = 0.01
"""Seconds that are not worth waiting for."""
PING_TIMEOUT: Final = 3.0
"""Seconds to answer a ping with anything."""

Emit = Callable[[PeerConnected | PeerDisconnected], Awaitable[None]]


class Session:
    """The time for which a peer is connected without a break."""

    def __init__(self, peer: PeerID, predecessor: Session | None) -> None:
        self.peer = peer
        self.predecessor = predecessor
        self.ready = trio.Event()
        """Set when broadcasts reach the peer, or when it is gone."""
        self.gone = trio.Event()
        """Set when the last connection is lost."""
        self.ended = trio.Event()
        """Set once PeerDisconnected was emitted."""
        self.readers = 0
        self._announced = False
        self._announcing = trio.Lock()
        self._idle = trio.lowlevel.ParkingLot()

    async def announce(self, emit: Emit) -> None:
        """Emit PeerConnected, once, and after PeerDisconnected of the peer's last session."""
        if self._announced:
            return
        async with self._announcing:
            if not self._announced:
                if self.predecessor is not None:
                    await self.predecessor.ended.wait()
                    self.predecessor = None
                await emit(PeerConnected(self.peer))
                self._announced = True

    def lose(self) -> None:
        """The last connection is lost."""
        self.gone.set()
        self.ready.set()

    async def end(self, emit: Emit) -> None:
        """Emit PeerDisconnected, once everything is delivered that the peer had sent."""
        while self.readers:
            await self._idle.park()
        await emit(PeerDisconnected(self.peer))
        self.ended.set()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The session does not end within this block, which may still deliver what the peer sent."""
        self.readers += 1
        try:
            yield
        finally:
            self.readers -= 1
            self._idle.unpark_all()


class Sessions(INotifee):  # type: ignore[misc]
    """All sessions of a node, derived from the swarm's notifications of connections.

    `emit` takes PeerConnected and PeerDisconnected. `connected` gets every connection that was made, and
    `connection_lost` every Yamux connection that ended.
    """

    def __init__(
        self,
        swarm: GuardedSwarm,
        nursery: trio.Nursery,
        *,
        emit: Emit,
        connected: Callable[[Any], None],
        connection_lost: Callable[[Any], None],
        counters: Counter[str],
    ) -> None:
        self._counters = counters
        self._connected = connected
        self._connection_lost = connection_lost
        self._swarm = swarm
        self._nursery = nursery
        self._emit = emit
        self._sessions: dict[PeerID, Session] = {}
        self._leaving: dict[PeerID, Session] = {}
        swarm.register_notifee(self)

    def get(self, peer: PeerID) -> Session | None:
        """The session of a connected peer."""
        return self._sessions.get(peer)

    @property
    def peers(self) -> tuple[PeerID, ...]:
        """The connected peers."""
        return tuple(self._sessions)

    def is_connected(self, peer: PeerID) -> bool:
        """Whether there is a connection now. A session outlasts its last one by a fraction of a second."""
        return any(not conn.is_closed for conn in self._swarm.get_connections(ID.from_base58(peer)))

    def reading(self, peer: PeerID) -> AbstractContextManager[None]:
        """A block that reads what this peer sends: its session does not end meanwhile."""
        session = self._sessions.get(peer)
        return nullcontext() if session is None else session.reading()

    def subscribed(self, peer: PeerID) -> None:
        """Broadcasts reach this peer from now on."""
        if session := self._sessions.get(peer):
            session.ready.set()

    async def announce(self, peer: PeerID) -> None:
        """Emit PeerConnected of a peer before anything that it sent."""
        session = self._sessions.get(peer) or self._leaving.get(peer)
        if session is not None:
            await session.announce(self._emit)

    # --- py-libp2p's notifications ------------------------------------------------------------

    async def connected(self, network: Any, conn: Any) -> None:
        peer_id: ID = conn.muxed_conn.peer_id
        peer = peer_id_text(peer_id.to_bytes())
        if conn.is_closed:
            return
        self._nursery.start_soon(self._watch, conn)
        if peer not in self._sessions:
            session = self._sessions[peer] = Session(peer, self._leaving.get(peer))
            self._nursery.start_soon(self._follow, session)
        self._connected(conn)

    async def disconnected(self, network: Any, conn: Any) -> None:
        self._connection_lost(conn.muxed_conn)
        peer_id: ID = conn.muxed_conn.peer_id
        if any(not other.is_closed for other in self._swarm.get_connections(peer_id)):
            return
        peer = peer_id_text(peer_id.to_bytes())
        if session := self._sessions.pop(peer, None):
            self._leaving[peer] = session
            session.lose()

    async def opened_stream(self, network: Any, stream: Any) -> None:
        pass

    async def closed_stream(self, network: Any, stream: Any) -> None:
        pass

    async def listen(self, network: Any, multiaddr: Any) -> None:
        pass

    async def listen_close(self, network: Any, multiaddr: Any) -> None:
        pass

    # --- tasks --------------------------------------------------------------------------------

    async def _follow(self, session: Session) -> None:
        """Emit the events of one session."""
        with trio.move_on_after(SUBSCRIPTION_TIMEOUT):
            await session.ready.wait()
        await session.announce(self._emit)
        await session.gone.wait()
        await session.end(self._emit)
        if self._leaving.get(session.peer) is session:
            del self._leaving[session.peer]

    async def _watch(self, conn: Any) -> None:
        """Close a connection that stops answering: a frozen peer, or a cut cable, closes nothing itself."""
        muxed = conn.muxed_conn
        while not conn.is_closed:
            with FaultBarrier(self._counters, "close_faults", "watching a connection"):
                if not await muxed.ping(PING_TIMEOUT):
                    await abort(muxed)
                    return
            pinged_at, pause = trio.current_time(), self._ping_interval(muxed)
            while pause > AT_ONCE and not conn.is_closed:
                with trio.move_on_after(pause):
                    await conn.event_closed.wait()
                due = min(muxed.heard_at + self._ping_interval(muxed), pinged_at + ROUND_TRIP_LASTS)
                pause = due - trio.current_time()

    def _ping_interval(self, muxed: Any) -> float:
        """Seconds without a sign of life of a peer after which to ping it."""
        needed = PING_INTERVAL * len(self._sessions) / FEW_CONNECTIONS
        interval = max(PING_INTERVAL, min(needed, LONGEST_PING_INTERVAL))
        return interval if muxed.is_initiator else interval + LISTENER_PATIENCE
