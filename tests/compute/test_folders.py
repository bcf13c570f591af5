"""What an execution leaves on disk is removed, whatever the job made of it: `folders`."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.compute import folders
from bacalhau_p2p.compute.folders import (
    MAX_ENTRIES_INLINE,
    MAX_FILE_INLINE,
    SET_ASIDE,
    bytes_below,
    remove_folder,
    remove_set_aside,
    set_aside,
)
from tests.support.folders import nest
from tests.support.waiting import until


def _few(folder: Path) -> None:
    (folder / "results").mkdir()
    (folder / "results" / "stdout").write_text("hello\n")
    (folder / "results" / "outputs").mkdir()


def _many(folder: Path) -> None:
    for number in range(MAX_ENTRIES_INLINE + 1):
        (folder / str(number)).write_text("")


def _many_in_a_folder_below(folder: Path) -> None:
    (folder / "a").mkdir()
    for number in range(MAX_ENTRIES_INLINE):
        (folder / "a" / str(number)).write_text("")


def _large(folder: Path) -> None:
    (folder / "file").write_bytes(bytes(MAX_FILE_INLINE + 1))


def _locked(folder: Path) -> None:
    (folder / "locked").mkdir()
    (folder / "locked" / "file").write_text("")
    (folder / "locked").chmod(0)


def _nested(folder: Path) -> None:
    nest(folder, 3000)


def _left_in(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


@pytest.mark.parametrize("make", [_few, _many, _many_in_a_folder_below, _large, _locked, _nested])
async def test_a_folder_is_removed_whatever_is_in_it(tmp_path: Path, make) -> None:
    folder = tmp_path / "e-1"
    folder.mkdir()
    make(folder)
    await remove_folder(folder)
    assert _left_in(tmp_path) == []


async def test_a_folder_that_is_not_there_is_as_good_as_removed(tmp_path: Path) -> None:
    await remove_folder(tmp_path / "e-1")
    assert _left_in(tmp_path) == []


async def test_what_a_symlink_leads_to_stays(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("mine")
    folder = tmp_path / "e-1"
    folder.mkdir()
    (folder / "folder").symlink_to(kept)
    (folder / "file").symlink_to(kept / "file")
    await remove_folder(folder)
    assert (kept / "file").read_text() == "mine"
    assert _left_in(tmp_path) == ["kept"]


@pytest.mark.parametrize("error", [OSError(errno.EBUSY, "busy"), RecursionError(), TypeError("flags")])
async def test_a_folder_that_cannot_be_removed_is_set_aside_and_removed_later(
    tmp_path: Path, monkeypatch, error
) -> None:
    folder = tmp_path / "e-1"
    folder.mkdir()
    _many(folder)

    def fail(*args: object, **named: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(folders, "remove_tree", fail)
        await remove_folder(folder)
    assert _left_in(tmp_path) == [SET_ASIDE]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(remove_set_aside, tmp_path)
        await until(lambda: _left_in(tmp_path / SET_ASIDE) == [])
        nursery.cancel_scope.cancel()


async def test_a_folder_is_set_aside_when_no_descriptor_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "e-1"
    folder.mkdir()
    _many(folder)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), limit[1]))  # noqa: PTH208
    try:
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        await remove_folder(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        for descriptor in taken:
            os.close(descriptor)
    assert _left_in(tmp_path) == [SET_ASIDE]


def test_what_cannot_be_set_aside_is_logged_and_stays(tmp_path: Path, caplog) -> None:
    set_aside(tmp_path / "missing")
    assert "folder_left_behind" in caplog.text


async def test_a_folder_is_measured_with_all_that_is_below_and_no_more(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "stdout").write_bytes(b"x" * 10)
    (folder / "deep" / "er" / "file").write_bytes(b"y" * 100)
    (tmp_path / "outside").write_bytes(b"z" * 1000)
    (folder / "deep" / "link").symlink_to(tmp_path / "outside")
    (folder / "deep" / "out").symlink_to(tmp_path)
    assert await bytes_below(folder) == 110
    assert await bytes_below(tmp_path / "none") is None
    monkeypatch.setattr(folders, "MAX_MEASURED", 5)
    assert await bytes_below(folder) is None
