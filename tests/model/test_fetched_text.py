"""How much of the inputs is there, written and read: `fetched_text`."""

from __future__ import annotations

import pytest

from bacalhau_p2p.model.fetched_text import FETCHING, fetched_of, fetched_text


@pytest.mark.parametrize(
    ("done", "total"),
    [(0, 1), (1, 999), (950, 1_000), (1_500_000, 20_000_000), (10**9, 2 * 10**12), (10**18, 10**18)],
)
@pytest.mark.parametrize("more", ["", " (/inputs 1 MB of 2 MB, /other 3 bytes)"])
def test_what_is_written_is_read(done, total, more):
    assert fetched_of(f"{FETCHING}{fetched_text(done, total)}{more}") == (done, total)


@pytest.mark.parametrize(
    "message",
    ["", "pulling image busybox", FETCHING, f"{FETCHING}5 MB", f"{FETCHING}x of y", f"{FETCHING}. B of . B",
     f"{FETCHING}... MB of 1 MB", f"{FETCHING}{'9' * 50} EB of 1 MB", "x" * 10_000],
)  # fmt: skip
def test_what_says_no_amounts_has_none(message):
    assert fetched_of(message) is None


def test_without_a_total_only_what_is_there_is_said():
    assert fetched_text(5_000_000, None) == "5 MB"
