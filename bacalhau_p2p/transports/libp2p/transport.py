"""The transport over libp2p: TCP, Noise and Yamux; gossipsub; direct streams.

py-libp2p is imported in this room and nowhere else. Release 0.8.1 must be guarded on every side:
docs/transport.md lists its faults, the guards against them, and the tests that show when a guard can go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import Final

import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.peer.id import ID
from multiaddr import Multiaddr
from trio.abc import HalfCloseableStream

from bacalhau_p2p.errors import PeerUnreachable, SettingsError
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.access_list import EVERYBODY, AccessList
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.clocks import loop_clock
from bacalhau_p2p.runtime.tasks import CarriedError, background
from bacalhau_p2p.transports.arrivals import Arrivals
from bacalhau_p2p.transports.budgets import Budgets
from bacalhau_p2p.transports.faults import FaultBarrier
from bacalhau_p2p.transports.interface import (
    Broadcast,
    DirectFrame,
    IncomingMessages,
    StreamHandler,
    Traffic,
    check_broadcast,
    check_frames,
)
from bacalhau_p2p.transports.libp2p.addresses import (
    address_text,
    parse_announced_address,
    parse_bootstrap_address,
    parse_listen_address,
    parse_peer_address,
)
from bacalhau_p2p.transports.libp2p.admission import BAN_DURATION, Admission
from bacalhau_p2p.transports.libp2p.detached_calls import DetachedCalls
from bacalhau_p2p.transports.libp2p.dialer import Dialer
from bacalhau_p2p.transports.libp2p.direct.links import DirectLinks
from bacalhau_p2p.transports.libp2p.gossip.pubsub import Gossip
from bacalhau_p2p.transports.libp2p.gossip.wire import PROTOCOLS
from bacalhau_p2p.transports.libp2p.host import Host, silence_libp2p
from bacalhau_p2p.transports.libp2p.inbound_streams import InboundStreams
from bacalhau_p2p.transports.libp2p.peer_ids import peer_id_text
from bacalhau_p2p.transports.libp2p.sessions import Sessions
from bacalhau_p2p.transports.libp2p.stream import Libp2pStream
from bacalhau_p2p.transports.libp2p.swarm import new_swarm

DIRECT_PROTOCOL: Final = "/bacalhau/bprotocol/1.0.0"

_LASTING: Final = frozenset({DIRECT_PROTOCOL, *PROTOCOLS, ""})
"""Protocols whose streams are open as long as their connection; "" while one is negotiated."""

FLUSH_TIMEOUT: Final = 0.5
"""Seconds, on exit, for queued frames to be written."""


@asynccontextmanager
async def open_libp2p(
    identity: Identity,
    *,
    listen: Sequence[str] = ("/ip4/127.0.0.1/tcp/0",),
    announce: Sequence[str] = (),
    bootstrap: Sequence[str] = (),
    access: AccessList = EVERYBODY,
    incoming_size: int = 1024,
) -> AsyncIterator[Libp2pTransport]:
    """A node's access to the libp2p network for the length of the block.

    `listen`: TCP multiaddrs to listen on; port 0 takes a free one. `announce`: multiaddrs to announce to
    other peers instead (by default, the addresses of all interfaces where it listens on 0.0.0.0).
    `bootstrap`: multiaddrs with `/p2p/<peer id>` of peers to stay connected to; they are dialled in the
    background, and again when they are lost. `access`: who may connect, and whose broadcasts arrive.
    `incoming_size`: arrivals of one peer that may wait in `incoming`.

    On entry it listens. On exit no task, connection or socket is left; frames sent before have FLUSH_TIMEOUT
    seconds to leave. Raises SettingsError for addresses that are malformed or that it cannot listen on. A
    fault in any task arrives as an ExceptionGroup.
    """
    listen_addresses = [parse_listen_address(address) for address in listen]
    announced = [parse_announced_address(address) for address in announce]
    bootstrap_peers = [(parse_bootstrap_address(address), address) for address in bootstrap]
    silence_libp2p()
    error = CarriedError()
    async with background() as nursery:
        transport = Libp2pTransport(
            identity,
            nursery,
            announced=announced,
            access=access,
            lane_length=incoming_size,
        )
        with closing(transport._arrivals):
            async with transport._running(listen_addresses):
                with error.captured():
                    transport._check_listening(listen_addresses)
                    for peer, address in bootstrap_peers:
                        if peer != identity.peer_id:
                            nursery.start_soon(transport._dialer.keep_connected, address)
                    yield transport
    error.raise_if_captured()


class Libp2pTransport:
    """A `Transport` over libp2p; made by `open_libp2p`.

    PeerConnected comes once broadcasts reach the peer (or after a second, when it subscribes to nothing), so
    a broadcast sent then is not lost. Broadcasts of others may arrive before it.
    """

    def __init__(
        self,
        identity: Identity,
        nursery: trio.Nursery,
        *,
        announced: Sequence[Multiaddr],
        access: AccessList,
        lane_length: int,
    ) -> None:
        counters = self._counters = Counter[str]()
        self._peer = identity.peer_id
        self._nursery = nursery
        self._budgets = Budgets(
            loop_clock(),
            is_connected=lambda peer: self._sessions.get(peer) is not None,
            cut_off=lambda peer, seconds: nursery.start_soon(self.ban, peer, seconds),
        )
        self._arrivals = Arrivals(self._budgets, lane_length)
        self._detached = DetachedCalls(nursery)
        self._admission = Admission(counters, access)
        self._swarm = new_swarm(
            identity.seed,
            counters,
            self._admission.admits,
            self._budgets.silent_for,
            self._note_offence,
        )
        self._host = Host(self._swarm, announced)
        self._inbound = InboundStreams(self._host, self._budgets, counters)
        self._swarm.set_stream_handler(self._inbound.guard)
        self._sessions = self._new_sessions()
        self._gossip = self._new_gossip()
        self._dialer = Dialer(
            self._swarm,
            nursery,
            sessions=self._sessions,
            admits=self._admission.admits,
            budget=self._budgets.dials,
            counters=counters,
        )
        self._links = self._new_links()
        self._inbound.handle(DIRECT_PROTOCOL, self._links.serve)

    def _new_sessions(self) -> Sessions:
        return Sessions(
            self._swarm,
            self._nursery,
            emit=self._arrivals.put,
            connected=lambda conn: self._gossip.connected(conn),
            connection_lost=lambda muxed_conn: self._gossip.connection_lost(muxed_conn),
            counters=self._counters,
        )

    def _new_gossip(self) -> Gossip:
        return Gossip(
            self._host,
            self._nursery,
            deliver=self._deliver_broadcast,
            subscribed=self._sessions.subscribed,
            offence=self._record_offence,
            budgets=self._budgets,
            counters=self._counters,
        )

    def _new_links(self) -> DirectLinks:
        return DirectLinks(
            self._nursery,
            open_stream=partial(self._open_stream, protocol=DIRECT_PROTOCOL),
            deliver=self._deliver_frames,
            reading=self._sessions.reading,
            offence=self._record_offence,
            counters=self._counters,
        )

    # --- the interface ------------------------------------------------------------------------

    @property
    def peer_id(self) -> PeerID:
        return self._peer

    @property
    def addresses(self) -> Sequence[str]:
        return tuple(address_text(address) for address in self._host.get_addrs())

    @property
    def incoming(self) -> IncomingMessages:
        return self._arrivals

    @property
    def budgets(self) -> Budgets:
        return self._budgets

    @property
    def peers(self) -> Collection[PeerID]:
        return self._sessions.peers

    @property
    def transferring(self) -> Collection[PeerID]:
        return [peer for peer in self._sessions.peers if self._swarm.protocols_in_use(peer) - _LASTING]

    @property
    def counters(self) -> dict[str, int]:
        return dict(self._counters)

    @property
    def traffic(self) -> Traffic:
        return self._swarm.traffic

    async def subscribe(self, topic: str) -> None:
        """As in `Transport`."""
        await self._gossip.subscribe(topic)

    async def broadcast(self, topic: str, payload: bytes) -> None:
        """As in `Transport`. Reaches 16 subscribed neighbours at once; each accepts 500 a second."""
        check_broadcast(payload)
        await trio.lowlevel.checkpoint()
        self._gossip.publish(topic, bytes(payload))

    async def send(self, peer: PeerID, *payloads: bytes) -> None:
        """As in `Transport`."""
        check_frames(payloads)
        await self._links.send(peer, *payloads)

    def send_now(self, peer: PeerID, *payloads: bytes) -> bool:
        """As in `Transport`."""
        check_frames(payloads)
        return self._links.send_now(peer, *payloads)

    def learn_addresses(self, peer: PeerID, addresses: Sequence[str]) -> None:
        """As in `Transport`."""
        self._dialer.learn(peer, addresses)

    async def connect(self, address: str) -> PeerID:
        """As in `Transport`."""
        try:
            peer = parse_peer_address(address)
        except ValueError as fault:
            raise PeerUnreachable(str(fault)) from fault
        await self._dialer.connect(peer, (address,))
        return peer

    async def disconnect(self, peer: PeerID) -> None:
        """As in `Transport`. A bootstrap peer is dialled again; `ban` prevents that."""
        await self._detached.run(self._swarm.close_peer, ID.from_base58(peer))

    def handle_streams(self, protocol: str, handler: StreamHandler) -> None:
        """As in `Transport`."""
        self._inbound.handle(protocol, handler)

    async def open_stream(self, peer: PeerID, protocol: str) -> HalfCloseableStream:
        """As in `Transport`."""
        return await self._detached.run(self._open_stream, peer, protocol, discard=Libp2pStream.aclose)

    # --- beyond the interface -----------------------------------------------------------------

    async def ban(self, peer: PeerID, seconds: float = BAN_DURATION) -> None:
        """Close every connection to this peer, and neither accept nor dial it for so long."""
        self._admission.ban(peer, seconds)
        await self.disconnect(peer)

    # --- lifetime -----------------------------------------------------------------------------

    @asynccontextmanager
    async def _running(self, listen: Sequence[Multiaddr]) -> AsyncIterator[None]:
        """Listen and gossip for the length of the block."""
        async with self._host.run(listen_addrs=listen):
            self._host.fix_addresses()
            self._nursery.start_soon(self._gossip.run)
            try:
                yield
            finally:
                with trio.CancelScope(shield=True):
                    await self._close()

    def _check_listening(self, listen: Sequence[Multiaddr]) -> None:
        """py-libp2p does not report that it cannot listen. Raises SettingsError."""
        missing = [str(address) for address in listen if str(address) not in self._swarm.listeners]
        if missing:
            raise SettingsError(f"cannot listen on {', '.join(missing)}")

    async def _close(self) -> None:
        self._admission.close()
        self._dialer.stop()
        with trio.move_on_after(FLUSH_TIMEOUT):
            await self._links.flush()
        # py-libp2p closes peers one after the other, 0.2 seconds each, and leaves sockets open.
        await self._swarm.close_all_peers()
        await self._host.close()

    # --- arrivals -----------------------------------------------------------------------------

    async def _deliver_frames(self, peer: PeerID, payloads: list[bytes]) -> None:
        await self._sessions.announce(peer)
        for payload in payloads:
            if not self._budgets.takes(peer, len(payload)):
                self._counters["frames_refused"] += 1
                continue
            frame = DirectFrame(peer, payload)
            if not self._arrivals.put_now(frame):
                await self._arrivals.put(frame)

    def _deliver_broadcast(self, broadcast: Broadcast) -> None:
        if not self._admission.admits(broadcast.author):  # others pass on what it says
            self._counters["broadcasts_refused"] += 1
        elif not self._arrivals.put_now(broadcast):
            self._counters["broadcasts_dropped"] += 1

    def _note_offence(self, peer: ID, kind: str, reason: str) -> None:
        """Count and name what harms nobody else: nobody is banned for it."""
        self._counters[kind] += 1
        self._budgets.offences.note(peer_id_text(peer.to_bytes()), kind, reason)

    def _record_offence(self, peer: PeerID, what: str) -> None:
        if self._admission.record_offence(peer, what):
            self._nursery.start_soon(self.ban, peer)

    async def _open_stream(self, peer: PeerID, protocol: str) -> Libp2pStream:
        await self._dialer.connect(peer)
        with FaultBarrier(
            self._counters,
            "stream_faults",
            f"opening {protocol} to {peer}",
            expected=(BaseLibp2pError, OSError),
        ) as barrier:
            return Libp2pStream(await self._host.new_stream(ID.from_base58(peer), [protocol]))
        raise PeerUnreachable(f"no {protocol} stream to peer {peer}: {barrier.fault}") from barrier.fault
