"""A peer with a valid key that sends as much as it can: `python -m tests.support.peers.flooding_peer`."""

from __future__ import annotations

import argparse
import itertools
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import cbor2
import trio
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from nacl.signing import SigningKey

from bacalhau_p2p.bprotocol.codec import MAX_BROADCAST_ENVELOPES
from bacalhau_p2p.bprotocol.messages import Carrier, topic
from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.transports.libp2p.gossip.signatures import PREFIX, bare_bytes
from bacalhau_p2p.transports.libp2p.gossip.wire import encode_rpc
from bacalhau_p2p.transports.libp2p.transport import Libp2pTransport, open_libp2p

TASK = {"Name": "main", "Engine": {"Type": "noop"}, "Resources": {"CPU": "0.0001", "Memory": "1"}}
SPEC = job_from_mapping({"Tasks": [TASK]}).to_wire()
MESSAGE_ID, NAME = b"an id of message", "the-name-of-a-job"[:16]
"""Of every message that is made; `again` replaces them."""
BATCH = MAX_BROADCAST_ENVELOPES // 3
"""Messages in one broadcast."""
TURN = 0.02
"""Seconds between two bursts."""
UNWRITTEN = 200
"""Broadcasts that may wait for one neighbour; a flood that waits in this process is none."""

_sequence = itertools.count(time.time_ns())


class FloodingPeer:
    """Says whatever it likes in bprotocol, as itself or in the names of identities that it invents."""

    def __init__(self, transport: Libp2pTransport, network: str, targets: list[PeerID]) -> None:
        self.transport = transport
        self.targets = targets
        self.network = network
        self.peer = transport.peer_id

    def wire(self, kind: str, body: dict, **more: object) -> bytes:
        return cbor2.dumps(
            {"v": 1, "id": MESSAGE_ID, "kind": kind, "sent": time.time(), "body": body, **more}
        )

    def announcement(self) -> bytes:
        body = {
            "spec": SPEC,
            "addresses": list(self.transport.addresses),
            "bids_wanted": 1,
            "round": 1,
            "eligible": 0,
            "answers_wanted": True,
            "deadline": time.time() + 3600,
        }
        return self.wire("job_announced", body, job=NAME)

    def info(self, peer: PeerID | None = None) -> bytes:
        room = {"CPU": 64.0, "Memory": 2**40, "Disk": 2**40, "GPU": 0}
        compute = {"Engines": ["noop"], "MaxCapacity": room, "AvailableCapacity": room}
        info = {"ID": peer or self.peer, "Addresses": [], "Compute": compute, "Sent": time.time()}
        return self.wire("node_info", {"info": info})

    def bid(self, to: PeerID) -> bytes:
        return self.wire("bid", {"reserved_for": 3.0}, to=to, job=NAME, execution=NAME)

    def heartbeat(self, to: PeerID) -> bytes:
        return self.wire("heartbeat", {"executions": []}, to=to)

    # --- sending ------------------------------------------------------------------------------

    async def broadcast(self, carrier: Carrier, message: bytes, count: int) -> None:
        """Publish so many messages like this one, hundreds to a broadcast."""
        while count > 0:
            batch = again(message, min(count, BATCH))
            payload = b"\x99" + len(batch).to_bytes(2, "big") + b"".join(batch)
            await self.transport.broadcast(topic(self.network, carrier), payload)
            count -= BATCH

    def waiting(self) -> int:
        """Broadcasts that no neighbour has taken yet."""
        return self.transport._gossip.waiting

    def whisper(self, to: PeerID, author: Identity, carrier: Carrier, envelope: bytes) -> None:
        """Hand a broadcast that `author` signed to one neighbour, as if it had to be passed on."""
        raw = ID.from_base58(author.peer_id).to_bytes()
        message = rpc_pb2.Message(
            data=b"\x81" + envelope,
            topicIDs=[topic(self.network, carrier)],
            from_id=raw,
            seqno=next(_sequence).to_bytes(8, "big"),
        )
        message.signature = SigningKey(author.seed).sign(PREFIX + bare_bytes(message)).signature
        frame = encode_rpc(rpc_pb2.RPC(publish=[message]))
        if (neighbour := self.transport._gossip._streams.get(to)) is not None:
            neighbour.put(frame)
            neighbour.flush()


@asynccontextmanager
async def open_flooding_peer(
    *addresses: str, network: str, identity: Identity | None = None
) -> AsyncIterator[FloodingPeer]:
    """A peer that is connected to the peers at these addresses, and does not read what they say."""
    async with open_libp2p(identity or Identity.generate(), bootstrap=addresses) as transport:
        for carrier in (Carrier.JOBS, Carrier.NODES, Carrier.MAIL):
            await transport.subscribe(topic(network, carrier))
        with trio.move_on_after(10):
            while len(transport.peers) < len(addresses):
                await trio.lowlevel.checkpoint()
        targets = [PeerID(address.rpartition("/")[2]) for address in addresses]
        yield FloodingPeer(transport, network, targets)


async def announcements(flooder: FloodingPeer, count: int) -> None:
    await flooder.broadcast(Carrier.JOBS, flooder.announcement(), count)


async def infos(flooder: FloodingPeer, count: int) -> None:
    await flooder.broadcast(Carrier.NODES, flooder.info(), count)


async def invented(flooder: FloodingPeer, count: int) -> None:
    for _ in range(count):
        author = Identity.generate()
        flooder.whisper(flooder.targets[0], author, Carrier.NODES, flooder.info(author.peer_id))


async def bids(flooder: FloodingPeer, count: int) -> None:
    for peer in flooder.targets:
        await flooder.transport.send(peer, *again(flooder.bid(peer), count))


async def heartbeats(flooder: FloodingPeer, count: int) -> None:
    for peer in flooder.targets:
        await flooder.transport.send(peer, *again(flooder.heartbeat(peer), count))


async def malformed(flooder: FloodingPeer, count: int) -> None:
    for peer in flooder.targets:
        await flooder.transport.send(peer, *(secrets.token_bytes(200) for _ in range(count)))


def again(message: bytes, count: int) -> list[bytes]:
    """So many messages like this one, each with ids of its own."""
    return [
        message.replace(MESSAGE_ID, secrets.token_bytes(16)).replace(
            NAME.encode(), b"%016x" % next(_sequence)
        )
        for _ in range(count)
    ]


FLOODS: dict[str, Callable] = {
    flood.__name__: flood for flood in (announcements, bids, infos, heartbeats, malformed, invented)
}


async def flood(flooder: FloodingPeer, kind: str, rate: float) -> None:
    """Send so many messages a second until cancelled, or as many as this process can."""
    sent, began = 0.0, trio.current_time()
    while True:
        due = (trio.current_time() - began) * rate - sent
        if due >= 1 and flooder.waiting() < UNWRITTEN:
            count = int(min(due, rate * 5 * TURN))
            try:
                await FLOODS[kind](flooder, count)
            except PeerUnreachable:  # it was cut off
                await trio.sleep(0.5)
            sent += due
        await trio.sleep(TURN)


async def main(kind: str, rate: float, network: str, addresses: list[str]) -> None:
    async with open_flooding_peer(*addresses, network=network) as flooder:
        sys.stdout.write(f"{flooder.peer}\n")
        sys.stdout.flush()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_nothing, flooder)
            nursery.start_soon(flood, flooder, kind, rate)


async def read_nothing(flooder: FloodingPeer) -> None:
    async for _ in flooder.transport.incoming:
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=FLOODS)
    parser.add_argument("address", nargs="+", help="peers to connect to")
    parser.add_argument("--rate", type=float, default=10_000, help="messages a second")
    parser.add_argument("--network", default="main")
    given = parser.parse_args()
    trio.run(main, given.kind, given.rate, given.network, given.address)
