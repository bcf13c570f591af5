from __future__ import annotations

import pytest

from bacalhau_p2p.storage.fetching.input_cache import InputCache
from bacalhau_p2p.testing.storage import content_of

BLOCK = 4096


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path):
    def make(content: bytes):
        path = tmp_path / f"source-{content[:8].hex()}"
        path.write_bytes(content)
        return path

    return make


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "sub" / "a").write_bytes(b"a")
    return root


def test_an_entry_survives_a_restart(folder, tree, tmp_path):
    assert InputCache(folder, budget=100_000).put("key", tree, {"etag": "one"})
    cache = InputCache(folder, budget=100_000)
    assert cache.get("key").fingerprint == {"etag": "one"}
    assert cache.link("key", tmp_path / "linked")
    assert content_of(tmp_path / "linked") == content_of(tree)
    assert cache.get("other") is None
    assert not cache.link("other", tmp_path / "none")


def test_an_entry_may_be_removed_while_a_job_uses_it(folder, tree, tmp_path):
    cache = InputCache(folder, budget=100_000)
    cache.put("key", tree, {})
    cache.link("key", tmp_path / "linked")
    cache.remove("key")
    assert cache.get("key") is None
    assert content_of(tmp_path / "linked") == content_of(tree)


def test_a_linked_file_takes_no_further_room(folder, file, tmp_path):
    cache = InputCache(folder, budget=100_000)
    source = file(b"content")
    cache.put("key", source, {})
    cache.link("key", tmp_path / "linked")
    assert source.samefile(tmp_path / "linked")


def test_the_least_recently_used_entry_is_removed_first(folder, file, tmp_path):
    cache = InputCache(folder, budget=3 * BLOCK)
    for key in "abc":
        cache.put(key, file(key.encode()), {})
    cache.link("a", tmp_path / "linked")
    cache.put("d", file(b"d"), {})
    assert [key for key in "abcd" if cache.get(key)] == ["a", "c", "d"]


def test_an_entry_larger_than_the_budget_is_not_kept_and_displaces_nothing(folder, file):
    cache = InputCache(folder, budget=2 * BLOCK)
    cache.put("a", file(b"a"), {})
    assert not cache.put("large", file(bytes(3 * BLOCK)), {})
    assert cache.get("a") is not None


def test_a_second_entry_of_a_key_replaces_the_first(folder, file, tmp_path):
    cache = InputCache(folder, budget=100_000)
    cache.put("key", file(b"old"), {"v": "1"})
    cache.put("key", file(b"new"), {"v": "2"})
    assert cache.get("key").fingerprint == {"v": "2"}
    cache.link("key", tmp_path / "linked")
    assert (tmp_path / "linked").read_bytes() == b"new"


def test_half_made_entries_of_a_crash_are_removed(folder, file):
    InputCache(folder, budget=100_000).put("whole", file(b"whole"), {})
    (folder / "tmp" / "7").mkdir()
    (folder / "entries" / "half").mkdir()
    cache = InputCache(folder, budget=100_000)
    assert cache.get("whole") is not None
    assert list((folder / "tmp").iterdir()) == []
    assert len(list((folder / "entries").iterdir())) == 1


def test_an_entry_that_lost_its_data_is_removed(folder, file, tmp_path):
    cache = InputCache(folder, budget=100_000)
    cache.put("key", file(b"x"), {})
    next((folder / "entries").iterdir()).joinpath("data").unlink()
    assert not cache.link("key", tmp_path / "linked")
    assert cache.get("key") is None
