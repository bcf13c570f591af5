"""Content from HTTP gateways: `gateways.py`, and how a fetch uses them."""

from __future__ import annotations

import pytest

from bacalhau_p2p.errors import ContentNotFound, InvalidContent
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.exchange.gateways import MAX_GATEWAYS, Gateways
from bacalhau_p2p.ipfs.exchange.interface import Sources
from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE, header, section, write_car
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.outbound.addresses import AddressGuard
from tests.support.blocks.contents import unreachable
from tests.support.blocks.dag_makers import MemoryBlocks, blob, file_of
from tests.support.servers.web_server import Answer, WebServer

LOOPBACK = AddressGuard(["127.0.0.0/8"])
ALICE, BOB = PeerID("alice"), PeerID("bob")


@pytest.fixture
def store(tmp_path):
    with BlockStore(tmp_path / "store") as store:
        yield store


@pytest.fixture
def dag() -> tuple[MemoryBlocks, CID, list[CID]]:
    return file_of(3, 1000)


def car(body: bytes, **options) -> Answer:
    return Answer(headers={"Content-Type": CAR_MEDIA_TYPE}, body=body, **options)


async def fetch(store: BlockStore, root: CID, *servers: WebServer, guard: AddressGuard = LOOPBACK) -> None:
    urls = {PeerID(server.url): server.url for server in servers}
    gateways = Gateways(lambda: urls, guard)
    await Exchange(store, unreachable).fetch(root, Sources(gateways=gateways.of))


async def test_a_gateway_sends_the_whole_dag(store, dag):
    blocks, root, _ = dag
    with WebServer(lambda request: car(b"".join(write_car([root], blocks)))) as server:
        await fetch(store, root, server)
        assert store.has_all(root)
        (request,) = server.requests
    assert request.target == f"/ipfs/{root}?format=car&dag-scope=all"
    assert request.headers["accept"].startswith(CAR_MEDIA_TYPE)


async def test_only_missing_parts_are_requested(store, dag):
    blocks, root, leaves = dag
    store.put_many((cid, block) for cid, block in blocks.blocks.items() if cid != leaves[1])
    with WebServer(lambda request: car(b"".join(write_car([leaves[1]], blocks)))) as server:
        await fetch(store, root, server)
        assert store.has_all(root)
        assert [request.path for request in server.requests] == [f"/ipfs/{leaves[1]}"]


async def test_invalid_blocks_are_refused_and_the_next_gateway_is_asked(store, dag):
    blocks, root, leaves = dag
    whole = b"".join(write_car([root], blocks))
    unsolicited = CID.of(RAW, b"unsolicited")
    for invalid in (
        whole.replace(blob(1000, 1), blob(1000, 9)),
        header([root]) + section(unsolicited, b"unsolicited"),
    ):
        with (
            WebServer(lambda request, invalid=invalid: car(invalid)) as server,
            pytest.raises(InvalidContent, match=rf"gateway {server.url} sent invalid data"),
        ):
            await fetch(store, root, server)
    assert not store.has(unsolicited)
    assert not store.has(leaves[1])
    with WebServer(lambda request: car(b"invalid")) as first, WebServer(lambda request: car(whole)) as second:
        await fetch(store, root, first, second)
    assert store.has_all(root)


async def test_a_connection_that_breaks_is_a_fault_of_the_gateway_and_its_blocks_are_kept(store):
    blocks, root, leaves = file_of(3, 400_000)
    whole = b"".join(write_car([root], blocks))
    with (
        WebServer(lambda request: car(whole[:-500], length=len(whole))) as server,
        pytest.raises(ContentNotFound, match=rf"gateway {server.url}: connection closed early"),
    ):
        await fetch(store, root, server)
    assert store.dag_stat(root).missing == (leaves[2],)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Answer(status=404), "404 Not Found"),
        (Answer(status=503, headers={"Retry-After": "30"}), r"503 Service Unavailable \(retry after 30 s\)"),
        (Answer(body=b"<html>"), "the answer is not a CAR"),
    ],
    ids=["not found", "busy", "not a CAR"],
)
async def test_the_answer_of_a_gateway_without_the_content_is_in_the_error(store, dag, answer, fault):
    with (
        WebServer(lambda request: answer) as server,
        pytest.raises(ContentNotFound, match=rf"gateway {server.url}: {fault}$"),
    ):
        await fetch(store, dag[1], server)


async def test_a_gateway_on_a_private_network_is_not_called(store, dag):
    with (
        WebServer(lambda request: Answer(status=404)) as server,
        pytest.raises(ContentNotFound, match=r"127\.0\.0\.1 is not a public address"),
    ):
        await fetch(store, dag[1], server, guard=AddressGuard())
    assert server.requests == []


def test_the_gateways_of_the_given_peers_come_first_and_each_once():
    urls = {PeerID(str(number)): f"http://gate-{number}.example" for number in range(10)}
    urls |= {ALICE: "http://gate-9.example", BOB: ""}
    names = [gateway.name for gateway in Gateways(lambda: urls, AddressGuard()).of([BOB, ALICE])]
    assert names[0] == "gateway http://gate-9.example"
    assert len(names) == len(set(names)) == MAX_GATEWAYS


@pytest.mark.parametrize("url", ["http://xn--a", "http://xn--ls8h.la/x", "ftp://host", "http://h:99999"])
async def test_a_gateway_of_a_malformed_url_is_passed_over(store, dag, url):
    gateways = Gateways(lambda: {ALICE: url}, LOOPBACK)
    with pytest.raises(ContentNotFound):
        await Exchange(store, unreachable).fetch(dag[1], Sources(gateways=gateways.of))
