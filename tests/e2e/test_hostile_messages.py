"""A node in a process of its own, and a peer with a valid key that sends what ended or froze nodes."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import cbor2
import pytest
import trio

from bacalhau_p2p.bprotocol.messages import Carrier, topic
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.job import JobSpec, SpecConfig, Task
from bacalhau_p2p.transports.interface import Broadcast, DirectFrame
from bacalhau_p2p.transports.libp2p.transport import Libp2pTransport, open_libp2p
from tests.support.networks.networks import Node
from tests.support.waiting import until

pytestmark = pytest.mark.network

JOBS = "/api/v1/orchestrator/jobs"
NOOP = json.dumps({"Tasks": [{"Engine": {"Type": "noop"}}]}).encode()
SPEC = JobSpec(tasks=(Task(engine=SpecConfig(type="noop")),)).to_wire()
INF = float("inf")


def envelope(kind: str, body: dict, number: int, **more: object) -> dict[str, Any]:
    return {"v": 1, "id": number.to_bytes(16, "big"), "kind": kind, "sent": 1.0, "body": body, **more}


def announcement(number: int, spec: dict, **more: object) -> dict[str, Any]:
    body = {"spec": spec, "bids_wanted": 1, "round": 1, "answers_wanted": True, "deadline": 2e9, **more}
    return envelope("job_announced", body, number, job=f"j-{number}")


def task(**changes: object) -> dict[str, Any]:
    return {**SPEC, "Tasks": [{**SPEC["Tasks"][0], **changes}]}


def poison() -> list[dict[str, Any]]:
    """Announcements that no node can use."""
    source = {"Type": "inline", "Params": {"URL": "data:,x", "evil": cbor2.undefined}}
    return [
        announcement(1, task(InputSources=[{"Target": "/in", "Source": source}])),
        announcement(2, task(Timeouts={"ExecutionTimeout": "1" * 20_000 + "x"})),
        announcement(3, task(Timeouts={"ExecutionTimeout": INF})),
        announcement(4, task(Engine={"Type": "noop", "Params": {"x": cbor2.CBORSimpleValue(99)}})),
        announcement(5, SPEC, deadline=INF),
        announcement(6, SPEC, round=2**63),
    ]


GOOD = announcement(7, {**SPEC, "Later": {"a": "key"}})


class Stranger:
    """Bids on every job with a load that is no number, and keeps what it is told."""

    def __init__(self, transport: Libp2pTransport) -> None:
        self.transport = transport
        self.received: list[dict[str, Any]] = []
        self.announcements = [*poison(), GOOD]

    async def run(self) -> None:
        numbers = iter(range(1000, 1_000_000))
        async for incoming in self.transport.incoming:
            if isinstance(incoming, DirectFrame):
                self.received.append(cbor2.loads(incoming.payload))
            elif isinstance(incoming, Broadcast):
                for each in cbor2.loads(incoming.payload):
                    if each["kind"] == "node_info":
                        await self.announce()  # again, because now the node has heard of the topic
                    if each["kind"] == "job_announced":
                        for load in (INF, 1e308):
                            await self.bid(incoming.author, each["job"], load, next(numbers))

    async def announce(self) -> None:
        await self.transport.broadcast(topic("hostile", Carrier.JOBS), cbor2.dumps(self.announcements))

    async def bid(self, to: str, job: str, load: float, number: int) -> None:
        body = {"round": 1, "reserved_for": 30.0, "load": load}
        await self.send(to, envelope("bid", body, number, job=job, execution=f"e-{number}"))

    async def send(self, to: str, *envelopes: dict) -> None:
        await self.transport.send(to, *(cbor2.dumps({**each, "to": to}) for each in envelopes))

    def refused(self) -> set[bytes]:
        acks = [each["body"] for each in self.received if each["kind"] == "ack"]
        return {refusal["id"] for ack in acks for refusal in ack.get("refused", ())}


def run_job(node: Node) -> str:
    """The state of a job that somebody honest submits."""
    connection = HTTPConnection("127.0.0.1", node.network.port, timeout=60)
    try:
        connection.request("PUT", JOBS, NOOP)
        job_id = json.load(connection.getresponse())["JobID"]
    finally:
        connection.close()
    return str(node.network.job(job_id, wait=60)[0]["State"]["StateType"])


@pytest.fixture
def node(tmp_path: Path):
    node = Node(tmp_path, "--engine", "noop", "--network", "hostile")
    yield node
    node.stop()


async def test_no_message_ends_a_node_or_hides_its_neighbours(node):
    async with (
        open_libp2p(Identity.generate(), bootstrap=[node.address]) as transport,
        trio.open_nursery() as nursery,
    ):
        stranger = Stranger(transport)
        for carrier in (Carrier.JOBS, Carrier.NODES, Carrier.MAIL):
            await transport.subscribe(topic("hostile", carrier))
        nursery.start_soon(stranger.run)
        await until(lambda: node.peer_id in transport.peers, 30)
        await stranger.announce()
        await until(lambda: any(each.get("job") == "j-7" for each in stranger.received), 60)
        malformed = [
            envelope("bid", {"reserved_for": INF}, 20, job="j", execution="e"),
            envelope("of a later version", {}, 21),
            {**envelope("bid_accepted", {}, 22, job="j", execution="e"), "v": 2},
        ]
        await stranger.send(node.peer_id, *malformed)
        assert await trio.to_thread.run_sync(run_job, node) == "Completed"
        await until(lambda: {each["id"] for each in malformed} <= stranger.refused(), 30)
        assert node.process.poll() is None
        about = await trio.to_thread.run_sync(node.network.get, "/api/v1/agent/node")
        assert about["Counters"]["malformed"] >= len(poison())
        assert about["WorstSenders"][transport.peer_id]["malformed"] >= len(poison())
        nursery.cancel_scope.cancel()
