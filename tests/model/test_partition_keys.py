"""Which partition a file of a divided input is in: by its path, as Bacalhau does it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from bacalhau_p2p.model import partition_keys
from bacalhau_p2p.model.partition_keys import Chooser, InvalidPattern, PartitionSpec, fnv32a

PATHS = [f"folder/{number:03}.txt" for number in range(1000)]


def partition_of(path, count=8, **how):
    """The only partition that has this path."""
    (found,) = [n for n in range(count) if Chooser(PartitionSpec(index=n, count=count, **how)).has(path)]
    return found


def test_the_hash_is_that_of_bacalhau():
    """From the authors' own test vectors of FNV-1a."""
    assert [fnv32a(text) for text in ("", "a", "foobar")] == [0x811C9DC5, 0xE40C292C, 0xBF9CF968]


def test_each_file_is_in_exactly_one_partition_and_each_partition_has_its_share():
    sizes = [0] * 8
    for path in PATHS:
        sizes[partition_of(path, type="object")] += 1
    assert sum(sizes) == 1000
    assert min(sizes) > 80


def test_files_with_equal_parts_of_their_paths_are_together():
    by_region = {"type": "regex", "pattern": "^([^/]+)/"}
    assert partition_of("eu/a.csv", **by_region) == partition_of("eu/sub/b.csv", **by_region)
    by_prefix = {"type": "substring", "start_index": 0, "end_index": 3}
    assert partition_of("abc-1", **by_prefix) == partition_of("abc-2", **by_prefix)
    by_day = {"type": "date", "date_format": "2006-01-02"}
    assert partition_of("2026-11-30/a", **by_day) == partition_of("2026-11-30/b", **by_day)


@pytest.mark.parametrize(
    "how",
    [
        {"type": "regex", "pattern": "^(x+)$"},
        {"type": "substring", "start_index": 0, "end_index": 30},
        {"type": "date", "date_format": "2006-01-02"},
    ],
)
def test_files_without_a_key_are_in_the_first_partition(how):
    assert {partition_of(path, **how) for path in ("abc", "2026-02-30/x", "2026-1-1")} == {0}


def test_the_key_of_a_pattern_is_its_groups_or_all_that_matches():
    assert partition_of("a-1-b", type="regex", pattern="([a-z])-1-([a-z])") == fnv32a("a\x1fb") % 8
    assert partition_of("xx12yy", type="regex", pattern="[0-9]+") == fnv32a("12") % 8


def test_a_part_that_is_not_divided_has_everything():
    assert all(Chooser(PartitionSpec(type=kind, count=1)).has("x") for kind in ("", "none", "object"))
    assert Chooser(PartitionSpec(type="none", index=1, count=3)).has("x")


@pytest.mark.parametrize(
    "wrong",
    [
        {"Type": "hash"},
        {"Type": "regex"},
        {"Type": "regex", "Pattern": "("},
        {"Type": "substring", "StartIndex": 3, "EndIndex": 3},
        {"Type": "date"},
        {"Type": "date", "DateFormat": "day"},
        {"Type": "date", "DateFormat": "2006-2006"},
        {"Type": "object", "Index": 3, "Count": 3},
        {"Type": "object", "Salt": 1},
    ],
)
def test_what_cannot_divide_is_a_fault(wrong):
    with pytest.raises(ValidationError):
        PartitionSpec.from_wire(wrong)


def test_a_pattern_that_takes_too_long_is_stopped(monkeypatch):
    monkeypatch.setattr(partition_keys, "MATCH_TIMEOUT", 0.01)
    slow = PartitionSpec(type="regex", pattern="(a|aa)+(a|aa)+(a|aa)+$", index=0, count=2)
    with pytest.raises(InvalidPattern, match="takes more than"):
        Chooser(slow).has("a" * 200 + "b" * 3000)


@pytest.mark.parametrize(
    "how", [{"type": "object"}, {"type": "regex", "pattern": "a"}, {"type": "date", "date_format": "2006"}]
)
def test_all_paths_of_an_input_together_take_so_long(how):
    times = iter(range(1000))
    chooser = Chooser(PartitionSpec(count=2, **how), clock=lambda: float(next(times)))  # a second for each
    for _ in range(60):
        chooser.has("path")
    with pytest.raises(InvalidPattern, match="more than 60 s"):
        chooser.has("path")


def test_the_largest_part_is_that_of_the_most_bytes():
    chooser = Chooser(PartitionSpec(type="substring", start_index=0, end_index=1, count=64))
    files = [("a/1", 10), ("a/2", 20), ("b/1", 25), ("c", 1)]
    assert chooser.largest(files) == 30
    assert chooser.largest([]) == 0
    assert Chooser(PartitionSpec(type="object", count=1)).largest(files) == 56
