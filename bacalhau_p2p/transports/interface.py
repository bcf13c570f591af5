"""What a transport offers to a node: broadcasts, direct frames, streams, and who is there.

A transport authenticates: the author of everything it delivers is a peer that holds that key.
It neither repeats nor acknowledges: frames are lost when a connection breaks, broadcasts whenever
they like. bprotocol's delivery (`bprotocol/delivery.py`) makes up for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.errors import MessageTooLarge
from bacalhau_p2p.model.base import PeerID

MAX_BROADCAST = 512 * 1024
"""Bytes. libp2p's pubsub drops a message of 1 MiB in silence; half of it leaves room for framing."""

MAX_FRAME = 1024 * 1024
"""Bytes of one direct frame."""


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A message published on `topic` by `author` (who signed it), not by the peer that passed it on."""

    author: PeerID
    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class DirectFrame:
    """A frame that `author` sent to us alone."""

    author: PeerID
    payload: bytes


@dataclass(frozen=True, slots=True)
class PeerConnected:
    peer: PeerID


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    """The last connection to this peer is gone."""

    peer: PeerID


Incoming = Broadcast | DirectFrame | PeerConnected | PeerDisconnected

StreamHandler = Callable[[PeerID, HalfCloseableStream], Awaitable[None]]
"""Serves one inbound stream of an authenticated peer.

When it returns, the transport ends the stream: what was sent arrives, then EOF. An exception that
escapes resets the stream, is counted and logged, and harms nothing else; trio.BrokenResourceError,
which says that the peer is gone, is not counted.
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


class Transport(Protocol):
    """One node's access to the network. Opened by an async context manager of its module."""

    @property
    def peer_id(self) -> PeerID: ...

    @property
    def addresses(self) -> Sequence[str]:
        """Multiaddrs at which others can dial us, each ending in `/p2p/<our peer id>`."""
        ...

    @property
    def incoming(self) -> trio.MemoryReceiveChannel[Incoming]:
        """Everything that arrives. Its reader must keep up and never awaits work.

        When it is full, broadcasts are dropped and counted; direct frames hold their sender back.
        """
        ...

    @property
    def peers(self) -> Collection[PeerID]:
        """Peers to whom a connection stands now."""
        ...

    @property
    def counters(self) -> dict[str, int]:
        """How often what went wrong was survived: `handler_faults`, `broadcasts_dropped`, ..."""
        ...

    async def subscribe(self, topic: str) -> None:
        """From now on broadcasts of this topic arrive, our own excepted."""
        ...

    async def broadcast(self, topic: str, payload: bytes) -> None:
        """Publish to whoever is subscribed. Returning means handed to the network, no more.

        Raises MessageTooLarge above MAX_BROADCAST.
        """
        ...

    async def send(self, peer: PeerID, *payloads: bytes) -> None:
        """Put frames on the long-lived direct stream to `peer`, opening it when there is none.

        Frames to one peer arrive in order, or not at all. Dials the peer's known addresses when
        there is no connection. Returning means handed over, not arrived.
        Raises PeerUnreachable, MessageTooLarge above MAX_FRAME. Cancelled: the frames may still go.
        """
        ...

    def send_now(self, peer: PeerID, *payloads: bytes) -> bool:
        """As `send`, if that needs no waiting: the direct stream stands and has space for the frames.

        False otherwise, and then nothing was sent. Raises MessageTooLarge above MAX_FRAME.
        """
        ...

    def learn_addresses(self, peer: PeerID, addresses: Sequence[str]) -> None:
        """Remember where `peer` can be dialled; replaces what was known of it."""
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

        Raises PeerUnreachable, also when the peer does not speak the protocol.
        Reads and writes raise trio.BrokenResourceError when the connection is lost.
        """
        ...
