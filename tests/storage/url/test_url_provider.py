from __future__ import annotations

import hashlib
import logging

import pytest
import trio

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.outbound.addresses import AddressGuard
from bacalhau_p2p.storage.interface import InputSize
from bacalhau_p2p.storage.url.download import file_name
from bacalhau_p2p.storage.url.provider import UrlStorage
from bacalhau_p2p.testing.storage import STORAGE_CHECKS, Sample, StorageKit, content_of
from tests.support.servers.web_server import Answer, WebServer

DATA = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()
LOOPBACK = AddressGuard(["127.0.0.0/8"])


def url(text: str, **params: str) -> SpecConfig:
    return SpecConfig(type="url", params={"URL": text, **params})


class Site:
    """A site with one file and whatever a test adds."""

    def __init__(self) -> None:
        self.pages = {"/data.bin": Answer(headers={"ETag": '"one"'}, body=DATA)}
        self.server = WebServer(self.answer)

    def answer(self, request):
        page = self.pages.get(request.path, Answer(status=404))
        page = page(request) if callable(page) else page
        if "ETag" in page.headers and request.headers.get("if-none-match") == page.headers["ETag"]:
            return Answer(status=304)
        return page

    def url(self, path: str = "/data.bin", **params: str) -> SpecConfig:
        return url(self.server.url + path, **params)

    @property
    def asked(self) -> list[str]:
        return [request.path for request in self.server.requests]


@pytest.fixture
def site():
    site = Site()
    with site.server:
        yield site


@pytest.fixture
def storage(make_fetcher):
    return UrlStorage(LOOPBACK, make_fetcher())


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
        (url("http://host/", SHA256="abc"), "Params.SHA256"),
        (url("http://host/", Method="POST"), "Params.Method"),
    ]
    await check(
        StorageKit(
            provider=storage,
            folder=tmp_path / "inputs",
            samples=[
                Sample(source=site.url(), content={"data.bin": DATA}),
                Sample(source=site.url(SHA256=SHA256), content={"data.bin": DATA}),
            ],
            invalid=invalid,
            absent=site.url("/absent"),
        )
    )


async def test_what_has_not_changed_is_not_sent_again(site, storage, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        prepared = await storage.prepare(site.url(), tmp_path / name)
        assert content_of(prepared.path) == {"data.bin": DATA}
    assert [request.headers.get("if-none-match") for request in site.server.requests] == [None, '"one"']


async def test_what_has_changed_is_fetched_anew(site, storage, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    await storage.prepare(site.url(), tmp_path / "a")
    site.pages["/data.bin"] = Answer(headers={"ETag": '"two"'}, body=b"new")
    prepared = await storage.prepare(site.url(), tmp_path / "b")
    assert content_of(prepared.path) == {"data.bin": b"new"}


async def test_a_file_named_by_its_hash_is_asked_for_once(site, storage, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        await storage.prepare(site.url(SHA256=SHA256.upper()), tmp_path / name)
    assert site.asked == ["/data.bin"]


async def test_a_server_that_cannot_say_what_has_changed_is_asked_each_time(site, storage, place):
    site.pages["/plain"] = Answer(body=b"x")
    await storage.cleanup(await storage.prepare(site.url("/plain"), place))
    assert not await storage.has_locally(site.url("/plain"))
    await storage.prepare(site.url("/plain"), place)
    assert site.asked == ["/plain", "/plain"]


async def test_an_input_is_there_also_when_it_cannot_be_kept(site, make_fetcher, place, tmp_path, caplog):
    fetcher = make_fetcher()
    storage = UrlStorage(LOOPBACK, fetcher)
    assert not await storage.has_locally(site.url())
    (tmp_path / "cache" / "tmp").rmdir()
    (tmp_path / "cache" / "tmp").write_text("in the way")
    prepared = await storage.prepare(site.url(), place)
    assert content_of(prepared.path) == {"data.bin": DATA}
    assert "input_not_cached" in caplog.text


async def test_jobs_that_want_the_same_wait_for_one_download(site, storage, tmp_path):
    async with trio.open_nursery() as nursery:
        for number in range(3):
            (tmp_path / str(number)).mkdir()
            nursery.start_soon(storage.prepare, site.url(SHA256=SHA256), tmp_path / str(number))
    assert site.asked == ["/data.bin"]


async def test_another_hash_fails_for_good_and_leaves_nothing(site, storage, place):
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


async def test_a_server_that_is_busy_is_asked_again(site, storage, place):
    answers = iter(
        [Answer(status=503), Answer(status=429, headers={"Retry-After": "0"}), Answer(body=b"at last")]
    )
    site.pages["/busy"] = lambda request: next(answers)
    prepared = await storage.prepare(site.url("/busy"), place)
    assert content_of(prepared.path) == {"busy": b"at last"}


async def test_a_server_that_wants_to_be_left_alone_for_long_is_believed(site, storage, place):
    site.pages["/busy"] = Answer(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(StorageError, match=r"429 Too Many Requests \(retry after 3600 s\)"):
        await storage.prepare(site.url("/busy"), place)
    assert site.asked == ["/busy"]


async def test_a_download_that_breaks_off_is_tried_again_and_never_half_taken(site, storage, place):
    answers = iter([Answer(body=b"half", length=8), Answer(body=b"whole...")])
    site.pages["/x"] = lambda request: next(answers)
    prepared = await storage.prepare(site.url("/x"), place)
    assert content_of(prepared.path) == {"x": b"whole..."}


async def test_a_size_above_the_limit_is_refused_before_a_byte_is_written(site, make_fetcher, place):
    storage = UrlStorage(LOOPBACK, make_fetcher(bytes=1000))
    with pytest.raises(StorageError, match="exceeds this node's input limit of 1 kB"):
        await storage.prepare(site.url(), place)


async def test_a_stream_without_an_end_is_cut_at_the_limit(site, make_fetcher, place):
    def forever():
        while not site.server.stopping.is_set():
            yield bytes(10_000)

    site.pages["/endless"] = Answer(body=forever())
    storage = UrlStorage(LOOPBACK, make_fetcher(bytes=100_000))
    with pytest.raises(StorageError, match="exceeds this node's input limit of 100 kB"):
        await storage.prepare(site.url("/endless"), place)
    assert list(place.iterdir()) == []


async def test_a_server_that_falls_silent_is_given_up(site, make_fetcher, place):
    def stalls():
        yield b"a"
        site.server.stopping.wait()

    site.pages["/x"] = lambda request: Answer(body=stalls(), length=100)
    storage = UrlStorage(LOOPBACK, make_fetcher(idle=0.1, pauses=()))
    with pytest.raises(StorageError, match=r"no data for 0\.1 s"):
        await storage.prepare(site.url("/x"), place)


async def test_a_server_that_drips_is_given_up_in_the_end(site, make_fetcher, place):
    def drips():
        while not site.server.stopping.wait(0.02):
            yield b"a"

    site.pages["/x"] = lambda request: Answer(body=drips())
    storage = UrlStorage(LOOPBACK, make_fetcher(total=0.3))
    with pytest.raises(StorageError, match=r"took longer than 0\.3 s"):
        await storage.prepare(site.url("/x"), place)
    assert list(place.iterdir()) == []


# --- redirects ------------------------------------------------------------------------------


async def test_redirects_are_followed_and_the_name_stays(site, storage, place):
    site.pages["/name.txt"] = Answer(status=302, headers={"Location": "/elsewhere"})
    site.pages["/elsewhere"] = Answer(status=308, headers={"Location": site.server.url + "/data.bin"})
    prepared = await storage.prepare(site.url("/name.txt"), place)
    assert content_of(prepared.path) == {"name.txt": DATA}


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("file:///etc/passwd", "redirect to file, not http or https"),
        ("gopher://x/", "redirect to gopher, not http or https"),
        ("/loop", "more than 10 redirects"),
    ],
)
async def test_a_redirect_that_leads_nowhere_good_fails_for_good(site, storage, place, location, words):
    site.pages["/loop"] = Answer(status=301, headers={"Location": location})
    with pytest.raises(StorageError, match=words) as caught:
        await storage.prepare(site.url("/loop"), place)
    assert caught.value.permanent


@pytest.mark.parametrize("there", ["http://169.254.169.254/latest", "http://[::1]/", "http://10.0.0.1/"])
async def test_a_redirect_to_a_private_address_is_refused(site, storage, place, there):
    site.pages["/x"] = Answer(status=302, headers={"Location": there})
    with pytest.raises(StorageError, match="is not a public address") as caught:
        await storage.prepare(site.url("/x"), place)
    assert not caught.value.permanent


# --- private addresses ----------------------------------------------------------------------


class Names(trio.abc.HostnameResolver):
    """A name server: each answer is used once, the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002
        self.asked += 1
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(2, 1, 6, "", (address, port)) for address in addresses]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


@pytest.fixture
def names():
    def use(*answers):
        resolver = Names(*answers)
        trio.socket.set_custom_hostname_resolver(resolver)
        return resolver

    return use


async def test_a_name_for_a_private_address_is_refused(names, make_fetcher, place):
    names(["192.168.1.1"])
    with pytest.raises(StorageError, match=r"192\.168\.1\.1 \(of intranet\.test\) is not a public address"):
        await UrlStorage(AddressGuard(), make_fetcher()).prepare(url("http://intranet.test/"), place)


async def test_one_private_address_among_public_ones_is_enough(names, make_fetcher, place):
    names(["93.184.216.34", "127.0.0.1"])
    with pytest.raises(StorageError, match=r"127\.0\.0\.1 \(of mixed\.test\)"):
        await UrlStorage(AddressGuard(), make_fetcher()).prepare(url("http://mixed.test/"), place)


async def test_the_connection_goes_to_the_address_that_was_checked(names, site, storage, place):
    """A second question, which would be answered otherwise, is never asked."""
    resolver = names(["127.0.0.1"], ["10.9.9.9"])
    prepared = await storage.prepare(url(f"http://rebind.test:{site.server.port}/data.bin"), place)
    assert content_of(prepared.path) == {"data.bin": DATA}
    assert resolver.asked == 1
    assert site.server.requests[0].headers["host"] == f"rebind.test:{site.server.port}"


async def test_the_network_of_this_node_is_only_reached_when_allowed(site, make_fetcher, place):
    storage = UrlStorage(AddressGuard(), make_fetcher())
    assert [fault.path for fault in storage.faults(site.url())] == ["Params.URL"]
    with pytest.raises(StorageError, match="has an address that is not allowed on this node"):
        await storage.prepare(site.url(), place)
    assert site.asked == []


@pytest.mark.parametrize(
    "address", ["localhost", "2130706433", "0x7f000001", "127.1", "0177.0.0.1", "[::ffff:127.0.0.1]"]
)
async def test_no_spelling_of_loopback_gets_through(site, make_fetcher, place, address):
    with pytest.raises(StorageError):
        await UrlStorage(AddressGuard(), make_fetcher(pauses=())).prepare(
            url(f"http://{address}:{site.server.port}/data.bin"), place
        )
    assert site.asked == []


# --- names and words ------------------------------------------------------------------------


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
def test_the_file_has_the_last_name_of_the_url(address, name):
    assert file_name(address) == name


async def test_a_signature_in_a_url_is_never_repeated(site, storage, place, caplog):
    caplog.set_level(logging.INFO, logger="bacalhau_p2p")
    with pytest.raises(StorageError) as caught:
        await storage.prepare(site.url("/absent?signature=sesame"), place)
    assert "sesame" not in str(caught.value) + caplog.text


# --- sizes ----------------------------------------------------------------------------------


async def test_the_server_is_asked_for_the_size_and_not_for_the_file(site, storage):
    assert await storage.size(site.url()) == InputSize(total=len(DATA), disk=len(DATA))
    assert [request.method for request in site.server.requests] == ["HEAD"]


async def test_a_size_is_asked_for_where_redirects_lead(site, storage):
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
async def test_a_size_that_the_server_does_not_tell_is_not_known(site, storage, answer):
    site.pages["/loop"] = answer
    assert await storage.size(site.url("/loop")) is None


async def test_a_server_that_is_not_there_tells_no_size(make_fetcher):
    with WebServer(lambda request: Answer()) as server:
        gone = url(f"{server.url}/a")
    assert await UrlStorage(LOOPBACK, make_fetcher()).size(gone) is None


async def test_a_private_address_is_not_asked_for_a_size(site, make_fetcher):
    assert await UrlStorage(AddressGuard(), make_fetcher()).size(site.url()) is None
    assert site.asked == []


async def test_a_file_above_the_limit_is_refused_by_its_size(site, make_fetcher):
    storage = UrlStorage(LOOPBACK, make_fetcher(bytes=100_000))
    with pytest.raises(StorageError, match="an input of 256 kB exceeds this node's input limit of 100 kB"):
        await storage.size(site.url())
