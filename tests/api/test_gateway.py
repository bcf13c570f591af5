"""`/ipfs/CID[/path]`: what the gateway serves, to whom, and what it fetches from peers."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack, asynccontextmanager
from html import unescape
from pathlib import Path
from random import Random

import httpx
import pytest
import trio
from httpx import ASGITransport

from bacalhau_p2p.api import gateway as gateway_of_the_api
from bacalhau_p2p.api.app import create_app
from bacalhau_p2p.api.server import serve_api
from bacalhau_p2p.client.blocking_connection import BlockingConnection
from bacalhau_p2p.client.client import Client
from bacalhau_p2p.client.download import Download
from bacalhau_p2p.errors import ContentNotFound
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.ipfs.files.importer import cid_of
from bacalhau_p2p.ipfs.format.car import CarReader
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.node import Node, open_node
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.transports.memory.network import MemoryNetwork
from tests.support.blocks.contents import packed_under_its_root
from tests.support.blocks.stored_blocks import large_blocks, lose_large_block

DATA = Random(1).randbytes(1_024_000)
MANY, WIDE = 1000, "x" * 240
FAR = CID.of(RAW, b"nowhere")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    (folder / "many").mkdir()
    (folder / "data.bin").write_bytes(DATA)
    (folder / "page.html").write_text("<script>alert(1)</script>")
    (folder / "empty").write_text("")
    (folder / "link").symlink_to("empty")
    (folder / 'a "b" <i>#?.txt').write_text("odd name\n")
    for number in range(MANY):
        (folder / "many" / f"{number}-{WIDE}").write_text(str(number))
    return folder


@asynccontextmanager
async def gateway(tmp_path, **settings):
    identity = Identity.generate()
    chosen = Settings(data_dir=tmp_path / "node", compute=False, content_timeout=1, **settings)
    async with (
        MemoryNetwork().open(identity) as transport,
        open_node(chosen, transport=transport, identity=identity) as node,
        client_of(node) as client,
    ):
        yield node, client


def client_of(node: Node, host: str = "127.0.0.1") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=ASGITransport(create_app(node)), base_url=f"http://{host}:1234")


@pytest.fixture
async def site(tmp_path, folder):
    async with gateway(tmp_path) as (node, client):
        yield (await node.content.add(folder, pin_owner="user")).cid, client


async def test_a_file_is_served_by_its_cid_and_by_its_path(site):
    root, client = site
    by_path = await client.get(f"/ipfs/{root}/data.bin")
    assert (by_path.status_code, by_path.content) == (200, DATA)
    cid = by_path.headers["etag"].strip('"')
    by_cid = await client.get(f"/ipfs/{cid}")
    assert (by_cid.content, by_cid.headers["content-length"]) == (DATA, "1024000")
    assert by_path.headers["x-ipfs-roots"] == f"{root},{cid}"
    assert by_path.headers["x-ipfs-path"] == f"/ipfs/{root}/data.bin"
    assert "immutable" in by_path.headers["cache-control"]


async def test_a_range_of_a_file_is_served(site):
    root, client = site
    for asked, part in [
        ("bytes=0-0", (0, 1)),
        ("bytes=262143-262144", (262143, 262145)),
        ("bytes=1000000-", (1000000, 1024000)),
        ("bytes=1023999-5000000", (1023999, 1024000)),
        ("bytes=-10", (1023990, 1024000)),
        ("bytes=-5000000", (0, 1024000)),
    ]:
        answer = await client.get(f"/ipfs/{root}/data.bin", headers={"Range": asked})
        assert answer.status_code == 206
        assert answer.content == DATA[slice(*part)]
        assert answer.headers["content-range"] == f"bytes {part[0]}-{part[1] - 1}/1024000"
        assert answer.headers["content-length"] == str(part[1] - part[0])


async def test_an_invalid_range_serves_the_whole_file(site):
    root, client = site
    for asked in [
        "bytes=-" + "9" * 5000,
        "bytes=" + "9" * 5000 + "-9",
        "bytes=-",
        "bytes=5-1",
        "bytes=0-1,5-6",
        "lines=1-2",
        "bytes=x-y",
    ]:
        answer = await client.get(f"/ipfs/{root}/data.bin", headers={"Range": asked})
        assert (answer.status_code, answer.content) == (200, DATA)


async def test_a_range_outside_the_file_is_refused(site):
    root, client = site
    for asked in ["bytes=1024000-", "bytes=-0"]:
        answer = await client.get(f"/ipfs/{root}/data.bin", headers={"Range": asked})
        assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */1024000")
        assert (await client.get(f"/ipfs/{root}/empty", headers={"Range": asked})).status_code == 416


async def test_a_range_of_another_version_serves_the_whole_file(site):
    root, client = site
    headers = {"Range": "bytes=0-0", "If-Range": '"another"'}
    assert (await client.get(f"/ipfs/{root}/data.bin", headers=headers)).content == DATA


async def test_head_has_the_headers_of_get_and_no_body(site):
    root, client = site
    answer = await client.head(f"/ipfs/{root}/data.bin")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "1024000")
    part = await client.head(f"/ipfs/{root}/data.bin", headers={"Range": "bytes=1-2"})
    assert (part.status_code, part.headers["content-length"]) == (206, "2")


async def test_cached_content_is_not_sent_again(site):
    root, client = site
    for query in ("", "?format=raw", "?format=car", "?format=tar"):
        first = await client.get(f"/ipfs/{root}/page.html{query}")
        again = await client.get(
            f"/ipfs/{root}/page.html{query}", headers={"If-None-Match": first.headers["etag"]}
        )
        assert (again.status_code, again.content) == (304, b"")


async def test_content_is_sandboxed_from_the_api(site):
    root, client = site
    for path in ("", "/page.html"):
        answer = await client.get(f"/ipfs/{root}{path}")
        assert answer.headers["content-security-policy"] == "sandbox"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"].startswith("text/html")


async def test_a_page_of_a_folder_lists_so_many_entries(site, monkeypatch):
    root, client = site
    monkeypatch.setattr(gateway_of_the_api, "MAX_LISTED", 10)
    page = (await client.get(f"/ipfs/{root}/many/")).text
    assert page.count("<a href=") == 10
    assert "and 990 more, which are not listed" in page


async def test_the_links_of_a_folder_listing_work(site):
    root, client = site
    page = (await client.get(f"/ipfs/{root}")).text
    assert "<i>" not in page
    links = {
        unescape(name): link for link, name in re.findall(r'<a href="([^"]*)">([^<]*)</a>|$', page) if link
    }
    assert set(links) == {"data.bin", "page.html", "empty", "link", "many", 'a "b" <i>#?.txt'}
    assert (await client.get(links['a "b" <i>#?.txt'])).text == "odd name\n"
    assert len(re.findall("<li>", (await client.get(links["many"])).text)) == MANY


async def test_files_in_a_sharded_folder_are_found_by_name(site):
    root, client = site
    for number in (0, 17, 999):
        answer = await client.get(f"/ipfs/{root}/many/{number}-{WIDE}")
        assert answer.text == str(number)
    assert (await client.get(f"/ipfs/{root}/many/1000-{WIDE}")).status_code == 404


async def test_errors_say_why_content_is_not_served(site):
    root, client = site
    for path, status, message in [
        ("/nothing", 404, "path 'nothing' not found in"),
        ("/data.bin/inside", 404, "path 'data.bin/inside' not found in"),
        ("/link", 422, "symlink"),
        ("/%2e%2e/x", 400, "names cannot be"),
        ("/data.bin?format=ipns-record", 406, "use car, raw"),
        ("/data.bin?format=car&dag-scope=some", 400, "dag-scope"),
    ]:
        answer = await client.get(f"/ipfs/{root}{path}")
        assert answer.status_code == status
        assert message in answer.json()["Error"]


async def test_unknown_and_invalid_cids_are_errors(site):
    _, client = site
    assert (await client.get(f"/ipfs/{FAR}")).status_code == 404
    assert (await client.get("/ipfs/bafynonsense/x")).status_code == 400
    assert (await client.post(f"/ipfs/{FAR}")).status_code == 405


def blocks_of(answer: httpx.Response) -> list[CID]:
    reader = CarReader()
    blocks = [cid for cid, _ in reader.feed(answer.content)]
    reader.finish()
    return blocks


async def test_a_car_has_the_blocks_of_the_path_and_of_its_scope(site, folder):
    root, client = site
    file, many = cid_of(folder / "data.bin"), cid_of(folder / "many")
    whole = await client.get(f"/ipfs/{root}/data.bin", headers={"Accept": "application/vnd.ipld.car"})
    assert blocks_of(whole)[:2] == [root, file]
    assert len(blocks_of(whole)) == 2 + 4
    block = await client.get(f"/ipfs/{root}/data.bin?format=car&dag-scope=block")
    assert blocks_of(block) == [root, file]
    entity = await client.get(f"/ipfs/{root}/data.bin?format=car&dag-scope=entity")
    assert blocks_of(entity) == blocks_of(whole)
    shards = await client.get(f"/ipfs/{root}/many?format=car&dag-scope=entity")
    everything = await client.get(f"/ipfs/{root}/many?format=car")
    assert blocks_of(shards)[:2] == blocks_of(everything)[:2] == [root, many]
    assert len(blocks_of(shards)) < len(blocks_of(everything)) - 900
    assert blocks_of(await client.get(f"/ipfs/{root}?format=car&dag-scope=block")) == [root]
    inner = await client.get(f"/ipfs/{root}/many/17-{WIDE}?format=car")
    assert blocks_of(inner)[-1] == CID.of(RAW, b"17")


async def test_a_raw_block_is_served_by_path(site):
    root, client = site
    answer = await client.get(f"/ipfs/{root}/page.html?format=raw")
    assert answer.content == b"<script>alert(1)</script>"
    assert answer.headers["content-type"] == "application/vnd.ipld.raw"


# --- who may read -------------------------------------------------------------------------------


async def test_without_a_token_content_is_served_only_if_the_gateway_is_open(tmp_path, folder):
    for on, status in ((False, 401), (True, 200)):
        async with gateway(tmp_path / str(on), api_host="0.0.0.0", api_token="secret", gateway=on) as (
            node,
            _,
        ):
            root = (await node.content.add(folder, pin_owner="user")).cid
            async with client_of(node, "node.example") as client:
                answer = await client.get(f"/ipfs/{root}/empty")
                assert answer.status_code == status
                allowed = await client.get(f"/ipfs/{root}/empty", headers={"Authorization": "Bearer secret"})
                assert allowed.status_code == 200
                assert (await client.get("/api/v1/content")).status_code == 401


async def test_the_open_gateway_serves_stored_content_to_any_page_and_fetches_nothing(tmp_path, folder):
    async with gateway(tmp_path, gateway=True) as (node, _):
        root = (await node.content.add(folder, pin_owner="user")).cid
        node.content.fetch = None  # nobody may be asked
        async with client_of(node, "node.example") as client:
            answer = await client.get(f"/ipfs/{root}/empty", headers={"Origin": "http://evil.example"})
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == "*"
            assert (await client.get(f"/ipfs/{FAR}")).status_code == 404


async def test_foreign_web_pages_are_refused_while_the_gateway_is_closed(site):
    root, client = site
    answer = await client.get(f"/ipfs/{root}/empty", headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403


# --- content that is fetched from peers ------------------------------------------------------------------


@asynccontextmanager
async def two_nodes(tmp_path):
    """The URL of a node's API, and its only peer, which has what the first lacks."""
    network = MemoryNetwork()
    async with AsyncExitStack() as stack:
        nodes = []
        for name in ("near", "far"):
            identity = Identity.generate()
            settings = Settings(data_dir=tmp_path / name, compute=False, api_port=0, content_timeout=5)
            transport = await stack.enter_async_context(network.open(identity))
            nodes.append(
                await stack.enter_async_context(open_node(settings, transport=transport, identity=identity))
            )
        near, far = nodes
        near.learn([f"{far.addresses[0]}"])
        yield await stack.enter_async_context(serve_api(near)), near, far


def get(url: str, cid: CID, target: Path, provider: str) -> None:
    port = int(url.rpartition(":")[2])
    with (
        BlockingConnection("127.0.0.1", port) as connection,
        Download(cid, target, providers=[provider]) as download,
    ):
        connection.download(download)


def lose_last_block(node: Node) -> None:
    """Lose the end of `data.bin`, the one block that is a file and not of full size."""
    store = node.settings.data_dir / "blocks"
    (last,) = [block for block in large_blocks(store) if block.size != 1 << 18]
    lose_large_block(store, last)


async def test_content_of_a_peer_is_fetched_through_the_node(tmp_path, folder):
    async with two_nodes(tmp_path) as (url, near, far):
        root = (await far.content.add(folder, pin_owner="user")).cid
        await trio.to_thread.run_sync(get, url, root, tmp_path / "copy", far.addresses[0])
        assert cid_of(tmp_path / "copy") == cid_of(folder, symlinks="skip")
        assert await near.content.has(root)
        async with Client(url) as client:
            await client.fetch(str(root), tmp_path / "again")
        assert (tmp_path / "again" / "link").readlink() == Path("empty")
        assert cid_of(tmp_path / "again", symlinks="skip") == cid_of(tmp_path / "copy")


async def test_a_fetch_that_fails_midway_is_an_error_and_leaves_no_file(tmp_path, folder):
    async with two_nodes(tmp_path) as (url, near, far):
        added = await far.content.add(folder, pin_owner="user")
        lose_last_block(far)
        assert not await near.content.has(added.entries["data.bin"])
        async with Client(url) as client:
            for fetch in (
                lambda: trio.to_thread.run_sync(get, url, added.cid, tmp_path / "copy", far.addresses[0]),
                lambda: client.fetch(str(added.cid), tmp_path / "copy"),
            ):
                with pytest.raises(ContentNotFound, match=r"cannot fetch|no peer has"):
                    await fetch()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["far", "near"]
        first = next(iter(CarReader().feed(packed_under_its_root(folder))))[0]
        assert await near.content.reader.block(first)  # what had come is kept


async def test_a_stream_that_breaks_off_is_an_incomplete_response(tmp_path, folder):
    async with two_nodes(tmp_path) as (url, _, far):
        added = await far.content.add(folder, pin_owner="user")
        lose_last_block(far)
        async with httpx.AsyncClient(base_url=url) as client:
            with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
                await client.get(f"/ipfs/{added.cid}", params={"format": "car", "provider": far.addresses[0]})


async def test_a_client_that_disconnects_cancels_its_fetch(tmp_path):
    async with two_nodes(tmp_path) as (url, near, _):
        began, ended = trio.Event(), trio.Event()

        async def endless(cid: CID, **options: object) -> None:
            began.set()
            try:
                await trio.sleep_forever()
            finally:
                ended.set()

        near.content.fetch = endless
        with trio.fail_after(10):
            stream = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
            await stream.send_all(f"GET /ipfs/{FAR}?format=car HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            await began.wait()
            await stream.aclose()
            await ended.wait()
