"""Handles on jobs and results, with a backend that records its calls. Covers `jobs`, `results`, `backend`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import pytest

from bacalhau_p2p.client.jobs import JobHandle, spec_of
from bacalhau_p2p.client.results import Result
from bacalhau_p2p.errors import ContentTooLarge, InvalidJob, JobFailed, JobNotFinished
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job, Proposal, PublishedResult, RunOutput
from bacalhau_p2p.model.history import EventKind, HistoryEvent
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.model.usage import Usage
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

    def __init__(
        self,
        state: JobState,
        message: str = "",
        executions: tuple[Execution, ...] = (),
        job: Mapping[str, object] = NOOP,
    ) -> None:
        self._job = Job(
            id=JobID("j"),
            spec=job_from_mapping(job),
            state=state,
            message=message,
            requester_id=NODE,
            created=0,
            modified=0,
        )
        self._executions = executions
        self._events = [HistoryEvent(JobID("j"), n, n, EventKind.WAITING, "") for n in range(1, 6)]
        self.pieces = [b"one\n", b"two\n", b"three\n"]
        self.calls: list[tuple[object, ...]] = []

    async def job(self, job_id: JobID) -> Job:
        return self._job

    async def wait(self, job_id: JobID, timeout: float | None) -> Job:
        self.calls.append(("wait", job_id, timeout))
        return self._job

    async def wait_with_executions(
        self, job_id: JobID, timeout: float | None
    ) -> tuple[Job, tuple[Execution, ...]]:
        return await self.wait(job_id, timeout), self._executions

    async def executions(self, job_id: JobID) -> tuple[Execution, ...]:
        return self._executions

    async def events(self, job_id: JobID, after: int) -> AsyncGenerator[HistoryEvent, None]:
        self.calls.append(("events", after))
        for event in self._events:
            if event.number > after:
                yield event

    async def read(self, cid: str, *, hints: tuple[str, ...] = ()) -> AsyncGenerator[bytes, None]:
        self.calls.append(("read", cid, hints))
        for piece in self.pieces:
            yield piece

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
            JobState.QUEUED,
            "waiting for a node: n: has no docker engine",
            JobNotFinished,
            "job j is queued after 2.5 s: waiting for a node: n: has no docker engine",
        ),
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


async def test_events_are_iterated_until_the_job_has_ended():
    backend = RecordingBackend(JobState.COMPLETED)
    handle = JobHandle(backend, JobID("j"))
    assert [event.number async for event in handle.events()] == [1, 2, 3, 4, 5]
    assert backend.calls == [("events", 0)]
    assert [event.number async for event in handle.events(after=4)] == [5]


async def test_a_file_of_a_result_is_read_whole_up_to_a_limit():
    result = await a_result()
    assert await result.read("outputs/count") == b"one\ntwo\nthree\n"
    with pytest.raises(
        ContentTooLarge, match=r"^outputs/count has more than 7 B; use open, or a larger limit$"
    ):
        await result.read("outputs/count", limit=7)


async def test_a_file_of_a_result_is_read_in_pieces_or_so_many_bytes_at_a_time():
    result = await a_result()
    async with result.open("stdout") as file:
        assert await anext(file) == b"one\n"
        assert await file.read(6) == b"two\nth"
        assert [piece async for piece in file] == [b"ree\n"]
        assert await file.read(1) == b""


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (RunOutput(stdout=b"whole\n"), b"whole\n"),
        (
            RunOutput(stdout=b"begin", stdout_truncated=True),
            b'begin\n[cut after 5 bytes: result.read("stdout") has all of it]\n',
        ),
    ],
)
async def test_output_is_whole_or_visibly_cut(output: RunOutput, shown: bytes):
    assert (await a_result(output)).stdout == shown


async def test_an_exit_code_that_is_not_zero_can_be_made_an_error():
    execution = an_execution(3, ExecutionState.COMPLETED, FIRST)
    handle = JobHandle(RecordingBackend(JobState.COMPLETED, executions=(execution,)), JobID("j"))
    assert (await handle.wait_result()).exit_code == 3
    with pytest.raises(JobFailed, match=r"^exit code 3 \(job j\)$") as caught:
        await handle.wait_result(check=True)
    assert caught.value.last_lines == "err"


def completed(number: int, slot: int, node: str) -> Execution:
    return an_execution(number, ExecutionState.COMPLETED, FIRST).replace(slot=slot, node_id=PeerID(node))


async def test_a_divided_job_has_a_result_for_each_partition():
    job = {**NOOP, "Count": 2, "Deal": {"Replicas": 2}}
    executions = (
        completed(1, 2, "c"),
        completed(2, 0, "a"),
        completed(3, 1, "b"),
        an_execution(4, ExecutionState.FAILED).replace(slot=3),
    )
    handle = JobHandle(RecordingBackend(JobState.COMPLETED, executions=executions, job=job), JobID("j"))
    results = await handle.results()
    assert [(each.partition, each.exit_code, len(each.executions)) for each in results] == [
        (0, 2, 2),
        (1, 1, 1),
    ]
    with pytest.raises(JobFailed, match="exit code 2"):
        await handle.results(check=True)


async def test_an_exit_code_of_any_partition_can_be_made_an_error():
    executions = (completed(0, 0, "a"), completed(3, 1, "b"))
    job = {**NOOP, "Count": 2, "Deal": {"Replicas": 1}}
    handle = JobHandle(RecordingBackend(JobState.COMPLETED, executions=executions, job=job), JobID("j"))
    assert (await handle.wait_result()).exit_code == 0
    with pytest.raises(JobFailed, match=r"^exit code 3 of partition 1 \(job j\)$"):
        await handle.wait_result(check=True)


async def test_a_reason_for_which_a_job_was_stopped_is_named_as_that():
    handle = JobHandle(RecordingBackend(JobState.STOPPED, "enough"), JobID("j"))
    with pytest.raises(JobFailed, match=r"^enough \(job j was stopped\)$"):
        await handle.wait_result()


async def test_an_ops_job_has_a_result_for_each_node():
    executions = (completed(1, 1, "b"), completed(2, 0, "a"))
    job = {**NOOP, "Type": "ops"}
    backend = RecordingBackend(JobState.COMPLETED, executions=executions, job=job)
    results = await JobHandle(backend, JobID("j")).results()
    assert [(each.node, each.partition, each.exit_code) for each in results] == [("a", 0, 2), ("b", 0, 1)]


async def test_what_there_is_of_a_failed_job_is_given_only_when_asked_for():
    job = {**NOOP, "Count": 2, "Deal": {"Replicas": 1}}
    backend = RecordingBackend(JobState.FAILED, "partition 0: no", (completed(1, 1, "a"),), job)
    handle = JobHandle(backend, JobID("j"))
    with pytest.raises(JobFailed, match="partition 0: no"):
        await handle.results()
    assert [each.partition for each in await handle.results(partial=True)] == [1]
    nothing = JobHandle(RecordingBackend(JobState.COMPLETED), JobID("j"))
    assert await nothing.results(partial=True) == []
    with pytest.raises(JobNotFinished, match="no published result"):
        await nothing.results()
    with pytest.raises(JobNotFinished, match="is running after 1 s"):
        await JobHandle(RecordingBackend(JobState.RUNNING), JobID("j")).results(1, partial=True)


async def test_a_failed_job_brings_the_last_lines_of_its_program():
    execution = an_execution(1, ExecutionState.FAILED).replace(message="no such file\nls: x: absent")
    backend = RecordingBackend(JobState.FAILED, "no such file", (execution,))
    with pytest.raises(JobFailed) as caught:
        await JobHandle(backend, JobID("j")).wait_result()
    assert (str(caught.value), caught.value.last_lines) == ("no such file", "ls: x: absent")


async def a_result(output: RunOutput | None = None) -> Result:
    execution = an_execution(0, ExecutionState.COMPLETED, FIRST)
    if output is not None:
        assert execution.proposal is not None
        execution = execution.replace(proposal=execution.proposal.replace(output=output))
    backend = RecordingBackend(JobState.COMPLETED, executions=(execution,))
    return await JobHandle(backend, JobID("j")).wait_result()


async def test_a_handle_passes_calls_to_its_backend():
    execution = an_execution(1, ExecutionState.BID_ACCEPTED)
    backend = RecordingBackend(JobState.RUNNING, executions=(execution,))
    handle = JobHandle(backend, JobID("j"))
    assert (await handle.status()).state is JobState.RUNNING
    assert (await handle.wait(3)).state is JobState.RUNNING
    assert await handle.executions() == (execution,)
    await handle.cancel()
    assert backend.calls == [("wait", "j", 3), ("cancel", "j", "cancelled by the user")]


def test_a_result_says_what_its_run_used():
    executions = (an_execution(0, ExecutionState.COMPLETED, FIRST),)
    backend = RecordingBackend(JobState.COMPLETED, executions=executions)
    assert Result(backend, backend._job, executions).usage == Usage()
    used = Usage(cpu_seconds=0.5, result_bytes=7)
    assert executions[0].proposal is not None
    measured = executions[0].replace(proposal=executions[0].proposal.replace(usage=used))
    assert Result(backend, backend._job, [measured]).usage == used
