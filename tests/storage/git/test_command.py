"""How git is run, and that it ends with the node, by its `supervisor`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.storage.git.command import Git
from bacalhau_p2p.storage.git.provider import GitStorage
from tests.support.servers.file_site import LOOPBACK
from tests.support.servers.web_server import Answer, WebServer


async def test_a_silent_server_is_given_up_and_git_is_killed(make_fetcher, place):
    def stalls(request):
        server.stopping.wait(10)
        return Answer(status=500)

    with WebServer(stalls) as server:
        storage = GitStorage(LOOPBACK, make_fetcher(total=1.0))
        source = SpecConfig(type="git", params={"URL": server.url})
        with pytest.raises(StorageError, match="took longer than 1 s"):
            await storage.prepare(source, place)
        assert not _processes_that_mention(server.url)
    assert list(place.iterdir()) == []


def _processes_that_mention(text: str) -> dict[int, bytes]:
    """Their command lines, by process id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if text.encode() in line:
            found[int(path.parent.name)] = line
    return found


async def test_git_ends_when_the_node_is_killed(tmp_path):
    """A node that is killed leaves no git behind."""
    arrived, token = trio.Event(), trio.lowlevel.current_trio_token()

    def stalls(request):
        trio.from_thread.run_sync(arrived.set, trio_token=token)
        server.stopping.wait(10)
        return Answer(status=500)

    with WebServer(stalls) as server:
        program = (
            "import trio, pathlib\n"
            "from bacalhau_p2p.storage.git.command import Git\n"
            f"folder = pathlib.Path({str(tmp_path / 'r')!r})\n"
            "git = Git(folder, resolve='x:1:127.0.0.1', file_size=1000, idle=9)\n"
            f"trio.run(git.run, 'ls-remote', {server.url!r})\n"
        )
        node = await trio.lowlevel.open_process([sys.executable, "-c", program])
        with trio.fail_after(20):
            await arrived.wait()
            running = _processes_that_mention(server.url)
            ends = [os.pidfd_open(pid) for pid in running if pid != node.pid]
            node.kill()
            await node.wait()
            for end in ends:
                await trio.lowlevel.wait_readable(end)
                os.close(end)
    assert any(b"remote-http" in line for line in running.values())


async def test_the_users_git_configuration_is_ignored(tmp_path, monkeypatch):
    (tmp_path / ".gitconfig").write_text("[alias]\nhello = !echo configured\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "x.y")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "z")
    git = Git(tmp_path / "r", resolve="x:1:127.0.0.1", file_size=1000, idle=9)
    listed = await git.run("config", "--list")
    assert "alias" not in listed
    assert "x.y" not in listed


async def test_hooks_and_filters_of_a_repository_are_not_run(repository, storage, place, tmp_path):
    trap = tmp_path / "trap"
    repository.commit(
        **{".gitattributes": "* filter=evil\n", ".gitconfig": f'[filter "evil"]\nsmudge = touch {trap}\n'},
        hooks__post__checkout=f"#!/bin/sh\ntouch {trap}\n",
    )
    await storage.prepare(repository.source(), place)
    assert not trap.exists()
