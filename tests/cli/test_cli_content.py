"""`content ...` and `get CID` against a real node's API."""

from __future__ import annotations

import io
import json
import re
import time

import pytest
import trio
from click.testing import CliRunner

from bacalhau_p2p.api.server import serve_api
from bacalhau_p2p.cli import progress
from bacalhau_p2p.cli.progress import ProgressLine, size_text
from bacalhau_p2p.cli.root import cli
from bacalhau_p2p.errors import ContentNotFound
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.ipfs.files.importer import cid_of
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.node import open_node
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.transports.memory.network import MemoryNetwork

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
    """The output of a command, stdout and stderr; it runs in a thread, beside the node."""
    words = [str(argument) for argument in arguments]
    result = await trio.to_thread.run_sync(lambda: CliRunner().invoke(cli, words, prog_name="bacalhau-p2p"))
    assert result.exit_code == status, result.output
    return result.output


async def test_what_was_added_is_listed_until_it_is_unpinned_and_gone_after_gc(node, folder):
    cid = (await run("add", folder)).strip()
    listed = await run("content", "list")
    assert re.search(rf"^ {cid}  600.0 kB  user$", listed, re.MULTILINE)
    assert re.search(r"^5\d\d\.\d B|[\d.]+ kB of 1\.0 GB used$", listed, re.MULTILINE)
    await run("content", "unpin", cid)
    assert cid not in await run("content", "list")
    assert re.fullmatch(r"\d+ blocks, [\d.]+ kB removed\n", await run("content", "gc"))
    assert (await run("content", "gc")) == "0 blocks, 0 B removed\n"
    assert not await node.content.has(CID.parse(cid))


async def test_a_pin_may_be_for_a_time(node, folder):
    cid = (await run("add", folder)).strip()
    await run("content", "pin", cid, "--keep", "2d")
    (item,) = json.loads(await run("content", "list", "--output", "json"))["Items"]
    assert item["Owner"] == "user"
    assert item["Expires"] / 1e9 == pytest.approx(time.time() + 2 * 86400, abs=60)
    assert "Error: invalid keep: " in await run("content", "pin", cid, "--keep", "soon", status=1)


async def test_another_profile_gives_another_cid_of_the_same_content(node, folder, tmp_path):
    usual = (await run("cid", folder)).strip()
    other = (await run("add", folder, "--profile", "unixfs-v1-2025")).strip()
    assert other == (await run("cid", folder, "--profile", "unixfs-v1-2025")).strip() != usual
    await run("get", other)
    assert str(cid_of(tmp_path / "here" / other)) == usual


async def test_what_is_not_pinned_or_not_to_be_had_is_told(node):
    assert f"Error: {FAR} is not pinned by user" in await run("content", "unpin", FAR, status=1)
    assert str(FAR) in await run("content", "pin", FAR, status=1)
    assert "is not a CID" in await run("content", "pin", "nonsense", status=1)


async def test_what_a_running_execution_needs_cannot_be_unpinned(node, folder):
    added = await node.content.add(folder, pin_owner="execution:e-1")
    output = await run("content", "unpin", added.cid, "--owner", "execution:e-1", status=1)
    assert "is in use by a running execution" in output
    await run("content", "gc")
    assert await node.content.has(added.cid)


async def test_get_writes_any_cid_to_its_own_name(node, folder, tmp_path):
    cid = (await run("add", folder)).strip()
    await run("get", cid)
    assert cid_of(tmp_path / "here" / cid) == cid_of(folder)


async def test_get_writes_what_lies_at_a_path(node, folder, tmp_path):
    cid = (await run("add", folder)).strip()
    await run("get", f"{cid}/inner")
    assert cid_of(tmp_path / "here" / "inner") == cid_of(folder / "inner")
    await run("get", f"/ipfs/{cid}/inner/b b.bin")
    assert (tmp_path / "here" / "b b.bin").read_bytes() == bytes(600_000)
    await run("get", f"ipfs://{cid}/a.txt", "--output-dir", "new/name")
    assert (tmp_path / "here" / "new" / "name").read_text() == "a\n"
    assert f"there is no 'nothing' below {cid}" in await run("get", f"{cid}/nothing", status=1)


async def test_get_never_overwrites(node, folder, tmp_path):
    cid = (await run("add", folder)).strip()
    (tmp_path / "here" / "a.txt").write_text("precious")
    (tmp_path / "here" / "dangling").symlink_to("nowhere")
    assert "Error: a.txt exists already" in await run("get", f"{cid}/a.txt", status=1)
    output = await run("get", f"{cid}/a.txt", "--output-dir", "dangling", status=1)
    assert "Error: dangling exists already" in output
    assert (tmp_path / "here" / "a.txt").read_text() == "precious"
    assert not (tmp_path / "here" / "nowhere").exists()


async def test_get_of_a_cid_has_no_use_for_the_flags_of_jobs(node):
    assert "for the results of jobs" in await run("get", FAR, "--raw", status=2)
    assert "choose one" in await run("get", "0123", "--raw", "--all", status=2)


async def test_content_that_is_nowhere_is_an_error_within_the_time_that_was_set(node):
    started = trio.current_time()
    assert str(FAR) in await run("get", FAR, status=1)
    assert trio.current_time() - started < 10
    with pytest.raises(ContentNotFound):
        await node.content.size(FAR)


# --- progress -----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_in_bytes_on_a_terminal_only(monkeypatch):
    clock = iter([1.0, 1.01, 2.0, 3.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (pipe, terminal):
        monkeypatch.setattr("sys.stderr", stream)
        line = ProgressLine()
        if stream is terminal:
            line(1, 10_000)
            line(2, 10_000)
            line(20_000, 10_000)
            line(5_000, None)
        else:
            line(1, 2)
        line.end()
    assert pipe.getvalue() == ""
    first, second, third, wiped = terminal.getvalue().split("\r")[1:5]
    assert first == "  1 B of 10.0 kB (0 %)"
    assert second.rstrip() == "  10.0 kB of 10.0 kB (100 %)"
    assert third.strip() == "5.0 kB"
    assert len(third) == len(second)
    assert wiped.strip() == ""


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (5 * 10**15, "5000.0 TB"),
        (None, "?"),
    ],
)
def test_sizes_are_for_people(size, text):
    assert size_text(size) == text
