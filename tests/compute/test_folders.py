"""What an execution leaves on disk is removed, whatever the job made of it: `folders`."""

from __future__ import annotations

from pathlib import Path

import pytest

from bacalhau_p2p.compute.folders import MAX_ENTRIES_INLINE, MAX_FILE_INLINE, remove_folder
from tests.support.folders import nest


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
    nest(folder, 1500)


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
