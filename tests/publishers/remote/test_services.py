"""Publishers that hand results to services, against servers written from the services' specifications."""

from __future__ import annotations

import logging
import re

import pytest
import trio

from bacalhau_p2p.errors import PeerUnreachable, PublisherError, SettingsError
from bacalhau_p2p.ipfs.format.car import CarReader
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.node import open_node
from bacalhau_p2p.outbound.service import Service
from bacalhau_p2p.publishers.remote.estuary import Estuary
from bacalhau_p2p.publishers.remote.lighthouse import Lighthouse
from bacalhau_p2p.publishers.remote.pinning import MAX_DELEGATES, PinningService
from bacalhau_p2p.publishers.remote.publisher import RemotePublisher
from bacalhau_p2p.publishers.remote.service import RemoteLimits
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.testing.publishers import PUBLISHER_CHECKS, PublisherKit
from tests.support.servers.web_server import Answer, WebServer
from tests.support.waiting import until

TOKEN = "sesame-0123456789"
ADDRESSES = ["/ip4/203.0.113.7/tcp/1235/p2p/12D3KooWExample"]
JOB, EXECUTION = JobID("j-1"), ExecutionID("e-1")
OTHER = str(CID.of(RAW, b"another result"))


class FakeService:
    """What the three services have in common: a token, and failures that a test asks for."""

    def __init__(self) -> None:
        self.server = WebServer(self._answer)
        self.failures: list[Answer] = []
        """Given instead of an answer, one a request."""
        self.states = ["queued", "pinned"]
        """One for each question, the last one repeated."""
        self.wrong_cid = ""

    def _answer(self, request):
        if self.failures:
            return self.failures.pop(0)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            error = {"reason": "UNAUTHORIZED", "details": f"bad token {request.headers.get('authorization')}"}
            return Answer.of({"error": error}, 401)
        return self.route(request)

    def route(self, request):
        raise NotImplementedError

    def next_state(self) -> str:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    @property
    def asked(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.server.requests]


class FakePinning(FakeService):
    """https://ipfs.github.io/pinning-services-api-spec/"""

    kind = "pinning"

    def __init__(self) -> None:
        super().__init__()
        self.pins: dict[str, dict] = {}
        self.delegates: object = ["/ip4/203.0.113.1/tcp/4001/p2p/12D3KooWDelegate"]

    def route(self, request):
        if request.method == "POST" and request.path == "/psa/pins":
            request_id = f"r/{len(self.pins) + 1}"
            self.pins[request_id] = request.json()
            return Answer.of(self.status(request_id), 202)
        if request.path == "/psa/pins":
            same = [key for key, pin in self.pins.items() if pin["cid"] == request.query["cid"]]
            return Answer.of({"count": len(same), "results": [self.status(key) for key in same[:1]]})
        return Answer.of(self.status(request.path.removeprefix("/psa/pins/").replace("%2F", "/")))

    def status(self, request_id):
        pin = self.pins[request_id]
        state = self.next_state()
        return {
            "requestid": request_id,
            "status": state,
            "created": "2026-01-01T00:00:00Z",
            "pin": {**pin, "cid": self.wrong_cid or pin["cid"]},
            "delegates": self.delegates,
            "info": {"status_details": "no provider found"} if state == "failed" else {},
        }

    def publisher(self, content, limits, token=TOKEN, connect=None):
        service = Service(f"{self.server.url}/psa", token, pauses=(0.0, 0.0), idle=5)
        return RemotePublisher(
            content,
            PinningService(service, lambda: ADDRESSES, connect),
            "pinning",
            addresses=lambda: ADDRESSES,
            limits=limits,
        )


def uploaded_root(body: bytes) -> str:
    reader = CarReader()
    blocks = dict(reader.feed(body))
    reader.finish()
    assert len(blocks) == 7
    return str(reader.roots[0])


class FakeLighthouse(FakeService):
    """Upload as kubo's `dag/import` behind a bearer token, `file_info` once it is known."""

    kind = "lighthouse"

    def route(self, request):
        if request.path == "/api/v0/dag/import":
            boundary = re.search("boundary=(.*)", request.headers["content-type"])[1].encode()
            head, body = request.body.split(b"\r\n\r\n", 1)
            assert head.startswith(b"--" + boundary)
            assert b'name="file"' in head
            root = uploaded_root(body[: body.rindex(b"\r\n--" + boundary + b"--")])
            return Answer.of({"data": {"Name": "", "Hash": self.wrong_cid or root, "Size": "1"}})
        assert request.path == "/api/lighthouse/file_info"
        if (state := self.next_state()) != "pinned":
            return Answer.of({"error": state}, 404)
        return Answer.of({"data": {"cid": request.query["cid"], "fileSizeInBytes": "1"}})

    def publisher(self, content, limits, token=TOKEN):
        service = Service(self.server.url, token, pauses=(0.0, 0.0), idle=5)
        return RemotePublisher(
            content, Lighthouse(service, service), "lighthouse", addresses=lambda: ADDRESSES, limits=limits
        )


class FakeEstuary(FakeService):
    """`/content/add-car` and `/content/status/{id}` of its API."""

    kind = "estuary"

    def route(self, request):
        if request.path == "/content/add-car":
            assert request.headers["content-type"] == "application/vnd.ipld.car"
            self.cid = self.wrong_cid or uploaded_root(request.body)
            return Answer.of({"cid": self.cid, "retrieval_url": "", "estuaryId": 7, "providers": []})
        assert request.path == "/content/status/7"
        state = self.next_state()
        return Answer.of(
            {"content": {"id": 7, "cid": self.cid, "active": state == "pinned", "failed": state == "failed"}}
        )

    def publisher(self, content, limits, token=TOKEN):
        service = Service(self.server.url, token, pauses=(0.0, 0.0), idle=5)
        return RemotePublisher(
            content, Estuary(service), "estuary", addresses=lambda: ADDRESSES, limits=limits
        )


@pytest.fixture(params=[FakePinning, FakeLighthouse, FakeEstuary], ids=lambda fake: fake.kind)
def service(request):
    fake = request.param()
    with fake.server:
        yield fake


@pytest.fixture
def pinning():
    fake = FakePinning()
    with fake.server:
        yield fake


LIMITS = RemoteLimits(total=10, polls=(0.001,), keep=500.0)


async def publish(publisher, cid):
    return await publisher.publish(SpecConfig(type=publisher.type), JOB, EXECUTION, cid)


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


async def test_it_waits_until_the_service_has_the_result(service, content, result):
    service.states = ["queued", "pinning", "pinning", "pinned"]
    if service.kind == "pinning":  # has a state for the first question already
        service.states.insert(0, "queued")
    published = await publish(service.publisher(content, LIMITS), result)
    assert service.states == ["pinned"]
    assert published.location.params["CID"] == result
    assert published.location.params["Providers"] == ADDRESSES
    assert published.location.params["Service"] == "127.0.0.1"


async def test_a_result_that_is_never_pinned_is_an_error_in_the_end(service, content, result):
    service.states = ["queued"]
    publisher = service.publisher(content, RemoteLimits(total=0.3, polls=(0.01,)))
    with pytest.raises(
        PublisherError, match=rf"{result} failed: {service.kind} service did not confirm it within 0\.3 s"
    ):
        await publish(publisher, result)


async def test_a_wrong_cid_is_not_believed(service, content, result):
    service.wrong_cid = OTHER
    with pytest.raises(PublisherError, match=f"answer for {OTHER}, not for {result}") as caught:
        await publish(service.publisher(content, LIMITS), result)
    assert not caught.value.permanent


async def test_a_refused_token_is_said_once_and_shown_never(service, content, result, caplog):
    caplog.set_level(logging.DEBUG)
    wrong = "tell-nobody-9876543210"
    with pytest.raises(PublisherError, match="401 Unauthorized") as caught:
        await publish(service.publisher(content, LIMITS, token=wrong), result)
    assert len(service.asked) == 1
    assert wrong not in f"{caught.value!r} {caught.value} {caught.value.__cause__} {caplog.text}"


async def test_what_may_pass_is_tried_again(service, content, result):
    service.failures = [Answer(status=429, headers={"Retry-After": "0"}), Answer(status=500)]
    published = await publish(service.publisher(content, LIMITS), result)
    assert published.cid == result
    assert len(set(service.asked[:3])) == 1


async def test_a_service_that_stays_broken_is_named_with_its_status(service, content, result):
    service.failures = [Answer.of({"error": {"reason": "OUT", "details": "of order"}}, 500)] * 20
    with pytest.raises(PublisherError, match=r"127\.0\.0\.1: 500 Internal Server Error \(of order\)"):
        await publish(service.publisher(content, LIMITS), result)
    assert len(service.asked) == 3


async def test_a_service_that_wants_to_be_left_alone_is(service, content, result):
    service.failures = [Answer(status=429, headers={"Retry-After": "900"})]
    with pytest.raises(PublisherError, match=r"429 Too Many Requests \(retry after 900 s\)"):
        await publish(service.publisher(content, LIMITS), result)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"null", b"", b"7", b"\xff\xfe", b"[" * 100_000])
async def test_answers_of_another_shape_are_refused(service, content, result, body):
    service.failures = [Answer(body=body)] * 20
    with pytest.raises(PublisherError, match=f"publishing result {result} failed: 127"):
        await publish(service.publisher(content, LIMITS), result)


async def test_an_answer_without_end_is_refused(service, content, result):
    def endless():
        while not service.server.stopping.is_set():
            yield b" " * 100_000

    service.failures = [Answer(body=endless())]
    with pytest.raises(PublisherError, match="answer larger than 1048576 bytes"):
        await publish(service.publisher(content, LIMITS), result)


async def test_nobody_there_is_said_so(content, result):
    fake = FakePinning()
    with fake.server:
        publisher = fake.publisher(content, LIMITS)
    with pytest.raises(PublisherError, match=r"127\.0\.0\.1: connection failed"):
        await publish(publisher, result)


async def test_a_token_follows_no_redirect(pinning, content, result):
    with WebServer(lambda request: Answer()) as elsewhere:
        pinning.failures = [Answer(status=307, headers={"Location": elsewhere.url})]
        with pytest.raises(PublisherError, match="307 Temporary Redirect"):
            await publish(pinning.publisher(content, LIMITS), result)
        assert elsewhere.requests == []


async def test_the_node_keeps_a_result_that_a_service_has_too(service, content, result):
    publisher = service.publisher(content, LIMITS)
    publisher._clock = lambda: 1000.0
    await publish(publisher, result)
    pins = {pin.owner: pin.expires for pin in await content.pins(CID.parse(result))}
    assert pins == {"execution": None, "published:e-1": 1500.0}


# --- what is each service's own ---------------------------------------------------------------


async def test_a_pinning_service_is_told_where_to_fetch_and_for_what(pinning, content, result):
    await publish(pinning.publisher(content, LIMITS), result)
    assert pinning.pins == {
        "r/1": {
            "cid": result,
            "name": "j-1/e-1",
            "origins": ADDRESSES,
            "meta": {"job": "j-1", "execution": "e-1"},
        }
    }
    assert pinning.asked == ["GET /psa/pins", "POST /psa/pins", "GET /psa/pins/r%2F1"]


async def test_a_pin_that_is_there_is_not_asked_for_again(pinning, content, result):
    for _ in range(2):
        await publish(pinning.publisher(content, LIMITS), result)
    assert len(pinning.pins) == 1


async def test_a_pin_that_failed_ends_the_wait_with_its_reason(pinning, content, result):
    pinning.states = ["queued", "pinning", "failed"]
    with pytest.raises(PublisherError, match="pinning failed: no provider found"):
        await publish(pinning.publisher(content, LIMITS), result)


async def test_content_that_estuary_failed_on_ends_the_wait(content, result):
    fake = FakeEstuary()
    fake.states = ["queued", "failed"]
    with fake.server, pytest.raises(PublisherError, match="pinning failed"):
        await publish(fake.publisher(content, LIMITS), result)


async def test_without_settings_there_is_no_such_publisher(content, result):
    publisher = RemotePublisher(content, None, "pinning")
    assert await publisher.unavailable() == "no pinning service in this node's settings"
    with pytest.raises(PublisherError, match="no pinning service"):
        await publish(publisher, result)


@pytest.mark.parametrize("endpoint", ["", "pin.example", "ftp://pin.example", "https://"])
def test_an_endpoint_that_is_no_url_is_an_error_of_the_settings(endpoint):
    with pytest.raises(SettingsError, match="is not an http or https URL"):
        Service(endpoint)


# --- delegates of a pinning service -----------------------------------------------------------


async def test_a_pinning_service_fetches_by_the_connection_to_its_delegate(pinning, tmp_path):
    """The service's peer knows no address of ours: it has the result because we dialled it."""
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "stdout").write_bytes(b"hello\n" * 100_000)
    alone = {"swarm_host": "127.0.0.1", "swarm_port": 0, "requester": False, "compute": False}
    async with (
        open_node(Settings(data_dir=tmp_path / "service", **alone)) as theirs,
        open_node(Settings(data_dir=tmp_path / "ours", **alone)) as ours,
    ):
        cid = str((await ours.content.add(folder, pin_owner="execution")).cid)
        pinning.states, pinning.delegates = ["queued"], list(theirs.addresses)

        async def fetch_as_the_service():
            await until(lambda: theirs.transport.peers)
            await theirs.content.fetch(CID.parse(cid))
            pinning.states = ["pinned"]

        publisher = pinning.publisher(ours.content, LIMITS, connect=ours.transport.connect)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fetch_as_the_service)
                await publish(publisher, cid)
        assert await theirs.content.has(CID.parse(cid))


async def test_each_delegate_is_dialled_once_and_while_the_service_is_asked(pinning, content, result):
    dialled = []

    async def connect(address):
        dialled.append(address)
        if address.startswith("/ip4/203"):
            raise PeerUnreachable("no route")
        await trio.sleep_forever()

    pinning.states = ["queued", "queued", "queued", "pinning", "pinned"]
    pinning.delegates = ["/ip4/203.0.113.1/tcp/1/p2p/a", "/dns4/hangs/tcp/1/p2p/b"]
    with trio.fail_after(8):
        published = await publish(pinning.publisher(content, LIMITS, connect=connect), result)
    assert published.cid == result
    assert sorted(dialled) == sorted(pinning.delegates)


@pytest.mark.parametrize(
    ("delegates", "expected"),
    [
        (None, 0),
        ("/ip4/203.0.113.1/tcp/1/p2p/a", 0),
        ([1, None, {}, "x" * 10_000 + "/p2p/a", "/ip4/203.0.113.1/tcp/1"], 0),
        ([f"/ip4/203.0.113.1/tcp/{port}/p2p/a" for port in range(1, 1000)], MAX_DELEGATES),
    ],
)
async def test_odd_delegates_harm_nothing(pinning, content, result, delegates, expected):
    dialled = []

    async def connect(address):
        dialled.append(address)

    pinning.states, pinning.delegates = ["queued", "queued", "pinned"], delegates
    await publish(pinning.publisher(content, LIMITS, connect=connect), result)
    assert len(dialled) == expected


async def test_a_delegate_of_a_pin_that_is_there_is_not_dialled(pinning, content, result):
    async def connect(address):
        raise AssertionError("nobody needs it")

    pinning.states = ["pinned"]
    await publish(pinning.publisher(content, LIMITS, connect=connect), result)
