"""Counting what a run leaves, and making it the node's."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import trio.testing

from bacalhau_p2p.executors import output_limits
from bacalhau_p2p.executors.output_limits import (
    ENTRY_SIZE,
    RESULT_DEPTH,
    UNRESERVED_SIZE,
    OutputLimits,
    Outputs,
    TooMuchOutput,
    check_outputs,
    take_outputs,
    watch_outputs,
)
from bacalhau_p2p.ipfs.files.importer import cid_of

LIMITS = OutputLimits(size=1_000_000, entries=500, depth=10)


def of(folder: Path) -> Outputs:
    return Outputs({"/out": folder})


def large_file(folder: Path) -> None:
    (folder / "file").write_bytes(bytes(1_000_000))


def sparse_file(folder: Path) -> None:
    (folder / "file").touch()
    os.truncate(folder / "file", 100 * 1024**3)


def many_files(folder: Path) -> None:
    for number in range(501):
        (folder / str(number)).touch()


def deep_folders(folder: Path) -> None:
    folder.joinpath(*["d"] * 11).mkdir(parents=True)


def many_small_files(folder: Path) -> None:
    for number in range(400):
        (folder / str(number)).write_bytes(bytes(1_000_000 // 400 - ENTRY_SIZE + 10))


@pytest.mark.parametrize("make", [large_file, sparse_file, many_files, deep_folders, many_small_files])
@pytest.mark.parametrize("take", [False, True])
def test_too_much_output_is_refused(make: Callable[[Path], None], take: bool, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(TooMuchOutput) as caught:
        check_outputs(of(tmp_path), LIMITS, take=take)
    assert caught.value.permanent


def test_output_up_to_the_limits_is_accepted(tmp_path: Path) -> None:
    tmp_path.joinpath(*["d"] * 10).mkdir(parents=True)
    for number in range(489):
        (tmp_path / str(number)).touch()
    (tmp_path / "large").write_bytes(bytes(1_000_000 - 500 * ENTRY_SIZE))
    check_outputs(of(tmp_path), LIMITS)
    with pytest.raises(TooMuchOutput):
        check_outputs(of(tmp_path), LIMITS, streams=1)


def test_a_job_without_a_reservation_has_a_limit_too() -> None:
    assert OutputLimits.of_disk(0).size == UNRESERVED_SIZE
    assert OutputLimits.of_disk(7).size == 7


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_what_a_job_left_becomes_the_nodes(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / "closed").mkdir(parents=True)
    (folder / "closed" / "file").write_text("text")
    (folder / "program").touch()
    (folder / "link").symlink_to("program")
    os.mkfifo(folder / "pipe")
    for path in (folder, folder / "closed", folder / "closed" / "file", folder / "program", folder / "link"):
        os.chown(path, 1000, 1000, follow_symlinks=False)
    (folder / "program").chmod(0o4755)
    (folder / "closed" / "file").chmod(0)
    (folder / "closed").chmod(0)
    target = tmp_path / "target"
    target.touch()
    os.chown(target, 1000, 1000)
    await take_outputs(of(folder), LIMITS, streams=0)
    assert {path.lstat().st_uid for path in (folder, *folder.rglob("*"))} == {0}
    assert not (folder / "pipe").exists()
    assert stat.S_IMODE((folder / "program").stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "closed" / "file").stat().st_mode) == 0o600
    assert target.stat().st_uid == 1000


async def test_many_files_are_counted_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many_files(tmp_path)
    await take_outputs(of(tmp_path), OutputLimits(), streams=0)
    monkeypatch.setattr(trio.to_thread, "run_sync", None)
    (tmp_path / "few").mkdir()
    await take_outputs(of(tmp_path / "few"), LIMITS, streams=0)
    with pytest.raises(TypeError):
        await take_outputs(of(tmp_path), LIMITS, streams=0)


async def test_output_is_watched_while_it_grows(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    written = 0

    async with trio.open_nursery() as nursery:

        async def write() -> None:
            nonlocal written
            for _ in range(9):
                await trio.sleep(100)
                written += 100_000

        nursery.start_soon(write)
        with trio.move_on_after(950):
            await watch_outputs(of(tmp_path), LIMITS, lambda: written)
    written = 2_000_000
    with trio.fail_after(2 * output_limits.WATCH_INTERVAL), pytest.raises(TooMuchOutput):
        await watch_outputs(of(tmp_path), LIMITS, lambda: written)


def test_what_cannot_be_part_of_a_result_costs_nothing_but_itself(tmp_path: Path) -> None:
    """A name that was not UTF-8, or a folder 65 deep, cost three full runs and left nothing."""
    out = tmp_path / "out"
    deep = out.joinpath(*["d"] * RESULT_DEPTH)
    (deep / "too" / "deep").mkdir(parents=True)
    (deep / "kept").write_text("kept")
    (out / "a" / os.fsdecode(b"caf\xe9")).mkdir(parents=True)
    os.mkfifo(out / "pipe")
    (out / "a" / "good").symlink_to("../d")
    (out / "a" / "absolute").symlink_to("/work/out/d/../pipe")
    (out / "escape").symlink_to("../../secret")
    (out / "device").symlink_to("/dev/null")
    (out / "latin").symlink_to(os.fsdecode(b"caf\xe9"))
    left_out = check_outputs(Outputs({"/work/out": out}), OutputLimits(), take=True)
    assert sorted(map(str, left_out)) == [
        "left out of the results: out/a/caf\\xe9: its name is not UTF-8",
        "left out of the results: out/" + "d/" * RESULT_DEPTH + "too: it is nested more than 62 deep",
        "left out of the results: out/device: it is a link that leads out of the results: /dev/null",
        "left out of the results: out/escape: it is a link that leads out of the results: ../../secret",
        "left out of the results: out/latin: it is a link whose target is not UTF-8",
        "left out of the results: out/pipe: it is a pipe, a socket or a device",
    ]
    assert (out / "a" / "absolute").readlink() == Path("../../out/pipe")
    assert (deep / "kept").read_text() == "kept"
    assert cid_of(tmp_path, hidden=True)


def test_folders_may_be_deep_while_a_job_runs_but_not_without_end(tmp_path: Path) -> None:
    tmp_path.joinpath(*["d"] * 150).mkdir(parents=True)
    assert check_outputs(of(tmp_path), OutputLimits()) == []
    inner = tmp_path.joinpath(*["d"] * 150)
    inner.joinpath(*["d"] * 51).mkdir(parents=True)
    with pytest.raises(TooMuchOutput, match="nested more than 200 deep"):
        check_outputs(of(tmp_path), OutputLimits())
