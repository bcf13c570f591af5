"""Who is there: one session for each connected peer, from its first connection to its last.

A session tells of its peer once broadcasts reach it, watches whether its connections still answer,
and tells that it is gone after everything that it had sent has been handed over.
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
from bacalhau_p2p.transports.libp2p.gossip import peer_id_text
from bacalhau_p2p.transports.libp2p.swarm import GuardedSwarm, abort

READY_WITHIN: Final = 1.0
"""Seconds that PeerConnected waits for the peer's subscriptions; it may have none."""

PING_EVERY: Final = 2.5
PING_TIMEOUT: Final = 3.0
"""Seconds. A silent connection is given up after at most their sum."""

Emit = Callable[[PeerConnected | PeerDisconnected], Awaitable[None]]


class Session:
    """The time for which a peer is connected without a break."""

    def __init__(self, peer: PeerID, predecessor: Session | None) -> None:
        self.peer = peer
        self.predecessor = predecessor
        self.subscribed = trio.Event()
        self.gone = trio.Event()
        self.done = trio.Event()
        self.readers = 0
        self._announced = False
        self._announcing = trio.Lock()
        self._idle = trio.lowlevel.ParkingLot()

    async def announce(self, emit: Emit) -> None:
        """Tell of the peer, once, and after the farewell of its last session."""
        if self._announced:
            return
        async with self._announcing:
            if not self._announced:
                if self.predecessor is not None:
                    await self.predecessor.done.wait()
                    self.predecessor = None
                await emit(PeerConnected(self.peer))
                self._announced = True

    async def disconnect(self, emit: Emit) -> None:
        """Tell that the peer is gone, once all is handed over that it had sent."""
        while self.readers:
            await self._idle.park()
        await emit(PeerDisconnected(self.peer))
        self.done.set()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The farewell waits for the end of this block: it may still hand over what the peer sent."""
        self.readers += 1
        try:
            yield
        finally:
            self.readers -= 1
            self._idle.unpark_all()


class Sessions(INotifee):  # type: ignore[misc]
    """All sessions of a node, kept by what the swarm tells of connections.

    `emit` gets the news of peers; `connection_lost` hears of every yamux connection that ended.
    """

    def __init__(
        self,
        swarm: GuardedSwarm,
        nursery: trio.Nursery,
        *,
        emit: Emit,
        connection_lost: Callable[[Any], None],
        counters: Counter[str],
    ) -> None:
        self._counters = counters
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
        return tuple(self._sessions)

    def is_connected(self, peer: PeerID) -> bool:
        """Whether a connection stands now; a session outlives its last one by a fraction of a second."""
        return any(not conn.is_closed for conn in self._swarm.get_connections(ID.from_base58(peer)))

    def reading(self, peer: PeerID) -> AbstractContextManager[None]:
        """Wraps the reading of what this peer sends."""
        session = self._sessions.get(peer)
        return nullcontext() if session is None else session.reading()

    def subscribed(self, peer: PeerID) -> None:
        """Broadcasts reach this peer now."""
        if session := self._sessions.get(peer):
            session.subscribed.set()

    async def announce(self, peer: PeerID) -> None:
        """Make sure that the peer was told of before anything that it sent."""
        session = self._sessions.get(peer) or self._leaving.get(peer)
        if session is not None:
            await session.announce(self._emit)

    async def connected(self, network: Any, conn: Any) -> None:
        peer_id: ID = conn.muxed_conn.peer_id
        peer = peer_id_text(peer_id.to_bytes())
        if conn.is_closed:
            return
        self._nursery.start_soon(self._watch, conn)
        if peer not in self._sessions:
            session = self._sessions[peer] = Session(peer, self._leaving.get(peer))
            self._nursery.start_soon(self._follow, session)

    async def disconnected(self, network: Any, conn: Any) -> None:
        self._connection_lost(conn.muxed_conn)
        peer_id: ID = conn.muxed_conn.peer_id
        if any(not other.is_closed for other in self._swarm.get_connections(peer_id)):
            return
        peer = peer_id_text(peer_id.to_bytes())
        if session := self._sessions.pop(peer, None):
            self._leaving[peer] = session
            session.gone.set()

    async def opened_stream(self, network: Any, stream: Any) -> None:
        pass

    async def closed_stream(self, network: Any, stream: Any) -> None:
        pass

    async def listen(self, network: Any, multiaddr: Any) -> None:
        pass

    async def listen_close(self, network: Any, multiaddr: Any) -> None:
        pass

    async def _follow(self, session: Session) -> None:
        with trio.move_on_after(READY_WITHIN):
            await wait_for_any(session.subscribed, session.gone)
        await session.announce(self._emit)
        await session.gone.wait()
        await session.disconnect(self._emit)
        if self._leaving.get(session.peer) is session:
            del self._leaving[session.peer]

    async def _watch(self, conn: Any) -> None:
        """Give up a connection that stops answering; a frozen peer or a cut cable sends no farewell."""
        while not conn.is_closed:
            with FaultBarrier(self._counters, "close_faults", "watching a connection"):
                if not await conn.muxed_conn.ping(PING_TIMEOUT):
                    await abort(conn.muxed_conn)
                    return
            with trio.move_on_after(PING_EVERY):
                await conn.event_closed.wait()


async def wait_for_any(*events: trio.Event) -> None:
    """Wait until one of the events is set."""
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)
