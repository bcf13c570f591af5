from __future__ import annotations

import pytest

from bacalhau_p2p.storage.cache import InputCache
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


def test_what_was_kept_is_lent_after_a_restart_too(folder, tree, tmp_path):
    assert InputCache(folder, budget=100_000).keep("key", tree, {"etag": "one"})
    cache = InputCache(folder, budget=100_000)
    assert cache.find("key").note == {"etag": "one"}
    assert cache.lend("key", tmp_path / "lent")
    assert content_of(tmp_path / "lent") == content_of(tree)
    assert cache.find("other") is None
    assert not cache.lend("other", tmp_path / "none")


def test_an_entry_may_go_while_it_is_lent(folder, tree, tmp_path):
    cache = InputCache(folder, budget=100_000)
    cache.keep("key", tree, {})
    cache.lend("key", tmp_path / "lent")
    cache.forget("key")
    assert cache.find("key") is None
    assert content_of(tmp_path / "lent") == content_of(tree)


def test_a_lent_file_takes_no_further_room(folder, file, tmp_path):
    cache = InputCache(folder, budget=100_000)
    source = file(b"content")
    cache.keep("key", source, {})
    cache.lend("key", tmp_path / "lent")
    assert source.samefile(tmp_path / "lent")


def test_the_least_recently_used_goes_first(folder, file, tmp_path):
    cache = InputCache(folder, budget=3 * BLOCK)
    for key in "abc":
        cache.keep(key, file(key.encode()), {})
    cache.lend("a", tmp_path / "lent")
    cache.keep("d", file(b"d"), {})
    assert [key for key in "abcd" if cache.find(key)] == ["a", "c", "d"]


def test_what_is_larger_than_the_budget_is_not_kept_and_displaces_nothing(folder, file):
    cache = InputCache(folder, budget=2 * BLOCK)
    cache.keep("a", file(b"a"), {})
    assert not cache.keep("large", file(bytes(3 * BLOCK)), {})
    assert cache.find("a") is not None


def test_keeping_again_replaces(folder, file, tmp_path):
    cache = InputCache(folder, budget=100_000)
    cache.keep("key", file(b"old"), {"v": "1"})
    cache.keep("key", file(b"new"), {"v": "2"})
    assert cache.find("key").note == {"v": "2"}
    cache.lend("key", tmp_path / "lent")
    assert (tmp_path / "lent").read_bytes() == b"new"


def test_what_a_crash_left_half_made_is_removed_and_never_lent(folder, file):
    InputCache(folder, budget=100_000).keep("whole", file(b"whole"), {})
    (folder / "tmp" / "7").mkdir()
    (folder / "entries" / "half").mkdir()
    cache = InputCache(folder, budget=100_000)
    assert cache.find("whole") is not None
    assert list((folder / "tmp").iterdir()) == []
    assert len(list((folder / "entries").iterdir())) == 1


def test_an_entry_that_lost_its_data_is_gone(folder, file, tmp_path):
    cache = InputCache(folder, budget=100_000)
    cache.keep("key", file(b"x"), {})
    next((folder / "entries").iterdir()).joinpath("data").unlink()
    assert not cache.lend("key", tmp_path / "lent")
    assert cache.find("key") is None
