"""Inputs by URL, and what all of `fetching.provider` have in common."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.storage.interface import InputSize
from bacalhau_p2p.storage.url.provider import UrlStorage
from bacalhau_p2p.testing.storage import STORAGE_CHECKS, Sample, StorageKit, content_of
from tests.support.servers.file_site import DATA, LOOPBACK, SHA256, url
from tests.support.servers.web_server import Answer, WebServer


@pytest.mark.parametrize("check", STORAGE_CHECKS, ids=lambda check: check.__name__)
async def test_url_storage_conforms(check, site, storage, tmp_path):
    (tmp_path / "inputs").mkdir()
    invalid = [
        (SpecConfig(type="url"), "Params.URL"),
        (url("ftp://host/file"), "Params.URL"),
        (url("file:///etc/passwd"), "Params.URL"),
        (url("http://"), "Params.URL"),
        (url("http://user:secret@host/"), "Params.URL"),
        (url("http://host/a b"), "Params.URL"),
        (url("http://10.0.0.1/"), "Params.URL"),
        (url("http://xn--a/"), "Params.URL"),
        (url("http://xn--ls8h.la/x"), "Params.URL"),
        (SpecConfig.model_construct(type="url", params={"URL": "http://host/\ud800"}), "Params.URL"),
        (url("http://" + "a." * 2000), "Params.URL"),
        (url("http://host/", SHA256="abc"), "Params.SHA256"),
        (url("http://host/", Method="POST"), "Params.Method"),
    ]
    await check(
        StorageKit(
            provider=storage,
            folder=tmp_path / "inputs",
            samples=[
                Sample(source=site.url(), content=DATA),
                Sample(source=site.url(SHA256=SHA256), content=DATA),
            ],
            invalid=invalid,
            absent=site.url("/absent"),
        )
    )


async def test_an_unchanged_file_is_not_downloaded_again(site, storage, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        prepared = await storage.prepare(site.url(), tmp_path / name)
        assert content_of(prepared.path) == DATA
    assert [request.headers.get("if-none-match") for request in site.server.requests] == [None, '"one"']


async def test_an_input_is_a_file_with_its_name_also_from_the_cache(site, storage, tmp_path):
    disposition = 'attachment; filename="from the server.csv"'
    site.pages["/data.bin"] = Answer(headers={"Content-Disposition": disposition}, body=DATA)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        prepared = await storage.prepare(site.url(SHA256=SHA256), tmp_path / name)
        assert (prepared.name, prepared.path.name) == ("from the server.csv", "from the server.csv")
    assert site.asked == ["/data.bin"]


async def test_a_changed_file_is_downloaded_again(site, storage, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    await storage.prepare(site.url(), tmp_path / "a")
    site.pages["/data.bin"] = Answer(headers={"ETag": '"two"'}, body=b"new")
    prepared = await storage.prepare(site.url(), tmp_path / "b")
    assert content_of(prepared.path) == b"new"


async def test_a_file_with_a_hash_is_requested_once(site, storage, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        await storage.prepare(site.url(SHA256=SHA256.upper()), tmp_path / name)
    assert site.asked == ["/data.bin"]


async def test_a_file_without_etag_and_date_is_downloaded_each_time(site, storage, place):
    site.pages["/plain"] = Answer(body=b"x")
    await storage.cleanup(await storage.prepare(site.url("/plain"), place))
    assert not await storage.has_locally(site.url("/plain"))
    await storage.prepare(site.url("/plain"), place)
    assert site.asked == ["/plain", "/plain"]


async def test_an_input_that_cannot_be_cached_is_still_prepared(site, make_fetcher, place, tmp_path, caplog):
    fetcher = make_fetcher()
    storage = UrlStorage(LOOPBACK, fetcher)
    assert not await storage.has_locally(site.url())
    (tmp_path / "cache" / "tmp").rmdir()
    (tmp_path / "cache" / "tmp").write_text("in the way")
    prepared = await storage.prepare(site.url(), place)
    assert content_of(prepared.path) == DATA
    assert "input_not_cached" in caplog.text


async def test_jobs_with_the_same_input_share_one_download(site, storage, tmp_path):
    async with trio.open_nursery() as nursery:
        for number in range(3):
            (tmp_path / str(number)).mkdir()
            nursery.start_soon(storage.prepare, site.url(SHA256=SHA256), tmp_path / str(number))
    assert site.asked == ["/data.bin"]


# --- redirects ------------------------------------------------------------------------------


# --- private addresses ----------------------------------------------------------------------


# --- names and words ------------------------------------------------------------------------


# --- sizes ----------------------------------------------------------------------------------


async def test_the_size_is_requested_with_head(site, storage):
    assert await storage.size(site.url()) == InputSize(total=len(DATA), disk=len(DATA))
    assert [request.method for request in site.server.requests] == ["HEAD"]


async def test_redirects_are_followed_for_the_size(site, storage):
    site.pages["/old"] = Answer(status=302, headers={"Location": "/data.bin"})
    size = await storage.size(site.url("/old"))
    assert size is not None
    assert size.total == len(DATA)
    assert site.asked == ["/old", "/data.bin"]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=404),
        Answer(status=403),
        Answer(status=405),
        Answer(status=500, body=b"x"),
        Answer(status=206, body=b"x"),
        Answer(status=301, headers={"Location": "/loop"}),
        Answer(status=302, headers={"Location": "file:///etc/passwd"}),
        Answer(status=302, headers={"Location": "http://10.0.0.1/"}),
    ],
)
async def test_without_a_content_length_the_size_is_unknown(site, storage, answer):
    site.pages["/loop"] = answer
    assert await storage.size(site.url("/loop")) is None


async def test_the_size_on_an_unreachable_server_is_unknown(make_fetcher):
    with WebServer(lambda request: Answer()) as server:
        gone = url(f"{server.url}/a")
    assert await UrlStorage(LOOPBACK, make_fetcher()).size(gone) is None


async def test_a_size_above_the_limit_is_refused(site, make_fetcher):
    storage = UrlStorage(LOOPBACK, make_fetcher(bytes=100_000))
    with pytest.raises(StorageError, match="an input of 256 kB exceeds this node's input limit of 100 kB"):
        await storage.size(site.url())
