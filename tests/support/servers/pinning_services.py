"""Services that keep results, written from their specifications: pinning, Lighthouse, Estuary and kubo."""

from __future__ import annotations

import json
import re

from bacalhau_p2p.ipfs.format.car import CarReader
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.outbound.service import Service
from bacalhau_p2p.publishers.remote.estuary import Estuary
from bacalhau_p2p.publishers.remote.lighthouse import Lighthouse
from bacalhau_p2p.publishers.remote.pinning import PinningService
from bacalhau_p2p.publishers.remote.publisher import RemotePublisher
from bacalhau_p2p.publishers.remote.service import RemoteLimits
from tests.support.servers.web_server import Answer, WebServer

TOKEN = "sesame-0123456789"


ADDRESSES = ["/ip4/203.0.113.7/tcp/1235/p2p/12D3KooWExample"]


OTHER = str(CID.of(RAW, b"another result"))


LIMITS = RemoteLimits(total=10, polls=(0.001,), keep=500.0)


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


async def publish(publisher, cid):
    return await publisher.publish(SpecConfig(type=publisher.type), JobID("j-1"), ExecutionID("e-1"), cid)


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


THEIRS = "/ip4/203.0.113.8/tcp/4001/p2p/12D3KooWKubo"
