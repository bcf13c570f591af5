from __future__ import annotations

import pytest

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.outbound.addresses import AddressGuard
from bacalhau_p2p.storage.git.provider import GitStorage
from bacalhau_p2p.testing.storage import STORAGE_CHECKS, Sample, StorageKit, content_of
from tests.support.servers.git_server import FIRST, SECOND
from tests.support.servers.web_server import Answer, WebServer

LOOPBACK = AddressGuard(["127.0.0.0/8"])


@pytest.mark.parametrize("check", STORAGE_CHECKS, ids=lambda check: check.__name__)
async def test_git_storage_conforms(check, repository, storage, tmp_path):
    (tmp_path / "inputs").mkdir()

    def git(url: str, ref: str = "") -> SpecConfig:
        return SpecConfig(type="git", params={"URL": url, "Ref": ref})

    await check(
        StorageKit(
            provider=storage,
            folder=tmp_path / "inputs",
            samples=[Sample(source=repository.source(repository.first), content=FIRST)],
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


async def test_a_cached_commit_is_not_requested_again(repository, storage, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        await storage.prepare(repository.source(repository.first), tmp_path / name)
        if name == "a":
            asked = len(repository.server.requests)
    assert len(repository.server.requests) == asked


async def test_a_branch_that_moved_is_fetched_again(repository, storage, tmp_path):
    found = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        prepared = await storage.prepare(repository.source("main"), tmp_path / str(number))
        found.append((prepared.path / "a").read_bytes())
        if number == 1:
            repository.commit(a="three")
    assert found == [b"two", b"two", b"three"]


async def test_a_private_address_is_refused_before_git_runs(repository, make_fetcher, place):
    with pytest.raises(StorageError, match="is not a public address"):
        await GitStorage(AddressGuard(), make_fetcher()).prepare(repository.source(), place)
    assert repository.server.requests == []


async def test_git_connects_to_the_address_that_was_checked(repository, storage, place, names):
    """The name exists only here: git's own look-up would find nothing."""

    names(["127.0.0.1"])
    url = f"http://only-here.test:{repository.server.port}/repo/.git"
    prepared = await storage.prepare(SpecConfig(type="git", params={"URL": url}), place)
    assert content_of(prepared.path) == SECOND


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
def test_a_host_that_git_might_read_differently_is_refused(storage, host):
    """It would be looked up again, and could have another address by then."""
    source = SpecConfig(type="git", params={"URL": f"http://{host}/x"})
    assert [fault.path for fault in storage.faults(source)] == ["Params.URL"]


@pytest.mark.parametrize(
    "host", ["example.org", "EXAMPLE.org:8080", "a_b-c.example", "93.184.216.34", "[2606:4700::1111]"]
)
def test_plain_hosts_are_accepted(storage, host):
    assert storage.faults(SpecConfig(type="git", params={"URL": f"http://{host}/x"})) == []


@pytest.mark.parametrize(
    ("version", "works"), [("git version 2.37.0", True), ("git version 2.36.9", False), ("nonsense", False)]
)
def test_an_old_git_is_not_used(tmp_path, monkeypatch, version, works):
    program = tmp_path / "git"
    program.write_text(f"#!/bin/sh\necho {version}\n")
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
