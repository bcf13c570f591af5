"""Inputs from S3, with their `listing`, and `outbound.s3.bucket`."""

from __future__ import annotations

import base64
import hashlib

import pytest
import trio

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.outbound.s3.access import S3Access
from bacalhau_p2p.storage.interface import InputSize
from bacalhau_p2p.storage.s3 import listing
from bacalhau_p2p.storage.s3.provider import S3Storage
from bacalhau_p2p.testing.storage import STORAGE_CHECKS, Sample, StorageKit, content_of
from tests.support.servers.s3_server import KEY_ID, SECRET, SESSION, s3_server
from tests.support.servers.web_server import Answer, WebServer

DATA = bytes(range(256)) * 1000
SHA256 = base64.b64encode(hashlib.sha256(DATA).digest()).decode()


@pytest.fixture(scope="module")
def server():
    with s3_server() as (url, client):
        client.create_bucket(Bucket="data")
        for key, body in {
            "one.bin": DATA,
            "dir/a.txt": b"a",
            "dir/sub/b.txt": b"b",
            "dir/empty/": b"",
            "dir/sub-2/c.txt": b"c",
            "clash/a": b"a",
            "clash/a/b": b"b",
            "evil/../../etc/passwd": b"x",
            "deep/" + "d/" * 200 + "x": b"x",
        }.items():
            client.put_object(Bucket="data", Key=key, Body=body)
        yield url, client


@pytest.fixture
def s3(server):
    def source(key: str, **params: object) -> SpecConfig:
        return SpecConfig(type="s3", params={"Bucket": "data", "Key": key, "Endpoint": server[0], **params})

    return source


@pytest.fixture
def storage(server, make_fetcher):
    return S3Storage(
        S3Access(endpoints=[server[0]], buckets=["data", "versions"], attempts=1, session=SESSION),
        make_fetcher(),
    )


@pytest.mark.parametrize("check", STORAGE_CHECKS, ids=lambda check: check.__name__)
async def test_s3_storage_conforms(check, storage, s3, tmp_path):
    (tmp_path / "inputs").mkdir()
    folder = {
        "a.txt": b"a",
        "sub": None,
        "sub/b.txt": b"b",
        "empty": None,
        "sub-2": None,
        "sub-2/c.txt": b"c",
    }
    await check(
        StorageKit(
            provider=storage,
            folder=tmp_path / "inputs",
            samples=[
                Sample(source=s3("dir/"), content=folder),
                Sample(source=s3("one.bin", ChecksumSHA256=SHA256), content={"one.bin": DATA}),
                Sample(
                    source=s3("dir/sub*"),
                    content={"sub": None, "sub/b.txt": b"b", "sub-2": None, "sub-2/c.txt": b"c"},
                ),
            ],
            invalid=[
                (SpecConfig(type="s3"), "Params.Bucket"),
                (s3("x", Bucket="a/b"), "Params.Bucket"),
                (s3("x", Bucket=".."), "Params.Bucket"),
                (s3("x", Endpoint="http://169.254.169.254"), "Params.Endpoint"),
                (s3("x", Endpoint="http://host/path"), "Params.Endpoint"),
                (s3("x", Region="us-east-1.evil.example/"), "Params.Region"),
                (s3("x", ChecksumSHA256="abc"), "Params.ChecksumSHA256"),
                (s3("x/", VersionID="1"), "Params"),
                (s3("x/", Filter="(a+)+$"), "Params.Filter"),
            ],
            absent=s3("absent"),
        )
    )


@pytest.mark.parametrize(
    ("key", "words", "permanent"),
    [
        ("absent", "not found", True),
        ("absent/", "no object has a key with this prefix", True),
        ("clash/", "is below another object, 'a'", True),
        ("evil/", "which is not a valid path", True),
        ("deep/", "a key of more than 128 names", True),
    ],
)
async def test_objects_that_cannot_become_files_are_reported(storage, s3, place, key, words, permanent):
    with pytest.raises(StorageError, match=words) as caught:
        await storage.prepare(s3(key), place)
    assert caught.value.permanent is permanent
    assert list(place.iterdir()) == []


OBJECTS = {
    f"2026-{month:02}/{name}.csv": f"{month} {name}".encode() for month in (1, 2, 3) for name in "abcde"
}
"""By their keys below the prefix."""


async def parts(storage, s3, folder, count: int, partition: dict[str, object]) -> list[dict[str, bytes]]:
    """The files that each partition of a job with so many gets."""
    found = []
    for index in range(count):
        place = folder / str(index)
        place.mkdir()
        given = {**partition, "Index": index, "Count": count}
        prepared = await storage.prepare(s3("parts/", Partition=given), place)
        content = content_of(prepared.path)
        found.append({path: data for path, data in content.items() if data is not None})
        await storage.cleanup(prepared)
    return found


@pytest.fixture
def divided_prefix(server):
    for key, body in OBJECTS.items():
        server[1].put_object(Bucket="data", Key=f"parts/{key}", Body=body)
    server[1].put_object(Bucket="data", Key="parts/empty/", Body=b"")


@pytest.mark.usefixtures("divided_prefix")
@pytest.mark.parametrize(
    ("partition", "same"),
    [
        ({"Type": "object"}, lambda key: key),
        ({"Type": "date", "DateFormat": "2006-01"}, lambda key: key[:7]),
        ({"Type": "regex", "Pattern": "([a-e])[.]csv"}, lambda key: key[8:9]),
        ({"Type": "substring", "StartIndex": 5, "EndIndex": 7}, lambda key: key[5:7]),
    ],
)
async def test_each_object_of_a_prefix_is_in_one_partition(storage, s3, tmp_path, partition, same):
    found = await parts(storage, s3, tmp_path, 3, partition)
    assert sum(map(len, found)) == len(OBJECTS)
    assert {key: data for part in found for key, data in part.items()} == OBJECTS
    assert sum(bool(part) for part in found) > 1
    places = {(same(key), index) for index, part in enumerate(found) for key in part}
    assert len(places) == len({same(key) for key in OBJECTS})  # what belongs together is together


@pytest.mark.usefixtures("divided_prefix")
async def test_an_undivided_prefix_is_whole_for_all(storage, s3, tmp_path):
    found = await parts(storage, s3, tmp_path, 2, {"Type": "none"})
    assert found == [OBJECTS, OBJECTS]


@pytest.mark.usefixtures("divided_prefix")
async def test_only_the_size_of_its_partition_is_counted(storage, s3):
    part = {"Type": "date", "DateFormat": "2006-01", "Count": 3}
    sizes = [await storage.size(s3("parts/", Partition={**part, "Index": index})) for index in range(3)]
    assert sum(size.total for size in sizes) == sum(map(len, OBJECTS.values()))


@pytest.mark.usefixtures("divided_prefix")
@pytest.mark.parametrize("how", [{"Type": "object"}, {"Type": "date", "DateFormat": "2006-01"}])
async def test_before_it_is_known_which_partition_it_is_the_largest_counts(storage, s3, how):
    parts = [
        await storage.size(s3("parts/", Partition={**how, "Count": 3, "Index": index})) for index in range(3)
    ]
    largest = max(size.total for size in parts)
    found = await storage.part_size(s3("parts/", Partition=how), 3)
    assert (found.total, found.disk) == (largest, largest)
    assert largest < sum(map(len, OBJECTS.values()))


@pytest.mark.usefixtures("divided_prefix")
async def test_where_it_takes_long_to_find_the_largest_partition_all_count(storage, s3, monkeypatch):
    monkeypatch.setattr(listing, "ESTIMATE_TIMEOUT", 0)
    found = await storage.part_size(s3("parts/", Partition={"Type": "object"}), 3)
    assert found.total == sum(map(len, OBJECTS.values()))


async def test_a_missing_bucket_is_reported(storage, s3, place):
    with pytest.raises(StorageError, match="download of s3://nothing/x/ failed: no such bucket"):
        await storage.prepare(s3("x/", Bucket="nothing"), place)


@pytest.mark.parametrize("checksum", [base64.b64encode(bytes(32)).decode(), "00" * 32])
async def test_a_wrong_checksum_is_a_permanent_failure(storage, s3, place, checksum):
    with pytest.raises(StorageError, match=r"one\.bin failed: wrong content: its SHA-256 is") as caught:
        await storage.prepare(s3("one.bin", ChecksumSHA256=checksum), place)
    assert caught.value.permanent


async def test_a_version_id_selects_that_version(server, storage, s3, place):
    client = server[1]
    client.create_bucket(Bucket="versions")
    client.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    old = client.put_object(Bucket="versions", Key="k", Body=b"old")["VersionId"]
    client.put_object(Bucket="versions", Key="k", Body=b"new")
    prepared = await storage.prepare(s3("k", Bucket="versions", VersionID=old), place)
    assert content_of(prepared.path) == {"k": b"old"}


async def test_only_changed_objects_are_downloaded_again(server, storage, s3, tmp_path):
    client = server[1]
    found = []
    for number, body in enumerate([b"one", b"one", b"two"]):
        client.put_object(Bucket="data", Key="changing/k", Body=body)
        (tmp_path / str(number)).mkdir()
        prepared = await storage.prepare(s3("changing/"), tmp_path / str(number))
        found.append(prepared.path / "k")
    assert [path.read_bytes() for path in found] == [b"one", b"one", b"two"]
    assert found[0].samefile(found[1])


async def test_objects_above_the_limit_are_refused_by_their_listing(server, make_fetcher, s3, place):
    storage = S3Storage(
        S3Access(endpoints=[server[0]], buckets=["*"], session=SESSION), make_fetcher(bytes=1000)
    )
    with pytest.raises(StorageError, match="exceeds this node's input limit of 1 kB") as caught:
        await storage.prepare(s3("one.bin"), place)
    assert not caught.value.permanent


async def test_a_public_object_needs_no_credentials(server, make_fetcher, s3, place):
    server[1].put_object(Bucket="data", Key="public", Body=b"for all", ACL="public-read")
    access = S3Access(endpoints=[server[0]], attempts=1, session=SESSION)
    prepared = await S3Storage(access, make_fetcher()).prepare(s3("public"), place)
    assert content_of(prepared.path) == {"public": b"for all"}


async def test_credentials_are_used_only_for_buckets_of_the_settings(make_fetcher, place):
    with WebServer(lambda request: Answer(status=403)) as server:
        storage = S3Storage(
            S3Access(endpoints=[server.url], buckets=["ours-*"], attempts=1, session=SESSION), make_fetcher()
        )
        for bucket, anonymous in (("ours-1", False), ("ours-1", True), ("theirs", False)):
            params = {"Bucket": bucket, "Key": "k", "Endpoint": server.url, "Anonymous": anonymous}
            with pytest.raises(StorageError, match="access denied") as caught:
                await storage.prepare(SpecConfig(type="s3", params=params), place)
            assert not caught.value.permanent
            assert SECRET not in str(caught.value)
        signed = [KEY_ID in request.headers.get("authorization", "") for request in server.requests]
    assert signed == [True, False, False]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(status=500), "the server returned 500"),
        (
            Answer(status=200, headers={"ETag": '"x"', "Content-Length": "5"}, body=[b"ab"]),
            "connection lost",
        ),
    ],
)
async def test_a_server_error_is_not_a_permanent_failure(make_fetcher, place, answer, words):
    with WebServer(lambda request: answer) as server:
        storage = S3Storage(S3Access(endpoints=[server.url], attempts=1, session=SESSION), make_fetcher())
        params = {"Bucket": "data", "Key": "k", "Endpoint": server.url}
        with pytest.raises(StorageError, match=words) as caught:
            await storage.prepare(SpecConfig(type="s3", params=params), place)
    assert not caught.value.permanent
    assert list(place.iterdir()) == []


async def test_a_server_that_stops_sending_is_given_up(make_fetcher, place):
    def stalls():
        server.stopping.wait()
        yield b""

    with WebServer(lambda request: Answer(body=stalls(), length=5, headers={"ETag": '"x"'})) as server:
        storage = S3Storage(
            S3Access(endpoints=[server.url], idle=0.1, attempts=1, session=SESSION), make_fetcher()
        )
        params = {"Bucket": "data", "Key": "k", "Endpoint": server.url}
        with pytest.raises(StorageError, match="no data in time"):
            await storage.prepare(SpecConfig(type="s3", params=params), place)


# --- sizes ----------------------------------------------------------------------------------


async def test_sizes_come_from_the_listing_without_a_download(storage, s3):
    assert await storage.size(s3("dir/")) == InputSize(total=3, disk=3)
    assert await storage.size(s3("one.bin")) == InputSize(total=len(DATA), disk=len(DATA))
    assert not await storage.has_locally(s3("one.bin"))


async def test_a_size_above_the_limit_is_refused(server, s3, make_fetcher):
    access = S3Access(endpoints=[server[0]], buckets=["data"], attempts=1, session=SESSION)
    with pytest.raises(StorageError, match="exceeds this node's input limit of 1 kB"):
        await S3Storage(access, make_fetcher(bytes=1000)).size(s3("one.bin"))


async def test_measuring_on_a_silent_server_can_be_cancelled(make_fetcher):
    arrived, token = trio.Event(), trio.lowlevel.current_trio_token()

    def stall(request):
        token.run_sync_soon(arrived.set)
        server.stopping.wait(30)
        return Answer()

    with WebServer(stall) as server:
        access = S3Access(endpoints=[server.url], buckets=["data"], session=SESSION)
        source = SpecConfig(type="s3", params={"Bucket": "data", "Key": "a", "Endpoint": server.url})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(S3Storage(access, make_fetcher()).size, source)
            await arrived.wait()
            nursery.cancel_scope.cancel()
        assert not server.stopping.is_set(), "the server was waited for"
