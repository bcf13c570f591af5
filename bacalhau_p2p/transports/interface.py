"""The interface of transports: broadcasts, direct frames, streams, and which peers are connected.

A transport authenticates peers: the author of everything that it delivers holds that peer's key. It neither
repeats nor acknowledges: frames are lost when a connection breaks, and broadcasts may be lost at any time.
bprotocol's delivery (`bprotocol/delivery.py`) makes up for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from trio.abc import HalfCloseableStream

from bacalhau_p2p.errors import MessageTooLarge
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.budgets import Budgets

MAX_BROADCAST = 512 * 1024
"""Bytes. libp2p's pubsub silently drops messages of 1 MiB; half of that leaves room for framing."""

MAX_FRAME = 1024 * 1024
"""Maximum bytes of one direct frame."""


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A message on `topic`, published and signed by `author`; other peers may have passed it on."""

    author: PeerID
    topic: str
    payload: bytes
    neighbour: PeerID | None = field(default=None, compare=False)
    """The connected peer that handed it over; None if it came from its author."""


@dataclass(frozen=True, slots=True)
class DirectFrame:
    """A frame that `author` sent to this node."""

    author: PeerID
    payload: bytes


@dataclass(frozen=True, slots=True)
class PeerConnected:
    peer: PeerID


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    """The last connection to this peer is lost."""

    peer: PeerID


Incoming = Broadcast | DirectFrame | PeerConnected | PeerDisconnected


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What is left of a message whose handling takes long: each step is a part of it."""

    steps: Iterator[None]


class IncomingMessages(Protocol):
    """Everything that arrives at a node, for one reader. What waits longest in each lane comes first.

    The lanes of the peers take turns by what their messages cost, so its reader says what that was.
    """

    def charge(self, seconds: float) -> None:
        """Handling what was received last took so much processor time."""
        ...

    def charge_for(self, author: PeerID, neighbour: PeerID | None, seconds: float) -> None:
        """So much more went into a message of `author` that `neighbour` handed over."""
        ...

    def put_back(self, rest: Unfinished) -> None:
        """Receive the rest of what was received last in the next turn of its peer."""
        ...

    async def receive(self) -> Incoming | Unfinished:
        """Gives way to other tasks when it waits, and every millisecond of processor time that was charged.

        Raises trio.EndOfChannel when the transport is closed.
        """
        ...

    def receive_nowait(self) -> Incoming | Unfinished:
        """Raises trio.WouldBlock, trio.EndOfChannel."""
        ...

    def __aiter__(self) -> AsyncIterator[Incoming | Unfinished]: ...

    def __len__(self) -> int:
        """How many messages wait."""
        ...


StreamHandler = Callable[[PeerID, HalfCloseableStream], Awaitable[None]]
"""Serves one inbound stream of an authenticated peer.

When it returns, the transport ends the stream: the peer reads what was sent, then EOF. An exception resets
the stream, is counted and logged, and harms nothing else. trio.BrokenResourceError, which means that the peer
is gone, is not counted.
"""


def check_broadcast(payload: bytes) -> None:
    """Raises MessageTooLarge above MAX_BROADCAST."""
    if len(payload) > MAX_BROADCAST:
        raise MessageTooLarge(f"a broadcast of {len(payload)} bytes; the limit is {MAX_BROADCAST}")


def check_frames(payloads: Sequence[bytes]) -> None:
    """Raises MessageTooLarge when a frame is above MAX_FRAME."""
    longest = max(map(len, payloads), default=0)
    if longest > MAX_FRAME:
        raise MessageTooLarge(f"a frame of {longest} bytes; the limit is {MAX_FRAME}")


@dataclass(slots=True)
class Traffic:
    """Bytes of all connections since the start, encryption and muxing included."""

    received: int = 0
    sent: int = 0


class Transport(Protocol):
    """One node's access to the network. Each implementation has an async context manager that opens it."""

    @property
    def peer_id(self) -> PeerID: ...

    @property
    def addresses(self) -> Sequence[str]:
        """Multiaddrs at which other peers can dial this node, each ending in `/p2p/<peer id>`."""
        ...

    @property
    def incoming(self) -> IncomingMessages:
        """Everything that arrives. Its reader must keep up and never wait for other work.

        When the lane of a peer is full, its broadcasts are dropped and counted, and with direct frames it
        has to wait.
        """
        ...

    @property
    def budgets(self) -> Budgets:
        """What each peer may cost this node."""
        ...

    @property
    def peers(self) -> Collection[PeerID]:
        """The connected peers."""
        ...

    @property
    def transferring(self) -> Collection[PeerID]:
        """The peers with an open stream of `open_stream` or of a handler, on either side."""
        ...

    @property
    def counters(self) -> dict[str, int]:
        """How often faults were survived: `handler_faults`, `broadcasts_dropped`, ..."""
        ...

    @property
    def traffic(self) -> Traffic: ...

    async def subscribe(self, topic: str) -> None:
        """From now on broadcasts on this topic arrive, except this node's own."""
        ...

    async def broadcast(self, topic: str, payload: bytes) -> None:
        """Publish to all subscribers. When this returns, the network has the message; it may still get lost.

        Raises MessageTooLarge above MAX_BROADCAST.
        """
        ...

    async def send(self, peer: PeerID, *payloads: bytes) -> None:
        """Send frames on the long-lived direct stream to `peer`, which is opened when there is none.

        Frames to one peer arrive in order, or not at all. Dials the peer's known addresses when it is not
        connected. When this returns, the frames may still get lost. Raises PeerUnreachable, MessageTooLarge
        above MAX_FRAME. Cancelled: the frames may still be sent.
        """
        ...

    def send_now(self, peer: PeerID, *payloads: bytes) -> bool:
        """As `send`, if that does not wait: the direct stream is open and has space for the frames.

        Otherwise False, and nothing was sent. Raises MessageTooLarge above MAX_FRAME.
        """
        ...

    def learn_addresses(self, peer: PeerID, addresses: Sequence[str]) -> None:
        """Remember the addresses of `peer`; they replace the known ones."""
        ...

    async def connect(self, address: str) -> PeerID:
        """Dial a multiaddr that ends in `/p2p/<peer id>`. Raises PeerUnreachable."""
        ...

    async def disconnect(self, peer: PeerID) -> None:
        """Close every connection to this peer."""
        ...

    def handle_streams(self, protocol: str, handler: StreamHandler) -> None:
        """Serve inbound streams of this protocol id."""
        ...

    async def open_stream(self, peer: PeerID, protocol: str) -> HalfCloseableStream:
        """A new stream to `peer`. `aclose` without `send_eof` resets it; EOF reads as b"".

        Raises PeerUnreachable, also when the peer does not support the protocol.
        Reads and writes raise trio.BrokenResourceError when the connection is lost.
        """
        ...
