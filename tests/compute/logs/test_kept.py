"""What executions without a result wrote is kept for a day, within limits (`logs.kept`)."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest
import trio

from bacalhau_p2p.compute.logs import kept as module
from bacalhau_p2p.compute.logs.files import StreamFiles
from bacalhau_p2p.compute.logs.kept import KEEP_FOR, MAX_KEPT_STREAM, KeptLogs
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.logs import LogStream

ALICE, BOB = PeerID("alice"), PeerID("bob")


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def logs(tmp_path, clock):
    return KeptLogs(tmp_path / "logs", clock)


@pytest.fixture
def keep(logs, tmp_path):
    """Keeps what an execution wrote to stdout."""

    async def keep(requester, name, stdout):
        results = tmp_path / f"results-{name}"
        results.mkdir()
        (results / "stdout").write_bytes(stdout)
        (results / "stderr").write_bytes(b"")
        await logs.keep(requester, ExecutionID(name), results)

    return keep


def names(logs, requester, *wanted):
    return [name for name in wanted if logs.folder_of(requester, ExecutionID(name)) is not None]


async def test_what_was_written_is_kept_for_its_requester_only(logs, keep):
    await keep(ALICE, "e-1", b"words")
    folder = logs.folder_of(ALICE, ExecutionID("e-1"))
    assert [each.name for each in folder.iterdir()] == ["stdout"]
    assert (folder / "stdout").read_bytes() == b"words"
    assert logs.folder_of(BOB, ExecutionID("e-1")) is None


async def test_of_much_output_the_end_is_kept(logs, keep):
    await keep(ALICE, "e-1", b"x" * 500 + b"y" * MAX_KEPT_STREAM)
    with closing(StreamFiles(logs.folder_of(ALICE, ExecutionID("e-1")))) as files:
        begin, data = files.read(LogStream.STDOUT, 0, 2 * MAX_KEPT_STREAM)
    assert (begin, set(data), len(data)) == (500, set(b"y"), MAX_KEPT_STREAM)


async def test_an_execution_that_never_ran_leaves_nothing(logs, tmp_path):
    await logs.keep(ALICE, ExecutionID("e-1"), tmp_path / "absent")
    assert not (tmp_path / "logs").exists()


async def test_that_an_execution_wrote_nothing_is_known_until_it_expires(logs, keep, clock, tmp_path):
    await keep(ALICE, "e-1", b"")
    folder = logs.folder_of(ALICE, ExecutionID("e-1"))
    assert list(folder.iterdir()) == []
    assert names(KeptLogs(tmp_path / "logs", clock), ALICE, "e-1") == ["e-1"]
    clock.now += KEEP_FOR + 1
    await logs.prune()
    assert list((tmp_path / "logs").iterdir()) == []


async def test_many_that_wrote_nothing_displace_nobody_elses(logs, keep, monkeypatch):
    monkeypatch.setattr(module, "MAX_KEPT", 3)
    await keep(BOB, "b-1", b"words")
    for number in range(4):
        await keep(ALICE, f"a-{number}", b"")
    assert names(logs, BOB, "b-1") == ["b-1"]
    assert names(logs, ALICE, "a-0", "a-1", "a-2", "a-3") == ["a-2", "a-3"]


async def test_it_is_removed_after_a_day(logs, keep, clock, tmp_path):
    await keep(ALICE, "e-1", b"words")
    clock.now += KEEP_FOR
    await logs.prune()
    assert names(logs, ALICE, "e-1") == ["e-1"]
    clock.now += 1
    await logs.prune()
    assert names(logs, ALICE, "e-1") == []
    assert list((tmp_path / "logs").iterdir()) == []


async def test_who_has_most_loses_its_oldest(logs, keep, monkeypatch):
    monkeypatch.setattr(module, "MAX_KEPT_BYTES", 100)
    await keep(BOB, "b-1", b"x" * 20)
    for number in range(1, 5):
        await keep(ALICE, f"a-{number}", b"x" * 30)
    assert names(logs, ALICE, "a-1", "a-2", "a-3", "a-4") == ["a-3", "a-4"]
    assert names(logs, BOB, "b-1") == ["b-1"]


async def test_there_are_only_so_many(logs, keep, monkeypatch):
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    for number in range(3):
        await keep(ALICE, f"e-{number}", b"x")
    assert names(logs, ALICE, "e-0", "e-1", "e-2") == ["e-1", "e-2"]


async def test_a_restarted_node_still_has_them_and_forgets_them_in_time(logs, keep, clock, tmp_path):
    await keep(ALICE, "e-1", b"words")
    since = (tmp_path / "logs" / "alice" / "e-1").stat().st_mtime
    again = KeptLogs(tmp_path / "logs", clock)
    assert names(again, ALICE, "e-1") == ["e-1"]
    clock.now = since + KEEP_FOR + 1
    await again.prune()
    assert names(again, ALICE, "e-1") == []


@pytest.mark.parametrize("name", ["../e", "a/b", "", ".", "x" * 129])
async def test_a_name_that_could_lead_elsewhere_is_not_kept(logs, tmp_path, name):
    results = tmp_path / "results"
    results.mkdir()
    (results / "stdout").write_bytes(b"words")
    await logs.keep(ALICE, ExecutionID(name), results)
    assert (results / "stdout").exists()
    assert logs.folder_of(ALICE, ExecutionID(name)) is None


async def test_a_disk_that_is_nearly_full_keeps_little(logs, keep, monkeypatch):
    free = 8_000
    monkeypatch.setattr(KeptLogs, "_free", lambda self: free)
    await keep(ALICE, "e-1", b"x" * 8_000)  # is free too once it is removed
    assert (logs.folder_of(ALICE, ExecutionID("e-1")) / "stdout").stat().st_size == 2_000
    free = 0
    await keep(ALICE, "e-2", b"x" * 8_000)
    assert names(logs, ALICE, "e-1", "e-2") == []


async def test_what_is_kept_makes_room_when_the_disk_fills(logs, keep, monkeypatch):
    free = 1_000_000
    monkeypatch.setattr(KeptLogs, "_free", lambda self: free)
    for name in ("e-1", "e-2", "e-3"):
        await keep(BOB, name, b"x" * 3_000)
    free = 15_000
    await logs.prune()
    assert names(logs, BOB, "e-1", "e-2", "e-3") == ["e-2", "e-3"]


async def test_several_may_be_removed_at_the_same_time(logs, keep, monkeypatch):
    """What one had removed was counted on by the other, which ended the node."""
    for requester, name, size in ((ALICE, "a-1", 30), (ALICE, "a-2", 30), (BOB, "b-1", 20)):
        await keep(requester, name, b"x" * size)
    begun, go_on, rmtree = threading.Event(), threading.Event(), module.shutil.rmtree

    def remove_slowly(path, **given):
        if path.name == "a-1":
            begun.set()
            assert go_on.wait(60)
        rmtree(path, **given)

    monkeypatch.setattr(module.shutil, "rmtree", remove_slowly)
    monkeypatch.setattr(module, "MAX_KEPT_BYTES", 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(logs.prune)
        await trio.to_thread.run_sync(begun.wait, 60)
        await logs.prune()
        go_on.set()
    assert names(logs, ALICE, "a-1", "a-2") == names(logs, BOB, "b-1") == []
