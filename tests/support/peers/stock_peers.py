"""py-libp2p without any code of ours: the other side in tests, and the reason for our guards."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key_pair
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr


def varint_prefixed(payload: bytes) -> bytes:
    length, prefix = len(payload), bytearray()
    while length > 127:
        prefix.append(length & 127 | 128)
        length >>= 7
    return bytes([*prefix, length]) + payload


def select(protocol: str) -> bytes:
    """The client's half of a multistream negotiation."""
    return varint_prefixed(b"/multistream/1.0.0\n") + varint_prefixed(protocol.encode() + b"\n")


@asynccontextmanager
async def tcp(address: str) -> AsyncIterator[Any]:
    raw = await TCP().dial(Multiaddr(address))
    try:
        yield raw
    finally:
        await raw.close()


def stock_upgrader() -> TransportUpgrader:
    """py-libp2p's own Noise and Yamux, for a new identity."""
    noise = NoiseTransport(
        create_new_key_pair(secrets.token_bytes(32)), noise_privkey=create_new_noise_key_pair().private_key
    )
    return TransportUpgrader({NOISE: noise}, {YAMUX: Yamux}, negotiate_timeout=5)


@asynccontextmanager
async def secured(
    address: str, upgrader: TransportUpgrader | None = None
) -> AsyncIterator[tuple[Any, TransportUpgrader]]:
    """An authenticated connection, with a new identity unless the upgrader has one."""
    upgrader = upgrader or stock_upgrader()
    async with tcp(address) as raw:
        yield await upgrader.upgrade_security(raw, True, ID.from_base58(address.rpartition("/")[2])), upgrader


@asynccontextmanager
async def muxed(address: str, upgrader: TransportUpgrader | None = None) -> AsyncIterator[Yamux]:
    async with secured(address, upgrader) as (conn, upgrader):
        yamux = await upgrader.upgrade_connection(conn, conn.get_remote_peer())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(yamux.start)
            await yamux.event_started.wait()
            yield yamux
            nursery.cancel_scope.cancel()


class _InMemory:
    """One side of a connection without a network, with the methods that Yamux uses."""

    def __init__(self, stream: Any, is_initiator: bool) -> None:
        self.stream = stream
        self.is_initiator = is_initiator

    async def read(self, n: int) -> bytes:
        return await self.stream.receive_some(n)

    async def write(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def close(self) -> None:
        await self.stream.aclose()


@asynccontextmanager
async def yamux_pair() -> AsyncIterator[tuple[Yamux, Yamux]]:
    """Both sides of a connection without a network, so that the clock can jump."""
    ends = trio.testing.memory_stream_pair()
    pair = [
        Yamux(_InMemory(end, initiator), ID(b"somebody"))
        for end, initiator in zip(ends, (True, False), strict=True)
    ]
    async with trio.open_nursery() as nursery:
        for yamux in pair:
            nursery.start_soon(yamux.start)
            await yamux.event_started.wait()
        yield pair[0], pair[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def stream_on(address: str, protocol: str) -> AsyncIterator[Any]:
    """A stream of this protocol to the node at an address."""
    async with muxed(address) as yamux:
        stream = await yamux.open_stream()
        await stream.write(select(protocol))
        answer, expected = b"", select(protocol)
        while len(answer) < len(expected):
            answer += await stream.read(len(expected) - len(answer))
        assert answer == expected
        yield stream
