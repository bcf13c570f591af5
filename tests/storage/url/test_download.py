"""Failures of servers, limits, and the name of the file."""

from __future__ import annotations

import logging

import httpx
import pytest

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.storage.url.download import file_name, response_name
from bacalhau_p2p.storage.url.provider import UrlStorage
from bacalhau_p2p.testing.storage import content_of
from tests.support.servers.file_site import LOOPBACK, SHA256
from tests.support.servers.web_server import Answer


async def test_a_wrong_hash_is_a_permanent_failure_and_leaves_nothing(site, storage, place):
    with pytest.raises(
        StorageError, match=f"wrong content: its SHA-256 is {SHA256}, not {'0' * 64}"
    ) as caught:
        await storage.prepare(site.url(SHA256="0" * 64), place)
    assert caught.value.permanent
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "permanent", "words"),
    [
        (404, True, "404 Not Found"),
        (410, True, "410 Gone"),
        (401, False, "401 Unauthorized"),
        (403, False, "403 Forbidden"),
        (500, False, "500 Internal Server Error"),
        (304, False, "304 Not Modified"),
        (204, False, "204 No Content"),
    ],
)
async def test_a_failed_download_is_reported_with_its_status(site, storage, place, status, permanent, words):
    site.pages["/x"] = Answer(status=status)
    with pytest.raises(
        StorageError, match=rf"download of http://127\.0\.0\.1:[0-9]+/x failed: {words}"
    ) as caught:
        await storage.prepare(site.url("/x"), place)
    assert caught.value.permanent is permanent


async def test_a_busy_server_is_asked_again(site, storage, place):
    answers = iter(
        [Answer(status=503), Answer(status=429, headers={"Retry-After": "0"}), Answer(body=b"at last")]
    )
    site.pages["/busy"] = lambda request: next(answers)
    prepared = await storage.prepare(site.url("/busy"), place)
    assert content_of(prepared.path) == b"at last"


async def test_a_very_long_retry_after_ends_the_attempts(site, storage, place):
    site.pages["/busy"] = Answer(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(StorageError, match=r"429 Too Many Requests \(retry after 3600 s\)"):
        await storage.prepare(site.url("/busy"), place)
    assert site.asked == ["/busy"]


async def test_an_interrupted_download_is_retried(site, storage, place):
    answers = iter([Answer(body=b"half", length=8), Answer(body=b"whole...")])
    site.pages["/x"] = lambda request: next(answers)
    prepared = await storage.prepare(site.url("/x"), place)
    assert content_of(prepared.path) == b"whole..."


async def test_a_content_length_above_the_limit_is_refused(site, make_fetcher, place):
    storage = UrlStorage(LOOPBACK, make_fetcher(bytes=1000))
    with pytest.raises(StorageError, match="exceeds this node's input limit of 1 kB"):
        await storage.prepare(site.url(), place)


async def test_an_endless_download_is_stopped_at_the_limit(site, make_fetcher, place):
    def forever():
        while not site.server.stopping.is_set():
            yield bytes(10_000)

    site.pages["/endless"] = Answer(body=forever())
    storage = UrlStorage(LOOPBACK, make_fetcher(bytes=100_000))
    with pytest.raises(StorageError, match="exceeds this node's input limit of 100 kB"):
        await storage.prepare(site.url("/endless"), place)
    assert list(place.iterdir()) == []


async def test_a_server_that_stops_sending_is_given_up(site, make_fetcher, place):
    def stalls():
        yield b"a"
        site.server.stopping.wait()

    site.pages["/x"] = lambda request: Answer(body=stalls(), length=100)
    storage = UrlStorage(LOOPBACK, make_fetcher(idle=0.1, pauses=()))
    with pytest.raises(StorageError, match=r"no data for 0\.1 s"):
        await storage.prepare(site.url("/x"), place)


async def test_a_slow_server_is_given_up_after_the_total_timeout(site, make_fetcher, place):
    def drips():
        while not site.server.stopping.wait(0.02):
            yield b"a"

    site.pages["/x"] = lambda request: Answer(body=drips())
    storage = UrlStorage(LOOPBACK, make_fetcher(total=0.3))
    with pytest.raises(StorageError, match=r"took longer than 0\.3 s"):
        await storage.prepare(site.url("/x"), place)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("http://h", "file"),
        ("http://h/", "file"),
        ("http://h/a/b.txt?x=/y.z", "b.txt"),
        ("http://h/a/", "a"),
        ("http://h/%2e%2e", "file"),
        ("http://h/..%2fevil", ".._evil"),
        ("http://h/a%00b", "a_b"),
        ("http://h/caf%C3%A9", "café"),
        ("http://h/" + "x" * 300, "x" * 255),
    ],
)
def test_the_file_is_named_by_the_last_part_of_the_url(address, name):
    assert file_name(address) == name


@pytest.mark.parametrize(
    ("disposition", "address", "name"),
    [
        ("", "http://h/after/redirect.txt", "redirect.txt"),
        ("", "http://h/", "asked.csv"),
        ("inline", "http://h/a%20b", "a b"),
        ('attachment; filename="a b.csv"', "http://h/x", "a b.csv"),
        ("attachment; filename=plain.csv", "http://h/x", "plain.csv"),
        ("attachment; filename*=UTF-8''caf%C3%A9.csv", "http://h/x", "café.csv"),
        ("attachment; filename*=nosuch''caf%C3%A9.csv", "http://h/x", None),
        ('attachment; filename="../../etc/passwd"', "http://h/x", "passwd"),
        ('attachment; filename="C:\\\\dir\\\\x.txt"', "http://h/y", "x.txt"),
        ('attachment; filename=".."', "http://h/x", "x"),
        ("attachment; filename=" + "x" * 5000, "http://h/x", "x" * 255),
        ('attachment; filename="\xe9.txt"', "http://h/x", "é.txt"),
        ("\xff;;;=", "http://h/x", "x"),
    ],
)
def test_a_file_is_named_by_its_server_else_by_the_url_after_redirects(disposition, address, name):
    headers = {b"Content-Disposition": disposition.encode("latin-1")} if disposition else {}
    response = httpx.Response(200, headers=headers, request=httpx.Request("GET", address))
    found = response_name(response, "http://asked/asked.csv")
    assert name in (found, None)
    assert "/" not in found


async def test_the_query_of_a_url_is_not_in_errors_and_logs(site, storage, place, caplog):
    caplog.set_level(logging.INFO, logger="bacalhau_p2p")
    with pytest.raises(StorageError) as caught:
        await storage.prepare(site.url("/absent?signature=sesame"), place)
    assert "sesame" not in str(caught.value) + caplog.text


async def test_a_server_that_sends_more_than_was_reserved_is_stopped(site, storage, place):
    """HEAD may have said less than GET sends."""
    site.pages["/x"] = Answer(body=bytes(5000))
    with pytest.raises(StorageError, match="exceeds the 1 kB that are reserved for inputs") as caught:
        await storage.prepare(site.url("/x"), place, max_bytes=1000)
    assert not caught.value.permanent
    assert list(place.iterdir()) == []
    prepared = await storage.prepare(site.url("/x"), place, max_bytes=5000)
    assert content_of(prepared.path) == bytes(5000)


async def test_nothing_is_reserved_for_a_cached_input_that_changes_and_it_may_grow(site, storage, tmp_path):
    for size, name in ((5000, "first"), (9000, "second")):
        site.pages["/x"] = Answer(body=bytes(size), headers={"ETag": f'"{size}"'})
        (tmp_path / name).mkdir()
        prepared = await storage.prepare(
            site.url("/x"), tmp_path / name, max_bytes=5000 if size == 5000 else 0
        )
        assert content_of(prepared.path) == bytes(size)
    site.pages["/x"] = Answer(body=bytes(50_000), headers={"ETag": '"large"'})
    (tmp_path / "third").mkdir()
    with pytest.raises(StorageError, match="exceeds the 18 kB that are reserved for inputs"):
        await storage.prepare(site.url("/x"), tmp_path / "third", max_bytes=0)
