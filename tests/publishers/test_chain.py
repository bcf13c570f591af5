from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.errors import Fault, InvalidJob, PublisherError
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.publishers.chain import ChainPublisher
from bacalhau_p2p.publishers.ipfs import IpfsPublisher
from bacalhau_p2p.publishers.local import LocalPublisher
from bacalhau_p2p.testing.publishers import PUBLISHER_CHECKS, PublisherKit
from tests.support.results import result_cid

JOB, EXECUTION = JobID("j-1"), ExecutionID("e-1")


class Broken:
    """Fails, lies or never ends, as its type says."""

    def __init__(self, kind: str) -> None:
        self.type = kind
        self.stopped = False

    def faults(self, publisher: SpecConfig) -> list[Fault]:
        return [Fault(f"Params.{name}", "not known") for name in publisher.params]

    async def unavailable(self) -> str | None:
        return "it is switched off" if self.type == "off" else None

    async def publish(self, publisher, job_id, execution_id, cid) -> PublishedResult:
        if self.type == "lies":
            return PublishedResult(cid=result_cid("other"), location=SpecConfig(type="lies"))
        if self.type == "hangs":
            try:
                await trio.sleep_forever()
            finally:
                self.stopped = True
        raise PublisherError(f"{self.type} for a reason", permanent=self.type == "fails for good")


@pytest.fixture
def node(content):
    """The publishers of a node, by type."""
    broken = ("fails", "fails too", "fails for good", "lies", "hangs", "off")
    return {
        "ipfs": IpfsPublisher(content, addresses=lambda: ["/ip4/203.0.113.7/tcp/1235/p2p/12D3KooWExample"]),
        "local": LocalPublisher(content, base_url=lambda: "http://127.0.0.1:1234"),
        **{kind: Broken(kind) for kind in broken},
    }


def chain(kind: str, *links: str) -> SpecConfig:
    return SpecConfig(type=kind, params={"Publishers": [{"Type": link} for link in links]})


@pytest.mark.parametrize("kind", ["fanout", "fallback"])
@pytest.mark.parametrize("check", PUBLISHER_CHECKS, ids=lambda check: check.__name__)
async def test_chains_conform(check, kind, node, result):
    def invalid(*links: object) -> SpecConfig:
        return SpecConfig(type=kind, params={"Publishers": list(links)})

    await check(
        PublisherKit(
            publisher=ChainPublisher(kind, lambda: node),
            valid=chain(kind, "ipfs", "local"),
            invalid=[
                (SpecConfig(type=kind), "Params.Publishers"),
                (invalid(), "Params.Publishers"),
                (chain(kind, *["ipfs"] * 9), "Params.Publishers"),
                (chain(kind, "ipfs", "fanout"), "Params.Publishers"),
                (chain(kind, "ipfs", "unheard-of"), "Params.Publishers[1].Type"),
                (invalid({"Type": "ipfs", "Params": {"Key": "x"}}), "Params.Publishers[0].Params.Key"),
            ],
            cid=result,
            unknown=str(CID.of(RAW, b"not here")),
        )
    )


async def publish(kind, node, result, *links, **options):
    publisher = ChainPublisher(kind, lambda: node, **options)
    return await publisher.publish(chain(kind, *links), JOB, EXECUTION, result)


def places(published: PublishedResult) -> list[str]:
    return [place["Type"] for place in published.location.params["Published"]]


async def test_fanout_lists_all_locations_in_the_order_of_the_job(node, result):
    published = await publish("fanout", node, result, "local", "ipfs")
    assert places(published) == ["local", "ipfs"]
    assert published.location.params["Published"][0]["Params"]["CID"] == result
    assert published.location.params["Providers"] == ["/ip4/203.0.113.7/tcp/1235/p2p/12D3KooWExample"]


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("fails", "fails: fails for a reason"),
        ("lies", f"lies: published {result_cid('other')} instead of"),
        ("off", "switched off"),
    ],
)
async def test_fanout_fails_when_one_fails_and_stops_the_others(node, result, link, words):
    with pytest.raises(PublisherError, match=words):
        await publish("fanout", node, result, "hangs", "ipfs", link)
    assert node["hangs"].stopped


async def test_fallback_uses_the_first_publisher_that_works(node, result):
    published = await publish("fallback", node, result, "off", "fails", "lies", "local", "ipfs")
    assert places(published) == ["local"]


async def test_fallback_gives_up_a_publisher_that_hangs(node, result):
    published = await publish("fallback", node, result, "hangs", "ipfs", timeout=0.01)
    assert places(published) == ["ipfs"]
    assert node["hangs"].stopped


@pytest.mark.parametrize(
    ("links", "permanent"),
    [(("fails", "fails too"), False), (("fails for good",), True), (("fails for good", "fails"), False)],
)
async def test_a_failed_fallback_has_the_reason_of_each_publisher(node, result, links, permanent):
    with pytest.raises(PublisherError) as caught:
        await publish("fallback", node, result, *links)
    assert str(caught.value) == "; ".join(f"{link}: {link} for a reason" for link in links)
    assert caught.value.permanent is permanent


async def test_a_cancelled_chain_stops_its_publishers(node, result):
    with trio.move_on_after(0.01):
        await publish("fallback", node, result, "hangs")
    assert node["hangs"].stopped


def test_a_chain_in_a_job_is_validated_with_the_parameters_of_each_link():
    def job(*links: object) -> dict:
        publisher = {"type": "FanOut", "params": {"publishers": list(links)}}
        return {"Tasks": [{"Engine": {"Type": "noop"}, "Publisher": publisher}]}

    spec = job_from_mapping(
        job({"type": "IPFS"}, {"type": "s3", "params": {"bucket": "results", "key": "k"}})
    )
    assert spec.task.publisher == SpecConfig(
        type="fanout",
        params={
            "Publishers": [
                {"Type": "ipfs", "Params": {}},
                {"Type": "s3", "Params": {"Bucket": "results", "Key": "k"}},
            ]
        },
    )
    with pytest.raises(InvalidJob) as caught:
        job_from_mapping(job({"Type": "ipfs"}, {"Type": "s3", "Params": {"Bucket": "results"}}))
    assert [fault.path for fault in caught.value.faults] == [
        "Tasks[0].Publisher.Params.Publishers[1].Params.Key"
    ]
