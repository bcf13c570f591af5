"""Content from kubo nodes and gateways: `web_provider`, `car_sources` and `car_check`."""

from __future__ import annotations

import pytest

from bacalhau_p2p.errors import InvalidContent, StorageError
from bacalhau_p2p.ipfs.files.importer import build
from bacalhau_p2p.ipfs.format.car import CarReader, header, section, write_car
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.outbound.service import Service
from bacalhau_p2p.storage.interface import InputSize
from bacalhau_p2p.storage.ipfs.car_sources import GatewaySource, KuboSource
from bacalhau_p2p.storage.ipfs.provider import IpfsStorage
from bacalhau_p2p.storage.ipfs.web_provider import IpfsWebStorage
from bacalhau_p2p.testing.storage import STORAGE_CHECKS, Sample, StorageKit, content_of
from tests.support.servers.web_server import Answer, WebServer

ABSENT = CID.of(RAW, b"nobody has this")
EMPTY_FOLDER = CID.parse("bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354")
"""The last block of the tree."""
STRAY = b"nobody asked for this"


def ipfs(cid: object) -> SpecConfig:
    return SpecConfig(type="ipfs", params={"CID": str(cid)})


class FakeNode:
    """Holds CARs by CID; answers kubo's RPC (POST only) and the trustless gateway's paths."""

    def __init__(self) -> None:
        self.cars: dict[str, bytes] = {}
        self.server = WebServer(self.answer)

    def answer(self, request):
        if request.query.get("format") == "raw" or request.path == "/api/v0/block/get":
            return self.block(request)
        if request.path.startswith("/ipfs/"):
            assert request.query == {"format": "car", "dag-scope": "all"}
            assert "application/vnd.ipld.car" in request.headers["accept"]
            car = self.cars.get(request.path.removeprefix("/ipfs/"))
            return Answer(status=404) if car is None else Answer(body=car)
        if request.method != "POST":
            return Answer(status=405)
        car = self.cars.get(request.query["arg"])
        if request.path == "/api/v0/block/stat":
            assert request.query["offline"] == "true"
            there = {"Key": request.query["arg"], "Size": 1}
            missing = {"Message": "block was not found locally (offline)", "Code": 0, "Type": "error"}
            return Answer.of(missing, 500) if car is None else Answer.of(there)
        assert request.path == "/api/v0/dag/export"
        return Answer(status=500) if car is None else Answer(body=car)

    def block(self, request):
        """The root block, which comes first in a CAR."""
        if request.path == "/api/v0/block/get":
            assert (request.method, request.query["offline"]) == ("POST", "true")
            cid = request.query["arg"]
        else:
            assert request.headers["accept"] == "application/vnd.ipld.raw"
            cid = request.path.removeprefix("/ipfs/")
        car = self.cars.get(cid)
        return Answer(status=404) if car is None else Answer(body=CarReader().feed(car)[0][1])

    @property
    def asked(self) -> list[str]:
        return [request.path for request in self.server.requests]


@pytest.fixture
def node():
    node = FakeNode()
    with node.server:
        yield node


@pytest.fixture
def tree(tmp_path, node):
    """A folder that only the other node has: its path and its CID."""
    root = tmp_path / "data"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "sub" / "a.txt").write_bytes(b"a")
    (root / "large").write_bytes(bytes(range(256)) * 3000 + b"end")
    with BlockStore(tmp_path / "theirs") as theirs:
        cid = build(root, theirs.put_verified).cid
        node.cars[str(cid)] = b"".join(write_car([cid], theirs))
    return root, cid


def web(content, *sources, **options) -> IpfsWebStorage:
    return IpfsWebStorage(IpfsStorage(content, timeout=1), content, sources, **options)


def kubo(node, **options) -> KuboSource:
    return KuboSource(Service(node.server.url, pauses=(), idle=2, **options))


def gateway(node) -> GatewaySource:
    return GatewaySource(Service(node.server.url, pauses=(), idle=2))


@pytest.fixture(params=[kubo, gateway], ids=lambda make: make.__name__)
def source(request, node):
    return request.param(node)


@pytest.mark.parametrize("check", STORAGE_CHECKS, ids=lambda check: check.__name__)
async def test_ipfs_storage_with_web_sources_conforms(check, content, source, tree, tmp_path):
    (tmp_path / "inputs").mkdir()
    root, cid = tree
    await check(
        StorageKit(
            provider=web(content, source),
            folder=tmp_path / "inputs",
            samples=[Sample(source=ipfs(cid), content=content_of(root))],
            invalid=[(SpecConfig(type="ipfs"), "Params.CID"), (ipfs("x"), "Params.CID")],
            absent=ipfs(ABSENT),
        )
    )


async def test_local_content_is_not_requested(content, node, tree, tmp_path, place):
    cid = (await content.add(tree[0], pin_owner="test")).cid
    await web(content, kubo(node), gateway(node)).prepare(ipfs(cid), place)
    assert node.asked == []


async def test_kubo_is_asked_before_peers_for_content_that_it_holds(content, node, tree, place):
    await web(content, kubo(node), gateway(node)).prepare(ipfs(tree[1]), place)
    assert node.asked == ["/api/v0/block/stat", "/api/v0/dag/export"]


async def test_the_kubo_token_is_sent(content, node, tree, place):
    await web(content, kubo(node, token="Basic c2VzYW1l")).prepare(ipfs(tree[1]), place)
    assert {request.headers["authorization"] for request in node.server.requests} == {"Basic c2VzYW1l"}


async def test_fetched_content_stays_in_the_store_unpinned(content, source, tree, place):
    await web(content, source).prepare(ipfs(tree[1]), place)
    assert await content.has(tree[1])
    assert await content.pins(tree[1]) == []


async def test_after_a_failed_source_the_next_is_asked(content, node, tree, place):
    with WebServer(lambda request: Answer(status=503)) as broken:
        first = GatewaySource(Service(broken.url, pauses=()))
        prepared = await web(content, first, gateway(node)).prepare(ipfs(tree[1]), place)
    assert content_of(prepared.path) == content_of(tree[0])


async def test_missing_content_is_reported_with_the_reason_of_each_source(content, node, place):
    with pytest.raises(StorageError) as caught:
        await web(content, kubo(node), gateway(node)).prepare(ipfs(ABSENT), place)
    assert [part.strip() for part in str(caught.value).split(";")] == [
        f"{ABSENT} is not in the local store, and no peers are known",
        "kubo 127.0.0.1: 500 Internal Server Error",
        "gateway 127.0.0.1: 404 Not Found",
    ]
    assert not caught.value.permanent


def damaged(car: bytes, how: str) -> bytes:
    stray = section(CID.of(RAW, STRAY), STRAY)
    return {
        "cut short inside a block": car[:-10],
        "cut short between blocks": car[: -len(section(EMPTY_FOLDER, b"\n\x02\x08\x01"))],
        "with an unrequested block": header([CID.of(RAW, STRAY)]) + stray + car,
        "tampered with": car[:-1] + bytes([car[-1] ^ 1]),
        "empty": b"",
        "no CAR": b"<html>not here</html>",
        "only a header": header([CID.of(RAW, STRAY)]),
    }[how]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut short inside a block", "truncated"),
        ("cut short between blocks", "blocks are missing, among them"),
        ("with an unrequested block", "invalid data"),
        ("tampered with", "does not match its hash"),
        ("empty", "truncated"),
        ("no CAR", "invalid data"),
        ("only a header", "blocks are missing, among them"),
    ],
)
async def test_invalid_data_is_refused_and_not_stored(content, node, source, tree, place, how, words):
    cid = tree[1]
    node.cars[str(cid)] = damaged(node.cars[str(cid)], how)
    with pytest.raises(StorageError, match=words):
        await web(content, source).prepare(ipfs(cid), place)
    assert not await content.has(cid)
    assert not await content.has(CID.of(RAW, STRAY))
    assert await content.pins(cid) == []
    assert list(place.iterdir()) == []


async def test_the_roots_in_a_car_header_are_ignored(content, node, tree, place):
    cid = tree[1]
    car = node.cars[str(cid)]
    head = header([cid])
    assert car.startswith(head)
    node.cars[str(cid)] = header([]) + car[len(head) :]
    prepared = await web(content, gateway(node)).prepare(ipfs(cid), place)
    assert content_of(prepared.path) == content_of(tree[0])


async def test_a_source_that_stops_sending_is_given_up(content, place, tree):
    def stalls():
        yield b"\x3a"
        server.stopping.wait(5)

    with WebServer(lambda request: Answer(body=stalls())) as server:
        slow = GatewaySource(Service(server.url, idle=0.1))
        with pytest.raises(StorageError, match=r"gateway 127\.0\.0\.1: no data for 0\.1 s"):
            await web(content, slow).prepare(ipfs(tree[1]), place)


async def test_slow_sources_are_given_up_after_the_total_timeout(content, place, tree):
    def drips():
        while not server.stopping.wait(0.02):
            yield b"\x3a"

    with WebServer(lambda request: Answer(body=drips())) as server:
        slow = GatewaySource(Service(server.url))
        with pytest.raises(StorageError, match=r"not done within|invalid data"):
            await web(content, slow, total=0.3).prepare(ipfs(tree[1]), place)


# --- sizes ----------------------------------------------------------------------------------


async def test_the_size_is_read_from_the_root_block(content, node, source, tree):
    size = await web(content, source).size(ipfs(tree[1]))
    assert size is not None
    assert 768_004 <= size.total <= 770_000
    assert (size.local, size.disk) == (0, 2 * size.total)
    assert len(node.asked) == 1
    assert not await content.has(tree[1])


async def test_the_size_is_not_read_from_a_wrong_block(content, node, source, tree):
    node.cars[str(ABSENT)] = node.cars[str(tree[1])]
    with pytest.raises(InvalidContent, match="do not match its hash"):
        await web(content, source).size(ipfs(ABSENT))


async def test_one_source_that_knows_the_size_is_enough(content, node, tree):
    with WebServer(lambda request: Answer(body=b"no block of yours")) as broken:
        wrong = GatewaySource(Service(broken.url, pauses=()))
        size = await web(content, wrong, gateway(node)).size(ipfs(tree[1]))
    assert size is not None
    assert size.total > 768_000


async def test_the_size_of_local_content_is_not_requested(content, node, tree):
    cid = (await content.add(tree[0], pin_owner="test")).cid
    assert await web(content, kubo(node), gateway(node)).size(ipfs(cid)) == InputSize(
        total=768_004, local=768_004, disk=768_004
    )
    assert node.asked == []
