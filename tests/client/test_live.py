"""What notebooks show, and how it stays up to date. Covers `live`, `views`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from bacalhau_p2p.client import live, views
from bacalhau_p2p.client.client import Client
from bacalhau_p2p.client.specs import docker
from bacalhau_p2p.client.sync_client import SyncClient
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job, RunOutput
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ExecutionState, JobState
from tests.support.servers.fake_node import NODE, FakeNode

Run = Callable[[Callable[[], Awaitable[Any]]], Any]
NOOP = {"Tasks": [{"Engine": {"Type": "noop"}}]}
EVIL = "<script>alert(1)</script>\x1b[31m"


class Screen:
    """Stands for the display of a notebook: what it shows now, and whether it has been updated."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def display(self, data: dict[str, str], *, raw: bool, display_id: bool) -> Screen:
        self.shown.append(data)
        return self

    def update(self, data: dict[str, str], *, raw: bool) -> None:
        self.shown.append(data)

    @property
    def html(self) -> str:
        return self.shown[-1]["text/html"]

    async def until(self, text: str) -> None:
        with anyio.fail_after(30):
            while text not in self.html:
                await anyio.lowlevel.checkpoint()


def a_job(**changes: Any) -> Job:
    spec = job_from_mapping({**NOOP, "Name": EVIL})
    job = Job(id=JobID("j"), spec=spec, state=JobState.RUNNING, requester_id=NODE, created=0, modified=0)
    return job.replace(**changes)


def an_execution(message: str = "") -> Execution:
    return Execution(
        id=ExecutionID("e"),
        job_id=JobID("j"),
        node_id=PeerID("12D3KooW<b>"),
        state=ExecutionState.FAILED,
        created=0,
        modified=0,
        message=message,
    )


def test_text_of_strangers_is_only_text():
    shown = views.job(JobID("j"), a_job(message=EVIL), [an_execution(EVIL)])
    shown += views.result(JobID("j"), 0, EVIL, EVIL.encode(), EVIL.encode())
    shown += views.progress(1, 1, 1, [(EVIL, EVIL)])
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert "\x1b" not in shown
    assert shown.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 8


def test_long_texts_and_tables_are_cut():
    shown = views.job(JobID("j"), a_job(message="x" * 10_000), [an_execution("y" * 10_000)] * 10_000)
    assert len(shown) < views.MAX_ROWS * (views.MAX_TEXT + 400)
    assert f"and {10_000 - views.MAX_ROWS} more" in shown


def test_a_handle_shows_what_it_knows(run: Run, fake_node: FakeNode, tmp_path: Path):
    async def main() -> None:
        async with Client(fake_node.url) as client:
            job = await client.submit({**NOOP, "Name": "mine"})
            assert (repr(job), job._repr_html_()) == (
                f"<JobHandle {job.id}>",
                f"<div>Job <code>{job.id}</code></div>",
            )
            fake_node.complete(job.id, tmp_path, RunOutput(exit_code=3, stdout=b"hello"))
            result = await job.wait_result()
            assert repr(job) == f"<JobHandle {job.id} Completed>"
            assert "mine" in job._repr_html_()
            assert NODE[-8:] in job._repr_html_()
            assert repr(result) == f"<Result of job {job.id}: exit code 3, {result.cid}>"
            assert "<pre>hello</pre>" in result._repr_html_()

    run(main)


def test_a_blocking_handle_shows_the_same(fake_node: FakeNode, tmp_path: Path):
    fake_node.on_submit = lambda job: fake_node.complete(job.id, tmp_path, RunOutput(stdout=b"hello"))
    with SyncClient(fake_node.url) as client:
        job = client.submit(NOOP)
        result = job.wait_result()
        assert repr(client) == f"<SyncClient of {fake_node.url}>"
        assert repr(job) == f"<SyncJobHandle {job.id} Completed>"
        assert repr(result).startswith(f"<SyncResult of job {job.id}: exit code 0")
        assert "Completed" in job._repr_html_()
        assert "<pre>hello</pre>" in result._repr_html_()


def test_the_table_of_a_job_stays_up_to_date(fake_node: FakeNode, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(live, "REFRESH", 0.0)
    screen = Screen()

    async def main() -> None:
        async with Client(fake_node.url) as client:
            job = await client.submit(NOOP)
            job._displays.show(job, screen.display)
            assert screen.html == f"<div>Job <code>{job.id}</code></div>"
            fake_node.set_state(job.id, JobState.RUNNING)
            fake_node.tell(job.id, EventKind.RUNNING, "")
            await screen.until("Running")
            fake_node.complete(job.id, tmp_path)
            fake_node.tell(job.id, EventKind.ENDED, "")
            await screen.until("Completed")

    asyncio.run(main())


def test_the_table_of_a_map_stays_up_to_date(fake_node: FakeNode, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(live, "REFRESH", 0.0)
    fake_node.on_submit = lambda job: fake_node.complete(job.id, tmp_path)
    screen = Screen()

    async def main() -> None:
        async with Client(fake_node.url) as client:
            outcomes = client.as_completed(lambda n: docker("busybox", "echo", str(n)), range(3))
            outcomes.run.displays.show(outcomes.run, screen.display)
            assert repr(outcomes) == "<AsCompleted: 0 of 0 jobs ended, 0 failed>"
            await outcomes
            await screen.until(">3</td>")
            assert repr(client.map(NOOP, [])) == "<JobMap: 0 of 0 jobs ended, 0 failed>"

    asyncio.run(main())


async def test_without_asyncio_a_table_is_as_of_the_last_use_of_its_handle(fake_node: FakeNode):
    screen = Screen()
    async with Client(fake_node.url) as client:
        job = await client.submit(NOOP)
        job._displays.show(job, screen.display)
        assert len(screen.shown) == 1
        await job.status()
        assert "Pending" in screen.html


def test_a_table_whose_node_is_gone_stays_as_it_was(fake_node: FakeNode):
    screen = Screen()

    async def main() -> None:
        async with Client(fake_node.url, reconnect=0.0) as client:
            job = await client.submit(NOOP)
            fake_node.crash()
            job._displays.show(job, screen.display)
            with anyio.fail_after(30):
                while len(screen.shown) < 2:
                    await anyio.lowlevel.checkpoint()

    asyncio.run(main())
