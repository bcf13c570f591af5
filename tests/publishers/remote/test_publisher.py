"""What all remote publishers have in common, with `service`, `lighthouse` and `estuary`, and the retries of
`outbound.service`."""

from __future__ import annotations

import logging

import pytest

from bacalhau_p2p.errors import PublisherError
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.publishers.remote.publisher import RemotePublisher
from bacalhau_p2p.publishers.remote.service import RemoteLimits
from bacalhau_p2p.testing.publishers import PUBLISHER_CHECKS, PublisherKit
from tests.support.servers.pinning_services import ADDRESSES, LIMITS, OTHER, FakeEstuary, FakePinning, publish
from tests.support.servers.web_server import Answer, WebServer


@pytest.mark.parametrize("check", PUBLISHER_CHECKS, ids=lambda check: check.__name__)
async def test_remote_publishers_conform(check, service, content, result):
    kind = service.kind
    await check(
        PublisherKit(
            publisher=service.publisher(content, LIMITS),
            valid=SpecConfig(type=kind),
            invalid=[(SpecConfig(type=kind, params={"Token": "x"}), "Params.Token")],
            cid=result,
            unknown=OTHER,
        )
    )


async def test_publishing_ends_when_the_service_has_the_result(service, content, result):
    service.states = ["queued", "pinning", "pinning", "pinned"]
    if service.kind == "pinning":  # has a state for the first question already
        service.states.insert(0, "queued")
    published = await publish(service.publisher(content, LIMITS), result)
    assert service.states == ["pinned"]
    assert published.location.params["CID"] == result
    assert published.location.params["Providers"] == ADDRESSES
    assert published.location.params["Service"] == "127.0.0.1"


async def test_a_result_that_is_never_pinned_times_out(service, content, result):
    service.states = ["queued"]
    publisher = service.publisher(content, RemoteLimits(total=0.3, polls=(0.01,)))
    with pytest.raises(
        PublisherError, match=rf"{result} failed: {service.kind} service did not confirm it within 0\.3 s"
    ):
        await publish(publisher, result)


async def test_an_answer_for_another_cid_is_an_error(service, content, result):
    service.wrong_cid = OTHER
    with pytest.raises(PublisherError, match=f"answer for {OTHER}, not for {result}") as caught:
        await publish(service.publisher(content, LIMITS), result)
    assert not caught.value.permanent


async def test_a_refused_token_is_reported_but_not_shown(service, content, result, caplog):
    caplog.set_level(logging.DEBUG)
    wrong = "tell-nobody-9876543210"
    with pytest.raises(PublisherError, match="401 Unauthorized") as caught:
        await publish(service.publisher(content, LIMITS, token=wrong), result)
    assert len(service.asked) == 1
    assert wrong not in f"{caught.value!r} {caught.value} {caught.value.__cause__} {caplog.text}"


async def test_temporary_failures_are_retried(service, content, result):
    service.failures = [Answer(status=429, headers={"Retry-After": "0"}), Answer(status=500)]
    published = await publish(service.publisher(content, LIMITS), result)
    assert published.cid == result
    assert len(set(service.asked[:3])) == 1


async def test_a_permanent_server_error_is_reported_with_status_and_reason(service, content, result):
    service.failures = [Answer.of({"error": {"reason": "OUT", "details": "of order"}}, 500)] * 20
    with pytest.raises(PublisherError, match=r"127\.0\.0\.1: 500 Internal Server Error \(of order\)"):
        await publish(service.publisher(content, LIMITS), result)
    assert len(service.asked) == 3


async def test_a_very_long_retry_after_ends_the_attempts(service, content, result):
    service.failures = [Answer(status=429, headers={"Retry-After": "900"})]
    with pytest.raises(PublisherError, match=r"429 Too Many Requests \(retry after 900 s\)"):
        await publish(service.publisher(content, LIMITS), result)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"null", b"", b"7", b"\xff\xfe", b"[" * 100_000])
async def test_malformed_answers_are_errors(service, content, result, body):
    service.failures = [Answer(body=body)] * 20
    with pytest.raises(PublisherError, match=f"publishing result {result} failed: 127"):
        await publish(service.publisher(content, LIMITS), result)


async def test_an_endless_answer_is_an_error(service, content, result):
    def endless():
        while not service.server.stopping.is_set():
            yield b" " * 100_000

    service.failures = [Answer(body=endless())]
    with pytest.raises(PublisherError, match="answer larger than 1048576 bytes"):
        await publish(service.publisher(content, LIMITS), result)


async def test_an_unreachable_service_is_reported(content, result):
    fake = FakePinning()
    with fake.server:
        publisher = fake.publisher(content, LIMITS)
    with pytest.raises(PublisherError, match=r"127\.0\.0\.1: connection failed"):
        await publish(publisher, result)


async def test_redirects_are_not_followed(pinning, content, result):
    with WebServer(lambda request: Answer()) as elsewhere:
        pinning.failures = [Answer(status=307, headers={"Location": elsewhere.url})]
        with pytest.raises(PublisherError, match="307 Temporary Redirect"):
            await publish(pinning.publisher(content, LIMITS), result)
        assert elsewhere.requests == []


async def test_the_node_also_keeps_the_result(service, content, result):
    publisher = service.publisher(content, LIMITS)
    publisher._clock = lambda: 1000.0
    await publish(publisher, result)
    pins = {pin.owner: pin.expires for pin in await content.pins(CID.parse(result))}
    assert pins == {"execution": None, "published:e-1": 1500.0}


# --- single services ---------------------------------------------------------------


async def test_content_that_estuary_failed_on_is_an_error(content, result):
    fake = FakeEstuary()
    fake.states = ["queued", "failed"]
    with fake.server, pytest.raises(PublisherError, match="pinning failed"):
        await publish(fake.publisher(content, LIMITS), result)


async def test_without_settings_the_publisher_is_unavailable(content, result):
    publisher = RemotePublisher(content, None, "pinning")
    assert await publisher.unavailable() == "no pinning service in this node's settings"
    with pytest.raises(PublisherError, match="no pinning service"):
        await publish(publisher, result)


# --- delegates of a pinning service -----------------------------------------------------------
