"""Handles on jobs and results, with a backend that records its calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from bacalhau_p2p.client.jobs import JobHandle, Result, spec_of
from bacalhau_p2p.errors import InvalidJob, JobFailed, JobNotFinished
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job, Proposal, PublishedResult, RunOutput
from bacalhau_p2p.model.history import EventKind, HistoryEvent, HistoryPage
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ExecutionState, JobState
from tests.support.results import result_cid

NOOP = {"Tasks": [{"Engine": {"Type": "noop"}}]}
NODE = PeerID("12D3KooWa")
FIRST, SECOND = result_cid("first"), result_cid("second")


def an_execution(
    number: int, state: ExecutionState, cid: str = "", published: PublishedResult | None = None
) -> Execution:
    execution_id = ExecutionID(f"e-{number}")
    output = RunOutput(exit_code=number, stdout=f"out {number}".encode(), stderr=b"err")
    proposal = None
    if cid:
        proposal = Proposal(
            job_id=JobID("j"), execution_id=execution_id, node_id=NODE, result_cid=cid, output=output
        )
    return Execution(
        id=execution_id,
        job_id=JobID("j"),
        node_id=NODE,
        state=state,
        created=0,
        modified=0,
        proposal=proposal,
        published=published,
    )


class RecordingBackend:
    """A backend with one job, which records the calls."""

    def __init__(self, state: JobState, message: str = "", executions: tuple[Execution, ...] = ()) -> None:
        self._job = Job(
            id=JobID("j"),
            spec=job_from_mapping(NOOP),
            state=state,
            message=message,
            requester_id=NODE,
            created=0,
            modified=0,
        )
        self._executions = executions
        self.events = [HistoryEvent(JobID("j"), n, n, EventKind.WAITING, "") for n in range(1, 6)]
        self.calls: list[tuple[object, ...]] = []

    async def job(self, job_id: JobID) -> Job:
        return self._job

    async def wait(self, job_id: JobID, timeout: float | None) -> Job:
        self.calls.append(("wait", job_id, timeout))
        return self._job

    async def executions(self, job_id: JobID) -> tuple[Execution, ...]:
        return self._executions

    async def history(self, job_id: JobID, after: int, timeout: float) -> HistoryPage:
        self.calls.append(("history", after))
        rest = [event for event in self.events if event.number > after]
        return HistoryPage(rest[:2], ended=len(rest) <= 2)

    async def cancel(self, job_id: JobID, reason: str) -> None:
        self.calls.append(("cancel", job_id, reason))

    async def export(self, cid: str, target: Path, *, hints: tuple[str, ...] = ()) -> None:
        self.calls.append(("export", cid, target, hints))


@pytest.mark.parametrize("job", [NOOP, job_from_mapping(NOOP), "tasks: [engine: {type: noop}]"])
def test_any_form_of_a_job_becomes_its_spec(job):
    assert spec_of(job) == job_from_mapping(NOOP)


def test_an_invalid_job_is_an_error():
    for job in ("", "{", {"Tasks": []}, b"\xff"):
        with pytest.raises(InvalidJob):
            spec_of(job)


async def test_the_result_is_that_of_the_first_completed_execution():
    location = SpecConfig(type="ipfs", params={"CID": SECOND, "Providers": ["/ip4/1.2.3.4/tcp/1", 5]})
    backend = RecordingBackend(
        JobState.COMPLETED,
        executions=(
            an_execution(1, ExecutionState.RESULT_REJECTED, FIRST),
            an_execution(2, ExecutionState.COMPLETED, SECOND, PublishedResult(cid=SECOND, location=location)),
            an_execution(3, ExecutionState.COMPLETED, SECOND),
        ),
    )
    result = await JobHandle(backend, JobID("j")).wait_result(timeout=7)
    assert [execution.id for execution in result.executions] == ["e-2", "e-3"]
    assert (result.cid, result.exit_code, result.stdout, result.stderr) == (SECOND, 2, b"out 2", b"err")
    assert await result.fetch("folder") == Path("folder")
    assert backend.calls == [("wait", "j", 7), ("export", SECOND, Path("folder"), ["/ip4/1.2.3.4/tcp/1"])]


async def test_an_unpublished_result_has_the_cid_of_its_proposal():
    execution = an_execution(0, ExecutionState.COMPLETED, FIRST)
    result = Result(
        RecordingBackend(JobState.COMPLETED),
        await RecordingBackend(JobState.COMPLETED).job(JobID("j")),
        [execution],
    )
    assert (result.cid, result.published) == (FIRST, None)


@pytest.mark.parametrize(
    ("state", "message", "error", "text"),
    [
        (JobState.FAILED, "no node has the image", JobFailed, "no node has the image"),
        (JobState.STOPPED, "", JobFailed, "job j has stopped"),
        (JobState.QUEUED, "", JobNotFinished, "job j is queued after 2.5 s"),
        (
            JobState.COMPLETED,
            "",
            JobNotFinished,
            "job j has completed, but has no published result",
        ),
    ],
)
async def test_a_job_without_a_result_says_why(state, message, error, text):
    with pytest.raises(error) as caught:
        await JobHandle(RecordingBackend(state, message), JobID("j")).wait_result(timeout=2.5)
    assert str(caught.value) == text


async def test_events_are_iterated_page_by_page_until_the_job_has_ended():
    backend = RecordingBackend(JobState.COMPLETED)
    handle = JobHandle(backend, JobID("j"))
    assert [event.number async for event in handle.events()] == [1, 2, 3, 4, 5]
    assert backend.calls == [("history", 0), ("history", 2), ("history", 4)]
    assert [event.number async for event in handle.events(after=4)] == [5]


async def test_a_handle_passes_calls_to_its_backend():
    execution = an_execution(1, ExecutionState.BID_ACCEPTED)
    backend = RecordingBackend(JobState.RUNNING, executions=(execution,))
    handle = JobHandle(backend, JobID("j"))
    assert (await handle.status()).state is JobState.RUNNING
    assert (await handle.wait(3)).state is JobState.RUNNING
    assert await handle.executions() == (execution,)
    await handle.cancel()
    assert backend.calls == [("wait", "j", 3), ("cancel", "j", "cancelled by the user")]
