"""Which commit is fetched, what of it is written, and within which limits."""

from __future__ import annotations

import os

import pytest

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.storage.git.provider import GitStorage
from bacalhau_p2p.testing.storage import content_of
from tests.support.servers.file_site import LOOPBACK
from tests.support.servers.git_server import FIRST, SECOND


@pytest.mark.parametrize(
    ("ref", "content"),
    [("", SECOND), ("main", SECOND), ("v1", FIRST), ("refs/heads/main", SECOND), ("refs/tags/v1", FIRST)],
)
async def test_a_reference_is_resolved_to_its_commit(repository, storage, place, ref, content):
    prepared = await storage.prepare(repository.source(ref), place)
    assert content_of(prepared.path) == content
    assert [entry.name for entry in place.iterdir()] == [prepared.path.name]


@pytest.mark.parametrize(
    ("ref", "path", "words"),
    [
        ("nothing", "/repo/.git", "no branch or tag 'nothing'"),
        ("0" * 40, "/repo/.git", "not our ref"),
        ("", "/absent", "not found"),
    ],
)
async def test_a_missing_repository_or_reference_is_a_permanent_failure(
    repository, storage, place, ref, path, words
):
    with pytest.raises(StorageError, match=words) as caught:
        await storage.prepare(repository.source(ref, path), place)
    assert caught.value.permanent
    assert list(place.iterdir()) == []


async def test_symlinks_to_outside_are_removed_and_submodules_left_out(repository, storage, place):
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


async def test_many_copies_of_one_file_are_refused_before_they_are_written(repository, make_fetcher, place):
    repository.commit(**{f"copy-{number}": bytes(100_000) for number in range(20)})
    storage = GitStorage(LOOPBACK, make_fetcher(bytes=1_000_000))
    with pytest.raises(StorageError, match="exceeds this node's input limit of 1 MB"):
        await storage.prepare(repository.source(), place)
    assert list(place.iterdir()) == []


async def test_folders_that_are_too_deep_are_refused_before_they_are_written(repository, storage, place):
    repository.commit(**{"d/" * 150 + "x": b"x"})
    with pytest.raises(StorageError, match="folders more than 128 deep") as caught:
        await storage.prepare(repository.source(), place)
    assert caught.value.permanent
    assert list(place.iterdir()) == []


async def test_a_repository_above_the_limit_is_refused(repository, make_fetcher, place):
    repository.commit(large=os.urandom(300_000))
    storage = GitStorage(LOOPBACK, make_fetcher(bytes=100_000))
    with pytest.raises(StorageError, match="exceeds this node's input limit of 100 kB"):
        await storage.prepare(repository.source(), place)
