from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.outbound.addresses import AddressGuard
from bacalhau_p2p.storage.git.command import Git
from bacalhau_p2p.storage.git.provider import GitStorage
from bacalhau_p2p.testing.storage import STORAGE_CHECKS, Sample, StorageKit, content_of
from tests.support.servers.web_server import Answer, WebServer

LOOPBACK = AddressGuard(["127.0.0.0/8"])
AUTHOR = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "PATH": os.environ["PATH"],
}


class Repository:
    """A repository, served by git's own program for web servers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repo"
        self.folder.mkdir()
        self.run("init", "-q", "-b", "main")
        self.server = WebServer(self.answer)

    def run(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=self.folder, env=AUTHOR, capture_output=True, text=True, check=True
        ).stdout.strip()

    def commit(self, **files: str | bytes) -> str:
        for name, content in files.items():
            path = self.folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.run("add", "-A")
        self.run("commit", "-q", "-m", "change")
        return self.run("rev-parse", "HEAD")

    def answer(self, request):
        environment = {
            **AUTHOR,
            "GIT_PROJECT_ROOT": str(self.folder.parent),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.target.partition("?")[2],
            "CONTENT_TYPE": request.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(request.body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"], input=request.body, env=environment, capture_output=True, check=False
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        return Answer(status=int(headers.pop("Status", "200")[:3]), headers=headers, body=body)

    def source(self, ref: str = "", path: str = "/repo/.git") -> SpecConfig:
        params = {"URL": self.server.url + path, **({"Ref": ref} if ref else {})}
        return SpecConfig(type="git", params=params)


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "served").mkdir()
    repository = Repository(tmp_path / "served")
    repository.first = repository.commit(a="one", sub__b="b")
    repository.run("tag", "-a", "v1", "-m", "v1")
    repository.second = repository.commit(a="two", sub__b="b")
    with repository.server:
        yield repository


@pytest.fixture
def storage(make_fetcher):
    return GitStorage(LOOPBACK, make_fetcher())


ONE = {"a": b"one", "sub": None, "sub/b": b"b"}
TWO = {"a": b"two", "sub": None, "sub/b": b"b"}


@pytest.mark.parametrize("check", STORAGE_CHECKS, ids=lambda check: check.__name__)
async def test_git_storage_conforms(check, repository, storage, tmp_path):
    (tmp_path / "inputs").mkdir()

    def git(url: str, ref: str = "") -> SpecConfig:
        return SpecConfig(type="git", params={"URL": url, "Ref": ref})

    await check(
        StorageKit(
            provider=storage,
            folder=tmp_path / "inputs",
            samples=[Sample(source=repository.source(repository.first), content=ONE)],
            invalid=[
                (SpecConfig(type="git"), "Params.URL"),
                (git("file:///etc"), "Params.URL"),
                (git("/etc"), "Params.URL"),
                (git("ssh://git@host/x"), "Params.URL"),
                (git("ext::sh -c id"), "Params.URL"),
                (git("https://user:secret@host/x"), "Params.URL"),
                (git("https://host/x", "--upload-pack=id"), "Params.Ref"),
                (git("https://host/x", "a..b"), "Params.Ref"),
                (git("https://host/x", "a b"), "Params.Ref"),
            ],
            absent=repository.source("0" * 40),
        )
    )


@pytest.mark.parametrize(
    ("ref", "content"),
    [("", TWO), ("main", TWO), ("v1", ONE), ("refs/heads/main", TWO), ("refs/tags/v1", ONE)],
)
async def test_a_reference_is_the_commit_that_it_names(repository, storage, place, ref, content):
    prepared = await storage.prepare(repository.source(ref), place)
    assert content_of(prepared.path) == content
    assert [entry.name for entry in place.iterdir()] == [prepared.path.name]


async def test_a_commit_that_is_there_is_not_asked_for_again(repository, storage, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        await storage.prepare(repository.source(repository.first), tmp_path / name)
        if name == "a":
            asked = len(repository.server.requests)
    assert len(repository.server.requests) == asked


async def test_a_branch_that_moved_is_fetched_anew(repository, storage, tmp_path):
    found = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        prepared = await storage.prepare(repository.source("main"), tmp_path / str(number))
        found.append((prepared.path / "a").read_bytes())
        if number == 1:
            repository.commit(a="three")
    assert found == [b"two", b"two", b"three"]


@pytest.mark.parametrize(
    ("ref", "path", "words"),
    [
        ("nothing", "/repo/.git", "no branch or tag 'nothing'"),
        ("0" * 40, "/repo/.git", "not our ref"),
        ("", "/absent", "not found"),
    ],
)
async def test_what_is_not_there_fails_for_good(repository, storage, place, ref, path, words):
    with pytest.raises(StorageError, match=words) as caught:
        await storage.prepare(repository.source(ref, path), place)
    assert caught.value.permanent
    assert list(place.iterdir()) == []


async def test_symlinks_that_lead_out_are_removed_and_submodules_stay_empty(repository, storage, place):
    (repository.folder / "good").symlink_to("sub/b")
    (repository.folder / "sub" / "bad").symlink_to("../../x")
    (repository.folder / "worse").symlink_to("/etc")
    repository.run("update-index", "--add", "--cacheinfo", f"160000,{repository.first},module")
    repository.commit(**{".gitmodules": '[submodule "m"]\npath = module\nurl = /etc\n'})
    prepared = await storage.prepare(repository.source(), place)
    found = sorted(str(path.relative_to(prepared.path)) for path in prepared.path.rglob("*"))
    assert [name for name in found if "/" not in name or name.startswith("module")] == [
        ".gitmodules",
        "a",
        "good",
        "sub",
    ]
    assert (prepared.path / "good").read_bytes() == b"b"
    assert not (prepared.path / "sub" / "bad").is_symlink()


async def test_nothing_that_a_repository_brings_is_run(repository, storage, place, tmp_path):
    trap = tmp_path / "trap"
    repository.commit(
        **{".gitattributes": "* filter=evil\n", ".gitconfig": f'[filter "evil"]\nsmudge = touch {trap}\n'},
        hooks__post__checkout=f"#!/bin/sh\ntouch {trap}\n",
    )
    await storage.prepare(repository.source(), place)
    assert not trap.exists()


async def test_many_copies_of_one_file_are_counted_before_they_are_written(repository, make_fetcher, place):
    repository.commit(**{f"copy-{number}": bytes(100_000) for number in range(20)})
    storage = GitStorage(LOOPBACK, make_fetcher(bytes=1_000_000))
    with pytest.raises(StorageError, match="exceeds this node's input limit of 1 MB"):
        await storage.prepare(repository.source(), place)
    assert list(place.iterdir()) == []


async def test_a_repository_above_the_limit_is_refused(repository, make_fetcher, place):
    repository.commit(large=os.urandom(300_000))
    storage = GitStorage(LOOPBACK, make_fetcher(bytes=100_000))
    with pytest.raises(StorageError, match="exceeds this node's input limit of 100 kB"):
        await storage.prepare(repository.source(), place)


async def test_a_private_address_is_refused_before_git_runs(repository, make_fetcher, place):
    with pytest.raises(StorageError, match="is not a public address"):
        await GitStorage(AddressGuard(), make_fetcher()).prepare(repository.source(), place)
    assert repository.server.requests == []


async def test_git_connects_to_the_address_that_was_checked(repository, storage, place):
    """The name exists only here: git's own look-up would find nothing."""

    class Names(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002
            return [(2, 1, 6, "", ("127.0.0.1", port))]

        async def getnameinfo(self, sockaddr, flags):
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Names())
    url = f"http://only-here.test:{repository.server.port}/repo/.git"
    prepared = await storage.prepare(SpecConfig(type="git", params={"URL": url}), place)
    assert content_of(prepared.path) == TWO


@pytest.mark.parametrize(
    "host",
    [
        "example.org.",
        "b\u00fccher.example",
        "2130706433",
        "0x7f.1",
        "127.1",
        "ex%61mple.org",
        "[::0001]",
        "a..b",
    ],
)
def test_a_host_that_git_could_spell_otherwise_is_refused(storage, host):
    """It would be looked up again, and could have another address by then."""
    source = SpecConfig(type="git", params={"URL": f"http://{host}/x"})
    assert [fault.path for fault in storage.faults(source)] == ["Params.URL"]


@pytest.mark.parametrize(
    "host", ["example.org", "EXAMPLE.org:8080", "a_b-c.example", "93.184.216.34", "[2606:4700::1111]"]
)
def test_plain_hosts_are_accepted(storage, host):
    assert storage.faults(SpecConfig(type="git", params={"URL": f"http://{host}/x"})) == []


@pytest.mark.parametrize(
    ("said", "works"), [("git version 2.37.0", True), ("git version 2.36.9", False), ("nonsense", False)]
)
def test_a_git_that_cannot_be_told_where_to_connect_is_not_used(tmp_path, monkeypatch, said, works):
    program = tmp_path / "git"
    program.write_text(f"#!/bin/sh\necho {said}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert GitStorage.installed() is works


async def test_a_redirect_is_not_followed(repository, storage, place):
    target = repository.server.url
    with WebServer(
        lambda request: Answer(status=302, headers={"Location": target + request.target})
    ) as other:
        source = SpecConfig(type="git", params={"URL": f"{other.url}/repo/.git"})
        with pytest.raises(StorageError, match="fetching http"):
            await storage.prepare(source, place)
    assert repository.server.requests == []


async def test_a_server_that_never_answers_is_given_up_and_git_is_gone(make_fetcher, place):
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


async def test_git_dies_with_the_node(tmp_path):
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


async def test_no_configuration_of_the_user_is_read(tmp_path, monkeypatch):
    (tmp_path / ".gitconfig").write_text("[alias]\nhello = !echo configured\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "x.y")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "z")
    git = Git(tmp_path / "r", resolve="x:1:127.0.0.1", file_size=1000, idle=9)
    listed = await git.run("config", "--list")
    assert "alias" not in listed
    assert "x.y" not in listed
