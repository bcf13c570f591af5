"""The publishers `ipfs`, `local` and `noop`; the first two keep results in the node's store (`retention`)."""

from __future__ import annotations

import pytest

from bacalhau_p2p.errors import PublisherError
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.publishers.ipfs import IpfsPublisher
from bacalhau_p2p.publishers.local import LocalPublisher
from bacalhau_p2p.publishers.noop import NoopPublisher
from bacalhau_p2p.testing.publishers import PUBLISHER_CHECKS, PublisherKit

ADDRESSES = ["/ip4/127.0.0.1/tcp/1235/p2p/12D3KooWExample"]
JOB, EXECUTION = JobID("j-1"), ExecutionID("e-1")


@pytest.fixture(params=["ipfs", "local"])
def publisher(request, content):
    if request.param == "ipfs":
        return IpfsPublisher(content, addresses=lambda: ADDRESSES)
    return LocalPublisher(content, base_url=lambda: "http://127.0.0.1:1234/")


@pytest.mark.parametrize("check", PUBLISHER_CHECKS, ids=lambda check: check.__name__)
async def test_publishers_conform(check, publisher, result):
    kit = PublisherKit(
        publisher=publisher,
        valid=SpecConfig(type=publisher.type),
        invalid=[(SpecConfig(type=publisher.type, params={"Bucket": "b"}), "Params.Bucket")],
        cid=result,
        unknown=str(CID.of(RAW, b"not here")),
    )
    await check(kit)


async def test_the_ipfs_location_lists_the_providers(content, result):
    publisher = IpfsPublisher(content, addresses=lambda: ADDRESSES)
    published = await publisher.publish(SpecConfig(type="ipfs"), JOB, EXECUTION, result)
    assert published.location == SpecConfig(type="ipfs", params={"CID": result, "Providers": ADDRESSES})


async def test_the_local_location_has_the_download_url(content, result):
    publisher = LocalPublisher(content, base_url=lambda: "http://127.0.0.1:1234")
    published = await publisher.publish(SpecConfig(type="local"), JOB, EXECUTION, result)
    url = f"http://127.0.0.1:1234/ipfs/{result}?format=tar"
    assert published.location == SpecConfig(type="local", params={"CID": result, "URL": url})


@pytest.mark.parametrize("make", ["ipfs", "local"])
async def test_a_published_result_is_pinned_until_it_expires(content, result, make):
    clock = {"clock": lambda: 1000.0, "keep": 500.0}
    if make == "ipfs":
        publisher = IpfsPublisher(content, addresses=lambda: ADDRESSES, **clock)
    else:
        publisher = LocalPublisher(content, base_url=lambda: "http://h", **clock)
    await publisher.publish(SpecConfig(type=make), JOB, EXECUTION, result)
    pins = {pin.owner: pin.expires for pin in await content.pins(CID.parse(result))}
    assert pins == {"execution": None, "published:e-1": 1500.0}


async def test_a_publisher_without_an_address_is_unavailable(content, result):
    assert (
        await IpfsPublisher(content, addresses=lambda: []).unavailable()
        == "this node has no address to listen on"
    )
    local = LocalPublisher(content, base_url=lambda: "")
    assert await local.unavailable() == "this node has no HTTP API"
    with pytest.raises(PublisherError, match="no HTTP API"):
        await local.publish(SpecConfig(type="local"), JOB, EXECUTION, result)


async def test_noop_publishes_the_cid_without_a_location(result):
    publisher = NoopPublisher()
    assert publisher.faults(SpecConfig(type="noop")) == []
    assert await publisher.unavailable() is None
    published = await publisher.publish(SpecConfig(type="noop"), JOB, EXECUTION, result)
    assert (published.cid, published.location) == (result, SpecConfig(type="noop"))
