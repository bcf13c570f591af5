from __future__ import annotations

import io
import logging
import tarfile

import pytest

from bacalhau_p2p.errors import PublisherError
from bacalhau_p2p.ipfs.format.car import CarReader
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.outbound.s3.access import S3Access
from bacalhau_p2p.publishers.s3 import S3Publisher
from bacalhau_p2p.testing.publishers import PUBLISHER_CHECKS, PublisherKit
from tests.support.servers.s3_server import KEY_ID, SECRET, SESSION, s3_server
from tests.support.servers.web_server import Answer, WebServer

JOB, EXECUTION = JobID("j-1"), ExecutionID("e-1")
FILES = {"exitCode": b"0", "outputs/data.bin": bytes(range(256)) * 3000, "stdout": b"hello\n"}


@pytest.fixture(scope="module")
def server():
    with s3_server() as (url, client):
        yield url, client


@pytest.fixture
def bucket(server):
    """A new bucket's contents, by key."""
    client = server[1]
    client.create_bucket(Bucket="results")

    def contents() -> dict[str, bytes]:
        listing = client.list_objects_v2(Bucket="results").get("Contents", ())
        return {
            one["Key"]: client.get_object(Bucket="results", Key=one["Key"])["Body"].read() for one in listing
        }

    yield contents
    for key in contents():
        client.delete_object(Bucket="results", Key=key)
    client.delete_bucket(Bucket="results")


@pytest.fixture
def make(content, tmp_path):
    def make(url: str, **options):
        idle = options.pop("idle", 5)
        access = S3Access(endpoints=[url], buckets=["res*"], attempts=1, idle=idle, session=SESSION)
        return S3Publisher(
            content,
            access,
            folder=tmp_path / "publishing",
            addresses=lambda: ["/ip4/203.0.113.7/tcp/1235"],
            clock=lambda: 86400.0,
            **options,
        )

    return make


def s3(url: str, key: str = "out", **params: str) -> SpecConfig:
    return SpecConfig(type="s3", params={"Bucket": "results", "Key": key, "Endpoint": url, **params})


@pytest.mark.parametrize("check", PUBLISHER_CHECKS, ids=lambda check: check.__name__)
async def test_the_s3_publisher_conforms(check, server, bucket, make, result):
    url = server[0]
    await check(
        PublisherKit(
            publisher=make(url),
            valid=s3(url),
            invalid=[
                (SpecConfig(type="s3"), "Params.Bucket"),
                (s3(url, Bucket="theirs"), "Params.Bucket"),
                (s3("http://elsewhere.example"), "Params.Endpoint"),
                (s3(url, Encoding="zip"), "Params.Encoding"),
                (s3(url, SecretKey="x"), "Params.SecretKey"),
            ],
            cid=result,
            unknown=str(CID.of(RAW, b"not here")),
        )
    )


async def test_each_execution_has_a_prefix_of_its_own(server, bucket, make, result, tmp_path):
    for execution in ("e-1", "e-2"):
        published = await make(server[0]).publish(s3(server[0]), JOB, ExecutionID(execution), result)
    assert bucket() == {f"out/j-1/{e}/{path}": body for e in ("e-1", "e-2") for path, body in FILES.items()}
    assert published.location.params == {
        "CID": result,
        "Providers": ["/ip4/203.0.113.7/tcp/1235"],
        "Bucket": "results",
        "Endpoint": server[0],
        "Key": "out/j-1/e-2/",
    }
    assert list((tmp_path / "publishing").iterdir()) == []


@pytest.mark.parametrize(
    ("key", "prefix"),
    [
        ("a/{executionID}", "a/e-1/"),
        ("{date}-{time}/{jobID}/x-{executionID}/", "19700102-000000/j-1/x-e-1/"),
        ("/a/", "a/j-1/e-1/"),
    ],
)
async def test_placeholders_in_the_key_are_replaced(server, bucket, make, result, key, prefix):
    published = await make(server[0]).publish(s3(server[0], key), JOB, EXECUTION, result)
    assert published.location.params["Key"] == prefix
    assert set(bucket()) == {prefix + path for path in FILES}


async def test_the_archive_has_all_files_and_is_reproducible(server, bucket, make, result):
    config = s3(server[0], Encoding="gzip")
    published = await make(server[0]).publish(config, JOB, EXECUTION, result)
    first = bucket()
    assert list(first) == ["out/j-1/e-1.tar.gz"] == [published.location.params["Key"]]
    with tarfile.open(fileobj=io.BytesIO(first["out/j-1/e-1.tar.gz"])) as archive:
        files = {info.name: archive.extractfile(info).read() for info in archive if info.isfile()}
    assert files == {f"./{path}": body for path, body in FILES.items()}
    await make(server[0]).publish(config, JOB, EXECUTION, result)
    assert bucket() == first


async def test_a_car_has_the_result_as_its_root(server, bucket, make, result):
    await make(server[0]).publish(s3(server[0], Encoding="car"), JOB, EXECUTION, result)
    reader = CarReader()
    reader.feed(bucket()["out/j-1/e-1.car"])
    reader.finish()
    assert [str(root) for root in reader.roots] == [result]


async def test_an_empty_folder_becomes_an_empty_object(server, bucket, make, content, tmp_path):
    (tmp_path / "r" / "outputs" / "empty").mkdir(parents=True)
    cid = str((await content.add(tmp_path / "r", pin_owner="execution")).cid)
    await make(server[0]).publish(s3(server[0]), JOB, EXECUTION, cid)
    assert bucket() == {"out/j-1/e-1/outputs/empty/": b""}


async def test_a_missing_bucket_is_reported(server, make, result):
    with pytest.raises(PublisherError, match="s3://results/out/j-1/e-1/ failed: no such bucket"):
        await make(server[0]).publish(s3(server[0]), JOB, EXECUTION, result)


async def test_an_object_missing_after_its_upload_is_an_error(make, result):
    """A server that says yes to everything and keeps nothing."""
    listing = b'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>'

    def forgets(request):
        return Answer(body=listing if request.method == "GET" else b"", headers={"ETag": '"x"'})

    missing = "the object 'out/j-1/e-1/exitCode' is missing or incomplete"
    with WebServer(forgets) as server, pytest.raises(PublisherError, match=missing):
        await make(server.url).publish(s3(server.url), JOB, EXECUTION, result)


async def test_a_refusal_is_reported_without_the_credentials(make, result, caplog):
    caplog.set_level(logging.INFO)
    with WebServer(lambda request: Answer(status=403)) as server:
        with pytest.raises(PublisherError, match=r"access denied") as caught:
            await make(server.url).publish(s3(server.url), JOB, EXECUTION, result)
        assert any(KEY_ID in request.headers.get("authorization", "") for request in server.requests)
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
    assert not caught.value.permanent


async def test_a_silent_server_is_given_up(make, result, tmp_path):
    def stalls(request):
        server.stopping.wait(5)
        return Answer()

    with WebServer(stalls) as server:
        publisher = make(server.url, idle=0.2, timeout=0.1)
        with pytest.raises(PublisherError, match=r"upload to s3 took longer than|no data in time"):
            await publisher.publish(s3(server.url), JOB, EXECUTION, result)
    assert list((tmp_path / "publishing").iterdir()) == []


async def test_without_buckets_in_the_settings_the_publisher_is_unavailable(content, tmp_path):
    publisher = S3Publisher(content, S3Access(), folder=tmp_path)
    assert await publisher.unavailable() == "no bucket in this node's settings"
