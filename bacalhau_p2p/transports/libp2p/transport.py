"""The transport over libp2p: TCP, Noise and Yamux; gossipsub; direct streams.

py-libp2p is imported in the modules `libp2p*` of this package and nowhere else. They exist because
release 0.8.1 must be guarded on every side: docs/transport.md lists its faults, what is done about
each, and the test that tells when that can go.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache, partial
from typing import Any, Final, Generic, TypeVar

import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.host.basic_host import BasicHost
from libp2p.network.connection import swarm_connection
from libp2p.peer.id import ID
from libp2p.tools.anyio_service import background_trio_service
from libp2p.utils.address_validation import get_available_interfaces
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError
from trio.abc import HalfCloseableStream

from bacalhau_p2p.errors import MessageTooLarge, PeerUnreachable, SettingsError
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.faults import FaultBarrier
from bacalhau_p2p.transports.interface import (
    MAX_BROADCAST,
    Broadcast,
    DirectFrame,
    Incoming,
    StreamHandler,
    check_frames,
)
from bacalhau_p2p.transports.libp2p.dialer import Dialer, parse_peer_address
from bacalhau_p2p.transports.libp2p.direct import DirectLinks
from bacalhau_p2p.transports.libp2p.gossip import Gossip, GuardedPubsub, peer_id_text
from bacalhau_p2p.transports.libp2p.sessions import Sessions
from bacalhau_p2p.transports.libp2p.stream import Libp2pStream
from bacalhau_p2p.transports.libp2p.swarm import new_swarm

DIRECT_PROTOCOL: Final = "/bacalhau/bprotocol/1.0.0"

MAX_STREAMS_PER_PEER: Final = 64
"""Inbound streams that one peer may have open; further ones are reset and counted."""

OFFENCES: Final = 10
BAN: Final = 600.0
"""So many breaches of protocol cost a peer its connections for so many seconds."""

REMEMBERED: Final = 4096
"""Peers whose offences are remembered."""

FLUSH: Final = 0.5
"""Seconds, on exit, for frames that were handed over to leave."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class _Outcome(Generic[_T]):
    """What a detached call came to."""

    value: _T

    def __init__(self) -> None:
        self.done = trio.Event()
        self.fault: PeerUnreachable | None = None
        self.abandoned = False


@asynccontextmanager
async def open_libp2p(
    identity: Identity,
    *,
    listen: Sequence[str] = ("/ip4/127.0.0.1/tcp/0",),
    announce: Sequence[str] = (),
    bootstrap: Sequence[str] = (),
    expected_peers: int = 64,
    incoming_size: int = 1024,
) -> AsyncIterator[Libp2pTransport]:
    """A node's access to the libp2p network for the length of the block.

    `listen`: TCP multiaddrs to accept connections at; port 0 takes any. `announce`: multiaddrs told to
    others instead of those (by default the addresses of all interfaces where it listens on
    0.0.0.0). `bootstrap`: multiaddrs with `/p2p/<peer id>` of peers to stay connected to; they are dialled in
    the background, and again when lost. `expected_peers`: how many neighbours there may be; a hub
    with more passes broadcasts on to so many of them only.

    On entry it listens. On exit no task, connection or socket is left; frames handed over before have
    FLUSH seconds to leave. Raises SettingsError for addresses that are malformed or cannot be listened on.
    A fault in any task arrives as an ExceptionGroup.
    """
    listen_addresses = [_listen_address(address) for address in listen]
    announced = [_announced_address(address) for address in announce]
    bootstrap_addresses = [_bootstrap_address(address) for address in bootstrap]
    _quieten_libp2p()
    failure: BaseException | None = None
    send_incoming, incoming = trio.open_memory_channel[Incoming](incoming_size)
    async with send_incoming, trio.open_nursery() as nursery:
        transport = Libp2pTransport(
            identity, nursery, send_incoming, incoming, announced=announced, expected_peers=expected_peers
        )
        async with transport._services(listen_addresses):
            failure = transport._listen_refusal(listen_addresses)
            if failure is None:
                for peer, address in bootstrap_addresses:
                    if peer != identity.peer_id:
                        nursery.start_soon(transport._dialer.keep_connected, address)
                try:
                    yield transport
                except (trio.Cancelled, GeneratorExit):
                    raise
                except BaseException as error:  # noqa: BLE001 - raised again below, outside of the nurseries
                    failure = error
                finally:
                    with trio.CancelScope(shield=True):
                        await transport._close()
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Host(BasicHost):  # type: ignore[misc]
    """A host that knows its addresses; the stock one works them out for every message it sends."""

    _settled: tuple[Multiaddr, ...] | None = None

    def get_addrs(self) -> list[Multiaddr]:
        return list(super().get_addrs() if self._settled is None else self._settled)

    def settle_addresses(self) -> None:
        """It listens now, and its addresses do not change any more."""
        self._settled = tuple(super().get_addrs())


class Libp2pTransport:
    """A `Transport` over libp2p; made by `open_libp2p`.

    PeerConnected comes once broadcasts reach the peer (or after a second, when it subscribes to
    nothing), so that what is announced then is not lost; broadcasts of others may come before it.
    """

    def __init__(
        self,
        identity: Identity,
        nursery: trio.Nursery,
        send_incoming: trio.MemorySendChannel[Incoming],
        incoming: trio.MemoryReceiveChannel[Incoming],
        *,
        announced: Sequence[Multiaddr],
        expected_peers: int,
    ) -> None:
        self._peer = identity.peer_id
        self._nursery = nursery
        self._send_incoming = send_incoming
        self._incoming = incoming
        self._announced = announced
        self._counters: Counter[str] = Counter()
        self._banned: dict[str, float] = {}
        self._offences: Counter[PeerID] = Counter()
        self._inbound_streams: Counter[PeerID] = Counter()
        self._closing = False
        self._swarm = new_swarm(identity.seed, self._counters, self._admits)
        self._host = _Host(
            self._swarm,
            addrs_factory=self._advertised,
            disable_identify_address_discovery=True,
        )
        self._swarm.set_stream_handler(self._guard_stream)
        self._gossip = Gossip(expected_peers, self._counters)
        self._sessions = Sessions(
            self._swarm,
            nursery,
            emit=self._send_incoming.send,
            connection_lost=lambda muxed_conn: self._pubsub.connection_lost(muxed_conn),
            counters=self._counters,
        )
        self._pubsub = GuardedPubsub(
            self._host,
            self._gossip,
            deliver=self._deliver_broadcast,
            subscribed=self._sessions.subscribed,
            offence=self._offence,
            counters=self._counters,
        )
        self._dialer = Dialer(
            self._swarm, nursery, sessions=self._sessions, admits=self._admits, counters=self._counters
        )
        self._links = DirectLinks(
            nursery,
            open_stream=partial(self._new_stream, protocol=DIRECT_PROTOCOL),
            deliver=self._deliver_frames,
            reading=self._sessions.reading,
            offence=self._offence,
            counters=self._counters,
        )
        self._handle(DIRECT_PROTOCOL, self._links.serve)

    # --- the interface ------------------------------------------------------------------------

    @property
    def peer_id(self) -> PeerID:
        return self._peer

    @property
    def addresses(self) -> Sequence[str]:
        return tuple(_text_of(address) for address in self._host.get_addrs())

    @property
    def incoming(self) -> trio.MemoryReceiveChannel[Incoming]:
        return self._incoming

    @property
    def peers(self) -> Collection[PeerID]:
        return self._sessions.peers

    @property
    def counters(self) -> dict[str, int]:
        return dict(self._counters)

    async def subscribe(self, topic: str) -> None:
        """As in `Transport`."""
        await self._pubsub.subscribe(topic)

    async def broadcast(self, topic: str, payload: bytes) -> None:
        """As in `Transport`. Goes to every subscribed neighbour at once; each takes 500 a second of us."""
        if len(payload) > MAX_BROADCAST:
            raise MessageTooLarge(f"a broadcast of {len(payload)} bytes; at most {MAX_BROADCAST} are carried")
        await trio.lowlevel.checkpoint()
        await self._pubsub.publish(topic, bytes(payload))

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
            peer, _ = parse_peer_address(address)
        except ValueError as fault:
            raise PeerUnreachable(str(fault)) from fault
        await self._dialer.connect(peer, (address,))
        return peer

    async def disconnect(self, peer: PeerID) -> None:
        """As in `Transport`. A bootstrap peer is dialled again; `ban` keeps it away."""
        await self._detached(self._swarm.close_peer, ID.from_base58(peer))

    def handle_streams(self, protocol: str, handler: StreamHandler) -> None:
        """As in `Transport`."""
        self._handle(protocol, handler)

    async def open_stream(self, peer: PeerID, protocol: str) -> HalfCloseableStream:
        """As in `Transport`."""
        stream: HalfCloseableStream = await self._detached(self._new_stream, peer, protocol)
        return stream

    # --- beyond the interface -----------------------------------------------------------------

    async def ban(self, peer: PeerID, seconds: float = BAN) -> None:
        """Close every connection to this peer, and neither accept nor dial it for so long."""
        now = trio.current_time()
        self._banned = {banned: until for banned, until in self._banned.items() if until > now}
        self._banned[peer] = now + seconds
        self._counters["peers_banned"] += 1
        await self.disconnect(peer)

    # --- inside -------------------------------------------------------------------------------

    @asynccontextmanager
    async def _services(self, listen: Sequence[Multiaddr]) -> AsyncIterator[None]:
        # In this order: a pubsub that starts after the host never hears of peers that came between.
        async with background_trio_service(self._pubsub), background_trio_service(self._gossip):
            await self._pubsub.wait_until_ready()
            async with self._host.run(listen_addrs=listen):
                self._host.settle_addresses()
                yield

    def _listen_refusal(self, listen: Sequence[Multiaddr]) -> SettingsError | None:
        """py-libp2p goes on in silence when it could not listen."""
        missing = [str(address) for address in listen if str(address) not in self._swarm.listeners]
        return SettingsError(f"cannot listen on {', '.join(missing)}") if missing else None

    async def _close(self) -> None:
        self._closing = True
        with trio.move_on_after(FLUSH):
            await self._links.flush()
        # One after the other, as py-libp2p would, takes 0.2 seconds a peer; left alone, sockets leak.
        await self._swarm.close_all_peers()
        await self._host.close()

    def _admits(self, peer: str) -> bool:
        if self._closing:
            return False
        until = self._banned.get(peer)
        if until is None:
            return True
        if trio.current_time() < until:
            return False
        del self._banned[peer]
        return True

    def _offence(self, peer: PeerID, what: str) -> None:
        self._counters["offences"] += 1
        if len(self._offences) >= REMEMBERED:
            self._offences.clear()  # identities cost nothing; those who go on are counted anew
        self._offences[peer] += 1
        _log.info("peer %s: %s", peer, what)
        if self._offences[peer] >= OFFENCES:
            del self._offences[peer]
            self._nursery.start_soon(self.ban, peer)

    def _advertised(self, candidates: list[Multiaddr]) -> list[Multiaddr]:
        if self._announced:
            return list(self._announced)
        return [address for candidate in candidates for address in _expand(candidate)]

    def _handle(self, protocol: str, handler: Callable[[PeerID, Libp2pStream], Awaitable[None]]) -> None:
        self._host.set_stream_handler(protocol, partial(self._serve, protocol, handler))

    async def _guard_stream(self, net_stream: Any) -> None:
        """Serve an inbound stream of any protocol; whatever happens, it alone is harmed."""
        peer = peer_id_text(net_stream.muxed_conn.peer_id.to_bytes())
        if self._inbound_streams[peer] >= MAX_STREAMS_PER_PEER:
            self._counters["streams_refused"] += 1
            await net_stream.reset()
            return
        self._inbound_streams[peer] += 1
        try:
            with FaultBarrier(self._counters, "stream_faults", f"a stream of peer {peer}") as barrier:
                await self._host._swarm_stream_handler(net_stream)
            if barrier.fault is not None:
                await net_stream.reset()
        finally:
            self._inbound_streams[peer] -= 1
            if not self._inbound_streams[peer]:
                del self._inbound_streams[peer]

    async def _serve(
        self, protocol: str, handler: Callable[[PeerID, Libp2pStream], Awaitable[None]], net_stream: Any
    ) -> None:
        peer = peer_id_text(net_stream.muxed_conn.peer_id.to_bytes())
        stream = Libp2pStream(net_stream)
        try:
            with FaultBarrier(
                self._counters,
                "handler_faults",
                f"handler of {protocol}",
                expected=trio.BrokenResourceError,
                level=logging.WARNING,
            ):
                await handler(peer, stream)
                with suppress(trio.ClosedResourceError):
                    await stream.send_eof()
                    await stream.drain()
        finally:
            await stream.aclose()

    async def _new_stream(self, peer: PeerID, protocol: str) -> Libp2pStream:
        await self._dialer.connect(peer)
        with FaultBarrier(
            self._counters,
            "stream_faults",
            f"opening {protocol} to {peer}",
            expected=(BaseLibp2pError, OSError),
        ) as barrier:
            return Libp2pStream(await self._host.new_stream(ID.from_base58(peer), [protocol]))
        raise PeerUnreachable(f"no {protocol} stream to peer {peer}: {barrier.fault}") from barrier.fault

    async def _deliver_frames(self, peer: PeerID, payloads: list[bytes]) -> None:
        await self._sessions.announce(peer)
        for payload in payloads:
            frame = DirectFrame(peer, payload)
            try:
                self._send_incoming.send_nowait(frame)
            except trio.WouldBlock:
                await self._send_incoming.send(frame)

    def _deliver_broadcast(self, broadcast: Broadcast) -> None:
        try:
            self._send_incoming.send_nowait(broadcast)
        except trio.WouldBlock:
            self._counters["broadcasts_dropped"] += 1

    async def _detached(self, function: Callable[..., Awaitable[_T]], *args: Any) -> _T:
        """Run a library call in a task of its own, so that cancelling the caller cannot cut it within
        a write, which would ruin the connection. A stream that nobody waits for any more is reset.
        """
        outcome = _Outcome[_T]()

        async def run() -> None:
            try:
                outcome.value = await function(*args)
            except PeerUnreachable as fault:
                outcome.fault = fault
                return
            finally:
                outcome.done.set()
            if outcome.abandoned and isinstance(outcome.value, Libp2pStream):
                await outcome.value.aclose()

        self._nursery.start_soon(run)
        try:
            await outcome.done.wait()
        except trio.Cancelled:
            outcome.abandoned = True
            raise
        if outcome.fault is not None:
            raise outcome.fault
        return outcome.value


def _quieten_libp2p() -> None:
    """py-libp2p prints as an error whatever a stranger does wrong; LIBP2P_DEBUG still shows it."""
    if "LIBP2P_DEBUG" not in os.environ:
        logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    # This module logs to the root logger, which makes logging print everything of everybody.
    swarm_connection.logging = logging.getLogger(swarm_connection.__name__)


def _listen_address(address: str) -> Multiaddr:
    parsed = _tcp_address(address, "listen")
    port = int(parsed.value_for_protocol("tcp"))
    host = parsed.value_for_protocol(parsed.protocols()[0].name)
    if port:
        # py-libp2p shares a port (SO_REUSEPORT) with another node of this user: each gets some
        # of the other's connections. Without that option the kernel says that it is taken.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as fault:
                raise SettingsError(f"cannot listen on {address}: {fault.strerror or fault}") from fault
    return parsed


def _announced_address(address: str) -> Multiaddr:
    return _tcp_address(address, "announced")


def _tcp_address(address: str, purpose: str) -> Multiaddr:
    try:
        parsed = Multiaddr(address)
        names = [protocol.name for protocol in parsed.protocols()]
    except (MultiaddrError, ValueError) as fault:
        raise SettingsError(f"{purpose} address {address!r} is not a multiaddr: {fault}") from fault
    hosts = ("ip4", "ip6") if purpose == "listen" else ("ip4", "ip6", "dns", "dns4", "dns6")
    if len(names) < 2 or names[0] not in hosts or names[1] != "tcp" or set(names[2:]) - {"p2p"}:
        raise SettingsError(f"{purpose} address {address!r} is not of the form /ip4/<address>/tcp/<port>")
    return parsed


def _bootstrap_address(address: str) -> tuple[PeerID, str]:
    try:
        peer, _ = parse_peer_address(address)
    except ValueError as fault:
        raise SettingsError(f"bootstrap peer: {fault}") from fault
    return peer, address


def _expand(address: Multiaddr) -> list[Multiaddr]:
    """A wildcard address as those of the interfaces of its family; nobody can dial 0.0.0.0."""
    family = address.protocols()[0].name
    if address.value_for_protocol(family) not in ("0.0.0.0", "::"):  # noqa: S104 - not bound to here
        return [address]
    interfaces = get_available_interfaces(int(address.value_for_protocol("tcp")))
    return [candidate for candidate in interfaces if candidate.protocols()[0].name == family]


@lru_cache(maxsize=1024)
def _text_of(address: Multiaddr) -> str:
    return str(address)
