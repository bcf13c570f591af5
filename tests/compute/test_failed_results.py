"""What failed runs left is kept for a while, within limits."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.compute import failed_results as module
from bacalhau_p2p.compute.failed_results import KEEP_FOR, SHARE_OF_DISK, FailedResults
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ComputeState

ALICE, BOB = PeerID("alice"), PeerID("bob")
ROOM = 40_000


def execution(name: str, requester: PeerID) -> ComputeExecution:
    paths = [{"Name": "outputs", "Path": "/outputs"}]
    task = {"Engine": {"Type": "noop"}, "ResultPaths": paths}
    return ComputeExecution(
        id=ExecutionID(name),
        job_id=JobID("j"),
        requester_id=requester,
        spec=job_from_mapping({"Tasks": [task], "KeepFailedResults": True}),
        state=ComputeState.RUNNING,
        created=1.0,
        modified=1.0,
        expires=9.0,
    )


class Bench:
    def __init__(self, content, folder):
        self.content, self.folder, self.now = content, folder, 1_000.0
        self.failed = self.restarted()

    def restarted(self) -> FailedResults:
        return FailedResults(self.content, lambda: self.now, disk=SHARE_OF_DISK * ROOM)

    async def keep(self, name: str, data: bytes, requester: PeerID = ALICE) -> str:
        self.now += 1
        results = self.folder / name
        (results / "outputs").mkdir(parents=True)
        (results / "stdout").write_bytes(b"words")
        (results / "outputs" / "data").write_bytes(name.encode() + data)
        return await self.failed.keep(execution(name, requester), results)

    async def pinned(self) -> list[str]:
        return sorted(pin.owner.removeprefix("failed:") for pin in await self.content.pins())


@pytest.fixture
def bench(content, tmp_path):
    return Bench(content, tmp_path)


async def test_outputs_and_streams_are_kept_for_a_day(bench, tmp_path):
    cid = await bench.keep("e-1", b"half")
    (pin,) = await bench.content.pins()
    assert (str(pin.cid), pin.owner, pin.expires) == (cid, "failed:alice:e-1", bench.now + KEEP_FOR)
    await bench.content.export(CID.parse(cid), tmp_path / "got")
    assert (tmp_path / "got" / "outputs" / "data").read_bytes() == b"e-1half"
    assert (tmp_path / "got" / "stdout").read_bytes() == b"words"


async def test_what_cannot_be_part_of_a_result_is_left_out(bench, tmp_path):
    (tmp_path / "e-1" / "outputs").mkdir(parents=True)
    (tmp_path / "e-1" / "outputs" / "out").symlink_to("/etc/passwd")
    assert await bench.failed.keep(execution("e-1", ALICE), tmp_path / "e-1")
    assert list((tmp_path / "e-1" / "outputs").iterdir()) == []


async def test_without_result_folders_nothing_is_kept(bench, tmp_path):
    assert await bench.failed.keep(execution("e-1", ALICE), tmp_path / "never-ran") == ""


async def test_what_is_too_large_is_not_kept(bench):
    assert await bench.keep("e-1", bytes(ROOM // 4)) == ""
    assert await bench.pinned() == []


async def test_whoever_has_most_kept_loses_its_oldest(bench):
    await bench.keep("b-1", bytes(6_000), BOB)
    for number in range(6):
        assert await bench.keep(f"a-{number}", bytes(7_000))
    assert await bench.pinned() == ["alice:a-2", "alice:a-3", "alice:a-4", "alice:a-5", "bob:b-1"]


async def test_only_so_many_are_kept(bench, monkeypatch):
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    for number in range(4):
        await bench.keep(f"e-{number}", b"x")
    assert await bench.pinned() == ["alice:e-2", "alice:e-3"]


async def test_a_restarted_node_counts_what_an_earlier_process_kept(bench, monkeypatch):
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    for number in range(2):
        await bench.keep(f"e-{number}", b"x")
    bench.failed = bench.restarted()
    await bench.keep("e-2", b"x")
    assert await bench.pinned() == ["alice:e-1", "alice:e-2"]


async def test_several_runs_may_fail_at_the_same_time(bench):
    """What one had unpinned was counted on by the other, which ended the node."""
    for name, size, requester in (("a-1", 7_000, ALICE), ("a-2", 7_000, ALICE), ("b-1", 6_000, BOB)):
        await bench.keep(name, bytes(size), requester)
    bench.failed._most = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.failed._prune)
        nursery.start_soon(bench.failed._prune)
    assert await bench.pinned() == []


async def test_what_a_process_kept_that_ended_at_once_is_unpinned_by_the_next(bench):
    """Its pin has no end yet."""
    cid = CID.parse(await bench.keep("e-1", b"half"))
    await bench.content.pin(cid, "failed:alice:e-1")
    bench.failed = bench.restarted()
    await bench.keep("e-2", b"half")
    assert await bench.pinned() == ["alice:e-2"]
