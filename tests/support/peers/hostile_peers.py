"""Peers that break the protocol, each a coroutine function that runs in a process of its own."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.exceptions import BaseLibp2pError
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.pb import rpc_pb2
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.exceptions import MuxerUpgradeFailure
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.transports.interface import Broadcast, PeerConnected
from bacalhau_p2p.transports.libp2p.transport import Libp2pTransport, open_libp2p
from tests.support.peers.stock_peers import muxed, secured, select, stock_upgrader, tcp, varint_prefixed

FAULTS = (BaseLibp2pError, OSError, trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError)
UNKNOWN = "/unknown/protocol"
PROTOCOLS = (
    "/meshsub/1.1.0",
    "/meshsub/1.2.0",
    "/floodsub/1.0.0",
    "/bacalhau/bprotocol/1.0.0",
    "/ipfs/id/1.0.0",
    "/ipfs/id/push/1.0.0",
    "/ipfs/ping/1.0.0",
    "/bacalhau/conformance/echo/1.0.0",
    UNKNOWN,
)
JUNK = bytes(range(256)) * 8
HUGE_LENGTH = b"\xff\xff\xff\xff\x7f"

Stage = Callable[[str], Awaitable[None]]


async def reaction(stream: Any) -> None:
    """Read until the node closes the stream, so that it has handled what was sent."""
    with trio.move_on_after(0.05):
        while await stream.read(65536):
            pass


async def on_stream(address: str, sent: bytes, protocol: str = "") -> None:
    """Send this on a new stream. With a protocol, wait for its negotiation, so that the bytes are handled."""
    async with muxed(address) as yamux:
        stream = await yamux.open_stream()
        await stream.write((select(protocol) if protocol else b"") + sent)
        answer = b""
        while protocol and len(answer) < len(select(protocol)):
            answer += await stream.read(1)
        await reaction(stream)


def malformed_messages() -> bytes:
    """RPCs that can be parsed, with everything in them wrong."""
    messages = [
        rpc_pb2.Message(from_id=b"", seqno=b"", data=b"x", topicIDs=["t"], signature=b"s", key=b"k"),
        rpc_pb2.Message(from_id=JUNK, seqno=b"1", data=b"x", topicIDs=["t"], signature=b"s", key=JUNK),
        # An RSA author: the key does not follow from the id, and this one does not parse.
        rpc_pb2.Message(
            from_id=ID.from_base58("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N").to_bytes(),
            seqno=b"2",
            data=b"x",
            topicIDs=["t"],
            signature=b"s",
            key=b"\x08\x00\x12\x04junk",
        ),
    ]
    rpcs = [rpc_pb2.RPC(publish=[message]) for message in messages]
    control = rpc_pb2.RPC(subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid="t")])
    control.control.ihave.add(topicID="t", messageIDs=[b"zz", b"not hex"])
    control.control.iwant.add(messageIDs=[b"zz"])
    control.control.graft.add(topicID="unknown")
    control.control.prune.add(topicID="t", backoff=2**62)
    rpcs += [control, rpc_pb2.RPC(senderRecord=JUNK, publish=messages)]
    return b"".join(varint_prefixed(rpc.SerializeToString()) for rpc in rpcs)


async def leave_at_once(address: str) -> None:
    async with tcp(address):
        pass


async def junk_on_tcp(address: str) -> None:
    async with tcp(address) as raw:
        await raw.write(JUNK)


async def junk_on_noise(address: str) -> None:
    async with tcp(address) as raw:
        await raw.write(select("/noise") + JUNK)


async def leave_once_authenticated(address: str) -> None:
    async with secured(address):
        pass


async def junk_for_muxer_negotiation(address: str) -> None:
    async with secured(address) as (conn, _):
        await conn.write(JUNK)


async def junk_on_yamux(address: str) -> None:
    async with secured(address) as (conn, _):
        await conn.write(select("/yamux/1.0.0") + JUNK)


async def oversized_yamux_frame(address: str) -> None:
    async with secured(address) as (conn, _):
        await conn.write(select("/yamux/1.0.0") + bytes.fromhex("0000000100000001ffffffff"))


async def junk_for_protocol_negotiation(address: str) -> None:
    await on_stream(address, JUNK)


async def leave_once_muxed(address: str) -> None:
    async with muxed(address):
        pass


async def malformed_gossip(address: str) -> None:
    await on_stream(address, malformed_messages(), "/meshsub/1.1.0")


def junk_on(protocol: str) -> Stage:
    if protocol == UNKNOWN:
        return lambda address: on_stream(address, select(protocol) + JUNK)
    return lambda address: on_stream(address, JUNK, protocol)


def huge_length_on(protocol: str) -> Stage:
    if protocol == UNKNOWN:
        return lambda address: on_stream(address, select(protocol) + HUGE_LENGTH)
    return lambda address: on_stream(address, HUGE_LENGTH, protocol)


STAGES: tuple[Stage, ...] = (
    leave_at_once,
    junk_on_tcp,
    junk_on_noise,
    leave_once_authenticated,
    junk_for_muxer_negotiation,
    junk_on_yamux,
    oversized_yamux_frame,
    junk_for_protocol_negotiation,
    leave_once_muxed,
    malformed_gossip,
    *(junk_on(protocol) for protocol in PROTOCOLS),
    *(huge_length_on(protocol) for protocol in PROTOCOLS),
)


async def visitor(lines: Any, config: dict[str, Any]) -> None:
    """Connects `visits` times, one after the other, and breaks another rule each time."""
    await lines.write({"event": "ready"})
    broken_off = 0
    for number in range(config["visits"]):
        try:
            with trio.fail_after(5):
                await STAGES[number % len(STAGES)](config["address"])
        except* FAULTS:
            broken_off += 1  # the node closed the connection first
    await lines.write({"event": "finished", "broken_off": broken_off})


async def one_stage(lines: Any, config: dict[str, Any]) -> None:
    """Does one of the above, by name, `times` times."""
    await lines.write({"event": "ready"})
    stage = globals()[config["stage"]]
    for _ in range(config.get("times", 1)):
        try:
            with trio.fail_after(5):
                await (stage(*config["arguments"]) if "arguments" in config else stage)(config["address"])
        except* FAULTS:
            pass
    await lines.write({"event": "finished"})


async def plaintext(lines: Any, config: dict[str, Any]) -> None:
    """Tries to connect without encryption, as a peer whose key it does not have."""
    await lines.write({"event": "ready"})
    pair = create_new_key_pair(secrets.token_bytes(32))
    upgrader = TransportUpgrader(
        {PLAINTEXT_PROTOCOL_ID: InsecureTransport(pair)}, {YAMUX: Yamux}, negotiate_timeout=5
    )
    accepted = False
    try:
        async with tcp(config["address"]) as raw:
            with trio.fail_after(5):
                await upgrader.upgrade_security(
                    raw, True, ID.from_base58(config["address"].rpartition("/")[2])
                )
            accepted = True
    except FAULTS:
        pass
    await lines.write({"event": "finished", "accepted": accepted})


async def half_open(lines: Any, config: dict[str, Any]) -> None:
    """Opens `count` TCP connections and sends nothing on them."""
    host, port = Multiaddr(config["address"]).value_for_protocol("ip4"), Multiaddr(config["address"])
    streams = [
        await trio.open_tcp_stream(host, int(port.value_for_protocol("tcp"))) for _ in range(config["count"])
    ]
    await lines.write({"event": "ready"})
    await lines.read()
    for stream in streams:
        await stream.aclose()


async def stream_hog(lines: Any, config: dict[str, Any]) -> None:
    """Opens `count` streams and keeps them; reports how many were not reset."""
    async with muxed(config["address"]) as yamux:
        streams = [await yamux.open_stream() for _ in range(config["count"])]
        for stream in streams:
            with suppress(*FAULTS):
                await stream.write(select("/bacalhau/conformance/hold/1.0.0"))
        kept = 0
        for stream in streams:
            with suppress(*FAULTS):
                kept += bool(await stream.read(1))
        await lines.write({"event": "ready"})
        await lines.write({"event": "finished", "kept": kept})
        await lines.read()


# --- not hostile, but not our code ---------------------------------------------------------------


async def stock_host(lines: Any, config: dict[str, Any]) -> None:
    """A py-libp2p host with its default settings."""
    host = new_host(create_new_key_pair(secrets.token_bytes(32)))
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        await lines.write({"event": "ready", "addresses": [str(address) for address in host.get_addrs()]})
        await lines.read()


async def stock_dialer(lines: Any, config: dict[str, Any]) -> None:
    """A py-libp2p host that connects to each address that it gets."""
    host = new_host(create_new_key_pair(secrets.token_bytes(32)))
    async with host.run([]):
        await lines.write({"event": "ready"})
        while (command := await lines.read()) is not None:
            try:
                await host.connect(info_from_p2p_addr(Multiaddr(command["address"])))
                answer = "connected"
            except FAULTS as fault:
                answer = type(fault).__name__
            await lines.write({"event": "answer", "id": command["id"], "answer": answer, "fault": None})


async def leaves(lines: Any, config: dict[str, Any]) -> None:
    """`count` nodes of ours that know only a hub. One broadcasts when it is told to; reports each other node
    that receives it."""
    connected = trio.Event()
    waiting = config["count"]

    async def listen(transport: Libp2pTransport) -> None:
        nonlocal waiting
        async for item in transport.incoming:
            if isinstance(item, PeerConnected):
                waiting -= 1
                if not waiting:
                    connected.set()
            elif isinstance(item, Broadcast) and item.payload == b"to the other leaves":
                await lines.write({"event": "received", "leaf": transport.peer_id})

    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        nodes = []
        for _ in range(config["count"]):
            opening = open_libp2p(Identity.generate(), bootstrap=[config["address"]])
            nodes.append(await stack.enter_async_context(opening))
            await nodes[-1].subscribe("t")
            nursery.start_soon(listen, nodes[-1])
        await lines.write({"event": "ready"})
        await connected.wait()
        await lines.write({"event": "connected"})
        while (command := await lines.read()) is not None:
            await nodes[0].broadcast("t", b"to the other leaves")
            await lines.write({"event": "answer", "id": command["id"], "answer": None, "fault": None})
        nursery.cancel_scope.cancel()


async def repeat_offender(lines: Any, config: dict[str, Any]) -> None:
    """One identity that announces direct frames of 4 GiB, `times` times."""
    await lines.write({"event": "ready"})
    upgrader = stock_upgrader()
    for _ in range(config["times"]):
        try:
            async with muxed(config["address"], upgrader) as yamux:
                stream = await yamux.open_stream()
                await stream.write(select("/bacalhau/bprotocol/1.0.0") + HUGE_LENGTH)
                await reaction(stream)
        except* FAULTS:
            pass
    await lines.write({"event": "finished"})


async def connection_hog(lines: Any, config: dict[str, Any]) -> None:
    """One identity that opens `count` connections; reports each that the node closes."""
    upgrader = stock_upgrader()
    await lines.write({"event": "ready"})
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())

        async def report(yamux: Yamux) -> None:
            await yamux.event_closed.wait()
            await lines.write({"event": "closed"})

        for _ in range(config["count"]):
            try:
                yamux = await stack.enter_async_context(muxed(config["address"], upgrader))
            except MuxerUpgradeFailure:
                await lines.write({"event": "closed"})
            else:
                nursery.start_soon(report, yamux)
        await lines.write({"event": "opened"})
        await lines.read()
        nursery.cancel_scope.cancel()
