from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.storage.fetching.fetcher import InputUnchanged
from bacalhau_p2p.storage.interface import InputSize


class Source:
    """A file of one version, with that as its fingerprint."""

    def __init__(self) -> None:
        self.version = "1"
        self.fetched = 0

    async def fetch(self, target, cached):
        await trio.lowlevel.checkpoint()
        if cached is not None and cached.fingerprint == {"version": self.version}:
            raise InputUnchanged
        self.fetched += 1
        target.write_text(self.version)
        return {"version": self.version}


@pytest.fixture
def folders(tmp_path):
    def make():
        number = len(list(tmp_path.glob("place-*")))
        folder = tmp_path / f"place-{number}"
        folder.mkdir()
        return folder

    return make


async def test_an_unchanged_input_is_taken_from_the_cache(make_fetcher, folders):
    fetcher, source = make_fetcher(), Source()
    assert not await fetcher.is_cached("key")
    contents = []
    for version in ("1", "1", "2"):
        source.version = version
        contents.append((await fetcher.prepare("key", folders(), source.fetch)).path.read_text())
    assert (contents, source.fetched) == (["1", "1", "2"], 2)
    assert await fetcher.cached_size("key") == InputSize(total=1, local=1)


async def test_inputs_of_one_key_are_fetched_one_after_the_other(make_fetcher, folders):
    fetcher, source = make_fetcher(), Source()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(fetcher.prepare, "key", folders(), source.fetch)
    assert source.fetched == 1


async def test_an_entry_that_vanished_meanwhile_is_fetched_again(make_fetcher, folders):
    fetcher, source = make_fetcher(), Source()
    await fetcher.prepare("key", folders(), source.fetch)

    async def fetch(target, cached):
        if cached is not None:
            fetcher._cache.remove("key")
        return await source.fetch(target, cached)

    assert (await fetcher.prepare("key", folders(), fetch)).path.read_text() == "1"
    assert source.fetched == 2


@pytest.mark.parametrize("error", [StorageError("failed"), OSError(28, "No space left on device")])
async def test_a_failed_fetch_leaves_nothing(make_fetcher, folders, error):
    fetcher, folder = make_fetcher(), folders()

    async def fail(target, cached):
        target.write_text("partial")
        raise error

    with pytest.raises(StorageError, match=r"failed|cannot be written: No space left"):
        await fetcher.prepare("key", folder, fail)
    assert list(folder.iterdir()) == []
    assert not await fetcher.is_cached("key")


async def test_a_fetch_that_takes_too_long_is_given_up(make_fetcher, folders, autojump_clock):
    folder = folders()

    async def hang(target, cached):
        target.write_text("partial")
        await trio.sleep_forever()

    with pytest.raises(StorageError, match="took longer than 20 s"):
        await make_fetcher(total=20.0).prepare("key", folder, hang)
    assert list(folder.iterdir()) == []


def test_an_input_above_the_limit_is_refused(make_fetcher):
    fetcher = make_fetcher(bytes=1000)
    assert fetcher.size_to_fetch(1000) == InputSize(total=1000, disk=1000)
    with pytest.raises(StorageError, match="exceeds this node's input limit of 1 kB"):
        fetcher.size_to_fetch(1001)
