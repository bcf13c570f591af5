"""Both connections to a node, the async and the blocking one, carry out the same calls in the same way.

Covers `async_connection`, `blocking_connection`, `upload` and `download`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.client import calls
from bacalhau_p2p.client.async_connection import AsyncConnection
from bacalhau_p2p.client.blocking_connection import BlockingConnection
from bacalhau_p2p.client.calls import Call
from bacalhau_p2p.client.download import Download
from bacalhau_p2p.client.retry import Patience
from bacalhau_p2p.client.upload import upload
from bacalhau_p2p.errors import (
    ApiError,
    ContentError,
    ContentNotFound,
    InvalidContent,
    NodeUnavailable,
    UnknownJob,
)
from bacalhau_p2p.ipfs.files.importer import cid_of
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from tests.support.servers.fake_node import FakeNode

OTHER = CID.of(RAW, b"other")

VERSION = calls.get_agent("version").then(lambda answer: calls.text(answer, "GitVersion"))


class OnTrio:
    """An `AsyncConnection` behind the methods of a blocking one."""

    def __init__(self, host: str, port: int, token: str = "") -> None:
        self._options = f"http://{host}:{port}", token

    def call(self, call: Call) -> object:
        return self._run(lambda connection: connection.call(call))

    def download(self, download: Download) -> None:
        self._run(lambda connection: connection.download(download))

    def _run(self, use: Callable[[AsyncConnection], object]) -> object:
        async def main() -> object:
            url, token = self._options
            async with AsyncConnection(url, token=token) as connection:
                return await use(connection)

        return trio.run(main)


class Blocking(BlockingConnection):
    def __init__(self, host: str, port: int, token: str = "") -> None:
        super().__init__(host, port, token=token)


@pytest.fixture(params=[OnTrio, Blocking])
def connect(request):
    return request.param


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "hello").write_bytes(b"hello\n")
    (folder / "data.bin").write_bytes(bytes(range(256)) * 4000)
    return folder


def test_a_call_returns_its_result(connect, fake_node: FakeNode):
    assert connect("127.0.0.1", fake_node.port).call(VERSION) == "v9.9.9"
    assert fake_node.requests == [("GET", "/api/v1/agent/version")]


def test_an_error_response_raises_the_error_of_the_node(connect, fake_node: FakeNode):
    with pytest.raises(UnknownJob, match=r"^no job has the id b/c$"):
        connect("127.0.0.1", fake_node.port).call(calls.get_job("b/c"))


def test_a_malformed_response_is_an_error_with_the_address_of_the_node(connect, fake_node: FakeNode):
    for status, body, problem in (
        (200, b"<html>", f"no bacalhau_p2p node at {fake_node.url}: the response is not JSON"),
        (200, b"{}", f"unexpected response from the node at {fake_node.url}: 'GitVersion' is missing"),
        (503, b"down", "the node answered with HTTP status 503"),
        (302, b"", "the node answered with HTTP status 302"),
        (500, b'{"Message": "disk full", "Kind": "Fault"}', "disk full"),
    ):
        fake_node.raw_response = status, body
        with pytest.raises(ApiError) as raised:
            connect("127.0.0.1", fake_node.port).call(VERSION)
        assert str(raised.value) == problem


def test_a_submission_whose_response_is_lost_is_repeated(connect, fake_node: FakeNode):
    job = {"Tasks": [{"Engine": {"Type": "noop"}}]}
    fake_node.lose_responses = 2
    job_id = connect("127.0.0.1", fake_node.port).call(calls.submit_job(job))
    assert list(fake_node.jobs) == [job_id]
    assert len(fake_node.requests) == 3
    fake_node.lose_responses = 3
    with pytest.raises(NodeUnavailable, match=f"^connection to {fake_node.url} broken$"):
        connect("127.0.0.1", fake_node.port).call(calls.submit_job(job))


def test_a_node_that_does_not_listen_is_an_error_with_its_address(connect):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(NodeUnavailable) as raised:
            connect("127.0.0.1", port).call(VERSION)
    message = f"no node listens at http://127.0.0.1:{port}: start one with `bacalhau-p2p serve`"
    assert str(raised.value) == message


def test_a_node_that_does_not_respond_is_an_error_with_the_time(connect, monkeypatch):
    monkeypatch.setattr(calls, "RESPONSE_TIMEOUT", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(NodeUnavailable) as raised:
            connect("127.0.0.1", port).call(VERSION)
    assert str(raised.value) == f"no response from http://127.0.0.1:{port} within 0.01 s"


def test_the_token_is_sent(connect, fake_node: FakeNode):
    connect("127.0.0.1", fake_node.port, "secret").call(VERSION)
    assert fake_node.authorizations == ["Bearer secret"]


def test_content_is_added_and_fetched(connect, fake_node: FakeNode, tmp_path, folder):
    cid = connect("127.0.0.1", fake_node.port).call(upload(folder))
    assert cid == str(cid_of(folder))
    with Download(CID.parse(cid), tmp_path / "copy", providers=["/ip4/1.2.3.4/tcp/1"]) as download:
        connect("127.0.0.1", fake_node.port).download(download)
    assert cid_of(tmp_path / "copy") == cid_of(folder)
    assert fake_node.requests == [
        ("PUT", "/api/v1/content?root=last"),
        ("GET", f"/ipfs/{cid}?format=car&provider=/ip4/1.2.3.4/tcp/1"),
    ]


def test_a_node_that_stores_something_else_is_not_trusted(connect, fake_node: FakeNode, folder):
    fake_node.raw_response = 200, b'{"CID": "%s"}' % str(OTHER).encode()
    with pytest.raises(ApiError, match=f"the node stored {folder} as {OTHER}; expected {cid_of(folder)}"):
        connect("127.0.0.1", fake_node.port).call(upload(folder))
    fake_node.raw_response = 200, b'{"CID": "x"}'
    with pytest.raises(ApiError, match="unexpected response from the node"):
        connect("127.0.0.1", fake_node.port).call(upload(folder))


def test_a_path_that_does_not_exist_is_not_uploaded(connect, fake_node: FakeNode, tmp_path):
    with pytest.raises(ContentError):
        connect("127.0.0.1", fake_node.port).call(upload(tmp_path / "absent"))


def test_a_failed_download_raises_the_reason_and_leaves_nothing(
    connect, fake_node: FakeNode, tmp_path, folder
):
    def fetch(cid: str) -> None:
        with Download(CID.parse(cid), tmp_path / "copy") as download:
            connect("127.0.0.1", fake_node.port).download(download)

    cid = connect("127.0.0.1", fake_node.port).call(upload(folder))
    with pytest.raises(ContentNotFound, match=f"nobody has {OTHER}"):
        fetch(str(OTHER))
    fake_node.truncate_cars = True
    with pytest.raises(InvalidContent, match="part of"):
        fetch(cid)
    fake_node.truncate_cars = False
    fake_node.blocks[CID.of(RAW, b"hello\n")] = b"jello\n"
    with pytest.raises(InvalidContent):
        fetch(cid)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_patient_call_survives_a_restart_of_the_node():
    with FakeNode() as first, FakeNode(port=first.port, started=False) as second:
        first.crash()
        with BlockingConnection("127.0.0.1", first.port) as connection:
            with pytest.raises(NodeUnavailable):
                connection.call_patiently(VERSION, Patience(0.0))
            starting = threading.Timer(0.05, second.start)
            starting.start()
            assert connection.call_patiently(VERSION, Patience(60.0)) == "v9.9.9"
            starting.join()


def test_a_blocking_connection_reports_progress(fake_node: FakeNode, tmp_path, folder):
    progress: list[tuple[int, int | None]] = []
    with BlockingConnection("127.0.0.1", fake_node.port) as connection:
        cid = CID.parse(connection.call(upload(folder)))
        with Download(cid, tmp_path / "copy") as download:
            connection.download(download, progress=lambda done, total: progress.append((done, total)))
    assert progress[-1] == (download.received, None)
    assert download.received > 300_000
    assert progress == sorted(progress)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:1234"])
def test_an_invalid_url_is_an_error(url: str):
    async def main() -> None:
        async with AsyncConnection(url) as connection:
            await connection.call(VERSION)

    with pytest.raises(ApiError, match=f"invalid URL '{url}'"):
        trio.run(main)


def test_an_invalid_host_is_an_error():
    with pytest.raises(ApiError, match="invalid host 'no such host'"):
        BlockingConnection("no such host", 1234)
    assert BlockingConnection("::1", 1234).url == "http://[::1]:1234"
