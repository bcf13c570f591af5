"""Whole jobs whose inputs come from outside the network, and whose results go there."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from bacalhau_p2p.errors import InvalidJob, JobFailed
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.ipfs.files.importer import build
from bacalhau_p2p.ipfs.format.car import write_car
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.testing.network import open_network
from bacalhau_p2p.testing.storage import content_of
from tests.support.servers.s3_server import KEY_ID, SECRET, s3_server
from tests.support.servers.web_server import Answer, WebServer


class Reader(NoopExecutor):
    """A no-op engine that remembers what its inputs held."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    async def run(self, request):
        self.seen += [content_of(mounted.path) for mounted in request.inputs]
        return await super().run(request)


def job(*sources: dict, publisher: dict | None = None, **task: object) -> dict:
    inputs = [{"Target": f"/inputs/{number}", "Source": source} for number, source in enumerate(sources)]
    task = {"Engine": {"Type": "noop", "Params": {"Stdout": "hello\n"}}, "InputSources": inputs, **task}
    return {"Tasks": [{**task, **({"Publisher": publisher} if publisher else {})}]}


async def test_a_job_reads_from_s3_and_publishes_to_s3(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    reader = Reader()
    with s3_server() as (url, client):
        for bucket in ("job-in", "job-out"):
            client.create_bucket(Bucket=bucket)
        client.put_object(Bucket="job-in", Key="dir/a.txt", Body=b"data\n")
        settings = {"s3_endpoints": [url], "s3_buckets": ["job-in", "job-out"]}
        async with open_network(tmp_path, compute_nodes=1, executors={0: [reader]}, **settings) as net:
            wanted = job(
                {"Type": "s3", "Params": {"Bucket": "job-in", "Key": "dir/", "Endpoint": url}},
                publisher={
                    "Type": "s3",
                    "Params": {"Bucket": "job-out", "Key": "runs", "Endpoint": url, "Encoding": "gzip"},
                },
            )
            handle = await net.requester.submit(wanted)
            result = await handle.wait_result(30)
            await result.fetch(tmp_path / "fetched")
        archive = client.get_object(
            Bucket="job-out", Key=client.list_objects_v2(Bucket="job-out")["Contents"][0]["Key"]
        )
    assert reader.seen == [{"a.txt": b"data\n"}]
    with tarfile.open(fileobj=io.BytesIO(archive["Body"].read())) as files:
        assert files.extractfile("./stdout").read() == b"hello\n"
    assert (tmp_path / "fetched" / "stdout").read_text() == "hello\n"


async def test_a_job_reads_urls_where_the_node_allows_their_network(tmp_path):
    digest = hashlib.sha256(b"data\n").hexdigest()
    with WebServer(lambda request: Answer(body=b"data\n")) as server:
        source = {"Type": "urlDownload", "Params": {"URL": f"{server.url}/a.txt", "sha256": digest}}
        reader = Reader()
        settings = {"allow_private_networks": ["127.0.0.0/8"]}
        async with open_network(tmp_path, compute_nodes=1, executors={0: [reader]}, **settings) as net:
            for _ in range(2):
                await (await net.requester.submit(job(source))).wait_result(30)
        assert reader.seen == [b"data\n"] * 2
        assert [request.method for request in server.requests] == ["HEAD", "GET"]
        async with open_network(tmp_path / "strict", compute_nodes=1) as net:
            refused = await net.requester.submit(job(source, Timeouts={"QueueTimeout": 1}))
            with pytest.raises(JobFailed, match="has an address that is not allowed on this node"):
                await refused.wait_result(30)
    assert [request.method for request in server.requests] == ["HEAD", "GET"]


async def test_a_job_reads_a_cid_that_only_a_kubo_node_has(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"data\n")
    with BlockStore(tmp_path / "theirs") as theirs:
        cid = build(folder, theirs.put_verified).cid
        car = b"".join(write_car([cid], theirs))

    def kubo(request):
        return Answer(body=car) if request.path.endswith("/dag/export") else Answer.of({"Size": 1})

    reader = Reader()
    with WebServer(kubo) as server:
        settings = {"kubo_api": server.url}
        async with open_network(tmp_path, compute_nodes=1, executors={0: [reader]}, **settings) as net:
            source = {"Type": "ipfs", "Params": {"CID": str(cid)}}
            await (await net.requester.submit(job(source, publisher={"Type": "noop"}))).wait_result(30)
    assert reader.seen == [{"a.txt": b"data\n"}]


async def test_a_job_completes_when_a_pinning_service_has_its_result(tmp_path):
    pins: list[dict] = []
    states = iter(["queued", "pinning", "pinned"])

    def service(request):
        if request.method == "GET" and request.path == "/pins":
            return Answer.of({"count": 0, "results": []})
        if request.method == "POST":
            pins.append(request.json())
        return Answer.of({"requestid": "1", "status": next(states), "pin": pins[-1]})

    with WebServer(service) as server:
        settings = {"pinning_endpoint": server.url, "pinning_token": "sesame"}
        async with open_network(tmp_path, compute_nodes=1, **settings) as net:
            handle = await net.requester.submit(job(publisher={"Type": "pinning"}))
            result = await handle.wait_result(30)
    assert [pin["cid"] for pin in pins] == [result.cid]
    assert next(states, None) is None


async def test_an_unknown_publisher_is_refused_at_submission(tmp_path):
    async with open_network(tmp_path, compute_nodes=1) as net:
        with pytest.raises(InvalidJob, match=r"Publisher\.Type: unknown publisher 'dropbox'"):
            await net.requester.submit(job(publisher={"Type": "dropbox"}))
