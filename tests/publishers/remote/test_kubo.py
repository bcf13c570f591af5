from __future__ import annotations

import pytest

from bacalhau_p2p.errors import PublisherError
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.outbound.service import Service
from bacalhau_p2p.publishers.remote.kubo import Kubo
from bacalhau_p2p.publishers.remote.publisher import RemotePublisher
from bacalhau_p2p.testing.publishers import PUBLISHER_CHECKS, PublisherKit
from tests.support.servers.pinning_services import ADDRESSES, OTHER, THEIRS, FakeKubo, publish


@pytest.fixture
def kubo():
    kubo = FakeKubo()
    with kubo.server:
        yield kubo


@pytest.fixture
def publisher(content, kubo):
    service = Service(kubo.server.url, "sesame", pauses=(0.0,))
    return RemotePublisher(content, Kubo(service, lambda: ADDRESSES), "ipfs")


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


async def test_both_nodes_are_providers_and_the_token_is_sent(publisher, kubo, result):
    published = await publish(publisher, result)
    assert published.location == SpecConfig(
        type="ipfs", params={"CID": result, "Providers": [*ADDRESSES, THEIRS]}
    )
    assert {request.headers["authorization"] for request in kubo.server.requests} == {"Bearer sesame"}


async def test_a_failed_pin_is_noticed_despite_status_200(publisher, kubo, result):
    kubo.pin_error = "pin: storage is full"
    with pytest.raises(PublisherError, match="pinning failed: pin: storage is full"):
        await publish(publisher, result)


async def test_an_import_of_another_root_is_an_error(publisher, kubo, result):
    kubo.root = OTHER
    with pytest.raises(PublisherError, match=f"answer for {OTHER}, not for {result}"):
        await publish(publisher, result)


@pytest.mark.parametrize("lines", [[], [{"Stats": {}}], [{"Root": {}}, {"Root": {}}], [7, None, "x"]])
async def test_an_import_of_no_or_several_roots_is_an_error(publisher, kubo, result, lines):
    kubo.lines = lines
    with pytest.raises(PublisherError, match="roots instead of one"):
        await publish(publisher, result)
