from __future__ import annotations

import json
import re

import pytest

from bacalhau_p2p.errors import PublisherError
from bacalhau_p2p.ipfs.format.car import CarReader
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.outbound.service import Service
from bacalhau_p2p.publishers.remote.kubo import Kubo
from bacalhau_p2p.publishers.remote.publisher import RemotePublisher
from bacalhau_p2p.testing.publishers import PUBLISHER_CHECKS, PublisherKit
from tests.support.servers.web_server import Answer, WebServer

OURS = "/ip4/203.0.113.7/tcp/1235/p2p/12D3KooWExample"
THEIRS = "/ip4/203.0.113.8/tcp/4001/p2p/12D3KooWKubo"
OTHER = str(CID.of(RAW, b"another result"))


class FakeKubo:
    """`dag/import` and `id` of kubo's RPC."""

    def __init__(self) -> None:
        self.server = WebServer(self.answer)
        self.pin_error = ""
        self.root = ""
        self.lines: list[object] | None = None

    def answer(self, request):
        if request.method != "POST":
            return Answer(status=405)
        if request.path == "/api/v0/id":
            return Answer.of({"ID": "12D3KooWKubo", "Addresses": [THEIRS, 7, "nonsense"]})
        assert request.path == "/api/v0/dag/import"
        assert request.query == {"pin-roots": "true", "stats": "true"}
        boundary = re.search("boundary=(.*)", request.headers["content-type"])[1].encode()
        reader = CarReader()
        body = request.body.split(b"\r\n\r\n", 1)[1]
        reader.feed(body[: body.rindex(b"\r\n--" + boundary)])
        reader.finish()
        root = {"Cid": {"/": self.root or str(reader.roots[0])}, "PinErrorMsg": self.pin_error}
        lines = [{"Root": root}, {"Stats": {"BlockCount": 7}}] if self.lines is None else self.lines
        return Answer(body="\n".join(map(json.dumps, lines)).encode())


@pytest.fixture
def kubo():
    kubo = FakeKubo()
    with kubo.server:
        yield kubo


@pytest.fixture
def publisher(content, kubo):
    service = Service(kubo.server.url, "sesame", pauses=(0.0,))
    return RemotePublisher(content, Kubo(service, lambda: [OURS]), "ipfs")


async def publish(publisher, cid):
    return await publisher.publish(SpecConfig(type="ipfs"), JobID("j-1"), ExecutionID("e-1"), cid)


@pytest.mark.parametrize("check", PUBLISHER_CHECKS, ids=lambda check: check.__name__)
async def test_publishing_to_kubo_conforms(check, publisher, result):
    await check(
        PublisherKit(
            publisher=publisher,
            valid=SpecConfig(type="ipfs"),
            invalid=[(SpecConfig(type="ipfs", params={"API": "x"}), "Params.API")],
            cid=result,
            unknown=OTHER,
        )
    )


async def test_both_nodes_are_named_as_providers_and_the_token_is_sent(publisher, kubo, result):
    published = await publish(publisher, result)
    assert published.location == SpecConfig(type="ipfs", params={"CID": result, "Providers": [OURS, THEIRS]})
    assert {request.headers["authorization"] for request in kubo.server.requests} == {"Bearer sesame"}


async def test_a_pin_that_failed_behind_a_200_is_noticed(publisher, kubo, result):
    kubo.pin_error = "pin: storage is full"
    with pytest.raises(PublisherError, match="pinning failed: pin: storage is full"):
        await publish(publisher, result)


async def test_another_root_is_not_believed(publisher, kubo, result):
    kubo.root = OTHER
    with pytest.raises(PublisherError, match=f"answer for {OTHER}, not for {result}"):
        await publish(publisher, result)


@pytest.mark.parametrize("lines", [[], [{"Stats": {}}], [{"Root": {}}, {"Root": {}}], [7, None, "x"]])
async def test_an_import_that_does_not_name_one_root_is_an_error(publisher, kubo, result, lines):
    kubo.lines = lines
    with pytest.raises(PublisherError, match="roots instead of one"):
        await publish(publisher, result)
