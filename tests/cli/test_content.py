"""`add`, `content ...` and `get CID` with the API of a real node: `cli.content` and `api.content`."""

from __future__ import annotations

import json
import re

import pytest
import trio
from click.testing import CliRunner

from bacalhau_p2p.api.server import serve_api
from bacalhau_p2p.cli.progress import ProgressLine
from bacalhau_p2p.cli.root import cli
from bacalhau_p2p.errors import ContentNotFound
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.ipfs.files.importer import cid_of
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.node import Node, open_node
from bacalhau_p2p.runtime.transfers import note_fetched
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.transports.memory.network import MemoryNetwork
from tests.support.waiting import until

FAR = CID.of(RAW, b"nowhere")


@pytest.fixture
async def node(tmp_path, monkeypatch):
    identity = Identity.generate()
    settings = Settings(
        data_dir=tmp_path / "node", compute=False, api_port=0, content_timeout=1, content_quota="1GB"
    )
    async with (
        MemoryNetwork().open(identity) as transport,
        open_node(settings, transport=transport, identity=identity) as node,
        serve_api(node) as url,
    ):
        monkeypatch.setenv("BACALHAU_P2P_API_HOST", "127.0.0.1")
        monkeypatch.setenv("BACALHAU_P2P_API_PORT", url.rpartition(":")[2])
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        yield node


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_text("a\n")
    (folder / "inner" / "b b.bin").write_bytes(bytes(600_000))
    return folder


async def run(*arguments: object, status: int = 0) -> str:
    """The output of a command, stdout and stderr; it runs in a thread next to the node."""
    words = [str(argument) for argument in arguments]
    result = await trio.to_thread.run_sync(lambda: CliRunner().invoke(cli, words, prog_name="bacalhau-p2p"))
    assert result.exit_code == status, result.output
    return result.output


async def test_content_of_a_peer_is_pinned_and_a_terminal_shows_how_far_it_is(node, folder, monkeypatch):
    cid = cid_of(folder)
    told: list[tuple[int, int | None]] = []
    monkeypatch.setattr(ProgressLine, "update", lambda self, done, total: told.append((done, total)))
    fetch = node.content.fetch

    async def slow_fetch(*arguments, **options):
        note_fetched(300_000)
        with trio.fail_after(60):
            await until(lambda: bool(told))
        await fetch(*arguments, **options)

    async def claimed_size(*arguments, **options):
        return 600_002

    await node.content.add(folder, pin_owner="published:e-1")
    monkeypatch.setattr(node.content, "fetch", slow_fetch)
    monkeypatch.setattr(node.content, "claimed_size", claimed_size)
    assert await run("content", "pin", cid) == f"{cid}\n"
    assert told[0] == (300_000, 600_002)
    assert ",user," in await run("content", "list", "-o", "csv")


async def test_added_content_is_listed_until_it_is_unpinned_and_removed_by_gc(node, folder):
    cid = (await run("add", folder)).strip()
    listed = await run("content", "list")
    assert re.search(rf"^ {cid}  600.0 kB  user$", listed, re.MULTILINE)
    assert re.search(r"^5\d\d\.\d B|[\d.]+ kB of 1\.0 GB used$", listed, re.MULTILINE)
    await run("content", "unpin", cid)
    assert cid not in await run("content", "list")
    assert re.fullmatch(r"\d+ blocks, [\d.]+ kB removed\n", await run("content", "gc"))
    assert (await run("content", "gc")) == "0 blocks, 0 B removed\n"
    assert not await node.content.has(CID.parse(cid))


async def test_a_pin_may_expire(node, folder, monkeypatch):
    cid = (await run("add", folder)).strip()
    monkeypatch.setattr(Node, "clock", lambda self: 1_000_000.0)
    await run("content", "pin", cid, "--keep", "2d")
    (item,) = json.loads(await run("content", "list", "--output", "json"))["Items"]
    assert (item["Owner"], item["Expires"]) == ("user", (1_000_000 + 2 * 86400) * 10**9)
    monkeypatch.setattr(Node, "clock", lambda self: 1_000_000.0 + 2 * 86400)
    assert json.loads(await run("content", "list", "--output", "json"))["Items"] == []
    assert "Error: invalid keep: " in await run("content", "pin", cid, "--keep", "soon", status=1)


async def test_another_profile_results_in_another_cid_of_the_same_content(node, folder, tmp_path):
    usual = (await run("cid", folder)).strip()
    other = (await run("add", folder, "--profile", "unixfs-v1-2025")).strip()
    assert other == (await run("cid", folder, "--profile", "unixfs-v1-2025")).strip() != usual
    await run("get", other)
    assert str(cid_of(tmp_path / "here" / other)) == usual


async def test_content_that_is_not_pinned_or_not_found_is_an_error(node):
    assert f"Error: {FAR} is not pinned by user" in await run("content", "unpin", FAR, status=1)
    assert str(FAR) in await run("content", "pin", FAR, status=1)
    assert "is not a CID" in await run("content", "pin", "nonsense", status=1)


async def test_the_pins_of_running_executions_cannot_be_removed(node, folder):
    added = await node.content.add(folder, pin_owner="execution:e-1")
    output = await run("content", "unpin", added.cid, "--owner", "execution:e-1", status=1)
    assert "is in use by a running execution" in output
    await run("content", "gc")
    assert await node.content.has(added.cid)


async def test_get_writes_a_cid_to_a_folder_of_its_name(node, folder, tmp_path):
    cid = (await run("add", folder)).strip()
    await run("get", cid)
    assert cid_of(tmp_path / "here" / cid) == cid_of(folder)


async def test_get_writes_the_content_at_a_path(node, folder, tmp_path):
    cid = (await run("add", folder)).strip()
    await run("get", f"{cid}/inner")
    assert cid_of(tmp_path / "here" / "inner") == cid_of(folder / "inner")
    await run("get", f"/ipfs/{cid}/inner/b b.bin")
    assert (tmp_path / "here" / "b b.bin").read_bytes() == bytes(600_000)
    await run("get", f"ipfs://{cid}/a.txt", "--output-dir", "new/name")
    assert (tmp_path / "here" / "new" / "name").read_text() == "a\n"
    assert f"path 'nothing' not found in {cid}" in await run("get", f"{cid}/nothing", status=1)


async def test_add_counts_hidden_files_that_it_leaves_out(node, folder):
    (folder / ".hidden").write_text("x")
    assert "left out: 1 hidden (to include them, use --hidden)\n" in await run("add", folder)
    assert await run("add", "--hidden", folder) == f"{cid_of(folder, hidden=True)}\n"


async def test_get_never_overwrites(node, folder, tmp_path):
    cid = (await run("add", folder)).strip()
    (tmp_path / "here" / "a.txt").write_text("precious")
    (tmp_path / "here" / "dangling").symlink_to("nowhere")
    assert "Error: a.txt already exists" in await run("get", f"{cid}/a.txt", status=1)
    output = await run("get", f"{cid}/a.txt", "--output-dir", "dangling", status=1)
    assert "Error: dangling already exists" in output
    assert (tmp_path / "here" / "a.txt").read_text() == "precious"
    assert not (tmp_path / "here" / "nowhere").exists()


async def test_get_of_a_cid_rejects_the_flags_for_jobs(node):
    assert "for the results of jobs, not for CIDs" in await run("get", FAR, "--raw", status=2)
    assert "exclude each other" in await run("get", "0123", "--raw", "--all", status=2)


async def test_content_that_nobody_has_is_an_error(node):
    assert str(FAR) in await run("get", FAR, status=1)
    with pytest.raises(ContentNotFound):
        await node.content.size(FAR)
