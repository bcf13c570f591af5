"""The steps of an execution with a node's own adapters: `steps` and `adapters`."""

from __future__ import annotations

import os

import pytest

from bacalhau_p2p.bprotocol.messages import InputProgress
from bacalhau_p2p.bprotocol.proposals import decode_proposal
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.adapters import Adapters
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.compute.steps import Steps, Workplace
from bacalhau_p2p.errors import ExecutionError, StorageError
from bacalhau_p2p.executors.interface import tell_nobody
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.ipfs.store import pin_owners
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ComputeState
from bacalhau_p2p.model.usage import Usage
from bacalhau_p2p.runtime.transfers import note_fetched
from bacalhau_p2p.storage.interface import PreparedInput
from tests.support.results import result_cid

ALICE, ME = PeerID("alice"), PeerID("me")


def execution(*, inputs=(), engine="noop", **fields):
    sources = [{"Target": target, "Source": {"Type": kind}} for target, kind in inputs]
    task = {"Engine": {"Type": engine}, "InputSources": sources}
    return ComputeExecution(
        id=ExecutionID("e-1"),
        job_id=JobID("j"),
        requester_id=ALICE,
        spec=job_from_mapping({"Tasks": [task]}),
        state=ComputeState.PREPARING,
        created=1.0,
        modified=2.0,
        expires=9.0,
        **fields,
    )


class Recording(NoopExecutor):
    """Remembers what it was asked to prepare and run; `left` is what an earlier process left of a run."""

    def __init__(self, left=None):
        self.prepared, self.requests, self.left = [], [], left

    async def prepare(self, request):
        self.prepared.append(request)
        await super().prepare(request)

    async def run(self, request):
        self.requests.append(request)
        return await super().run(request)

    async def reattach(self, request):
        return await super().run(request) if self.left else None


class Provider:
    def __init__(self, error=None):
        self.error, self.hints = error, None

    async def prepare(self, source, folder, *, hints=(), max_bytes=None):
        self.hints, self.max_bytes = hints, max_bytes
        if self.error is not None:
            raise self.error
        (folder / "data").write_text("data")
        note_fetched(4)
        return PreparedInput(path=folder / "data")


class Publisher:
    async def publish(self, publisher, job_id, execution_id, cid):
        return PublishedResult(cid=cid, location=SpecConfig(type="ipfs"))


@pytest.fixture
def executor():
    return Recording()


@pytest.fixture
def place(tmp_path):
    return Workplace(tmp_path / "e-1")


@pytest.fixture
def steps(content, executor):
    return steps_of(content, executor)


def steps_of(content, executor, **limits):
    adapters = Adapters(
        executors={"noop": executor},
        storage={"fine": Provider(), "broken": Provider(StorageError("no such bucket", permanent=True))},
        publishers={"ipfs": Publisher()},
    )
    return Steps(
        adapters,
        content,
        peer_id=ME,
        seal=lambda to, proposal: proposal,
        clock=lambda: 5.0,
        disk_limit=10**12,
        **limits,
    )


async def test_a_prepared_execution_runs_with_its_inputs_and_proposes_its_pinned_result(
    steps, executor, place, content
):
    record = execution(inputs=[("/a", "fine"), ("/b", "fine")])
    assert await steps.prepare(record, place, tell_nobody) == ev.Prepared(record.id, outlives_node=False)
    finished = await steps.run(record, place)
    (request,) = executor.requests
    assert [(mount.target, mount.path.read_text()) for mount in request.inputs] == [
        ("/a", "data"),
        ("/b", "data"),
    ]
    proposal = decode_proposal(finished.sealed)
    assert (proposal.node_id, proposal.result_cid, proposal.output.exit_code) == (ME, finished.result_cid, 0)
    assert (proposal.started, proposal.ended) == (5.0, 5.0)
    size = finished.result_bytes
    assert proposal.usage == Usage(cpu_seconds=0, peak_memory=0, input_bytes_fetched=8, result_bytes=size)
    assert [pin.owner for pin in await content.pins()] == [pin_owners.execution("e-1")]


async def test_a_run_is_told_which_part_of_the_work_it_does(steps, executor, place):
    record = execution(partition=1)
    record = record.replace(spec=record.spec.replace(count=4))
    await steps.prepare(record, place, tell_nobody)
    await steps.run(record, place)
    (request,) = executor.requests
    told = {name: request.environment[f"BACALHAU_{name}"] for name in ("PARTITION_INDEX", "PARTITION_COUNT")}
    assert told == {"PARTITION_INDEX": "1", "PARTITION_COUNT": "4"}


async def test_a_partition_that_the_job_does_not_have_fails_for_good(steps, place):
    with pytest.raises(ExecutionError, match="there is no partition 3 of 1") as caught:
        await steps.prepare(execution(partition=3), place, tell_nobody)
    assert caught.value.permanent


async def test_what_is_fetched_of_the_inputs_is_counted_beside_what_was_here(steps, place):
    sizes = ((10, 6), None)
    record = execution(inputs=[("/a", "fine"), ("/b", "fine")], input_sizes=sizes)
    await steps.prepare(record, place, tell_nobody)
    assert place.fetched == (InputProgress(done=10, total=10), InputProgress(done=4))
    finished = await steps.run(record, place)
    usage = decode_proposal(finished.sealed).usage
    assert usage is not None
    assert (usage.input_bytes_fetched, usage.input_bytes_local) == (8, 6)


async def test_of_an_input_that_is_divided_what_is_here_counts_and_not_the_largest_part(steps, place):
    record = execution(inputs=[("/a", "fine")], input_sizes=((1000, 900),))
    (source,) = record.spec.task.input_sources
    params = {"Partition": {"Type": "object"}}
    source = source.replace(source=source.source.replace(params=params))
    task = record.spec.task.replace(input_sources=(source,))
    record = record.replace(spec=record.spec.replace(count=2, tasks=(task,)))
    await steps.prepare(record, place, tell_nobody)
    assert place.fetched == (InputProgress(done=4, total=4),)
    usage = decode_proposal((await steps.run(record, place)).sealed).usage
    assert usage is not None
    assert (usage.input_bytes_fetched, usage.input_bytes_local) == (4, 0)


@pytest.mark.parametrize(("asked", "given"), [("", 500), ("200", 200)])
async def test_a_job_that_asks_for_no_disk_may_write_what_one_job_may_have(
    content, executor, place, asked, given
):
    steps, record = steps_of(content, executor, job_disk=500), execution()
    task = {"Engine": {"Type": "noop"}, "Resources": {"Disk": asked}}
    record = record.replace(spec=job_from_mapping({"Tasks": [task]}))
    await steps.prepare(record, place, tell_nobody)
    await steps.run(record, place)
    (request,) = executor.requests
    assert request.resources.disk == given


async def test_the_requester_is_a_hint_for_fetching_inputs(steps, place):
    await steps.prepare(execution(inputs=[("/a", "fine")]), place, tell_nobody)
    assert steps.adapters.storage["fine"].hints == (ALICE,)


@pytest.mark.parametrize(("unsized", "limit"), [(False, 700), (True, 10**12)])
async def test_an_input_may_take_what_was_reserved_and_of_unknown_size_what_jobs_may_have(
    steps, place, unsized, limit
):
    record = execution(inputs=[("/a", "fine")], input_disk=700, unsized_inputs=unsized)
    await steps.prepare(record, place, tell_nobody)
    assert steps.adapters.storage["fine"].max_bytes == limit


async def test_an_input_that_cannot_be_prepared_fails_the_step_and_the_others_stay_to_be_cleaned_up(
    steps, place
):
    with pytest.raises(StorageError, match="no such bucket"):
        await steps.prepare(execution(inputs=[("/a", "fine"), ("/b", "broken")]), place, tell_nobody)
    assert all(provider is steps.adapters.storage["fine"] for provider, _ in place.inputs)


async def test_preparing_again_begins_with_an_empty_workplace(steps, place):
    (place.folder / "work").mkdir(parents=True)
    await steps.prepare(execution(), place, tell_nobody)
    assert [path.name for path in place.folder.iterdir()] == ["results"]


async def test_a_run_that_an_earlier_process_began_is_taken_up_again(steps, executor, place):
    executor.left = True
    place.results.mkdir(parents=True)
    finished = await steps.reattach(execution(), place)
    assert decode_proposal(finished.sealed).started == 2.0


@pytest.mark.parametrize("left", ["nothing", "folder"])
async def test_a_run_of_which_nothing_is_left_has_vanished(steps, executor, place, left):
    executor.left = left == "nothing"
    if left == "folder":
        place.results.mkdir(parents=True)
    assert await steps.reattach(execution(), place) == ev.RunVanished(ExecutionID("e-1"))


async def test_a_run_whose_engine_is_gone_has_vanished(steps, place):
    assert await steps.reattach(execution(engine="other"), place) == ev.RunVanished(ExecutionID("e-1"))


async def test_the_accepted_result_is_published(steps, place):
    cid = result_cid("result")
    published = await steps.publish(execution(result_cid=cid), place)
    assert published.published.cid == cid


@pytest.mark.parametrize(
    ("step", "record", "reason"),
    [
        ("prepare", execution(engine="other"), "this node has no other engine"),
        ("prepare", execution(inputs=[("/a", "missing")]), "this node has no storage provider for missing"),
        ("run", execution(engine="other"), "this node has no other engine"),
        ("publish", execution(), "there is no result to publish"),
    ],
)
async def test_what_this_node_cannot_do_is_an_execution_error(steps, place, step, record, reason):
    with pytest.raises(ExecutionError, match=reason):
        await getattr(steps, step)(record, place, *([tell_nobody] if step == "prepare" else []))


def test_a_publisher_that_is_missing_is_an_execution_error(steps):
    with pytest.raises(ExecutionError, match="this node has no s3 publisher"):
        steps.adapters.publisher("s3")


async def test_other_users_can_read_an_input_whatever_the_umask_of_the_node(steps, place):
    """With umask 027 every Docker job with an input failed: its user is not the node's."""
    before = os.umask(0o027)
    try:
        await steps.prepare(execution(inputs=[("/a", "fine")]), place, tell_nobody)
    finally:
        os.umask(before)
    assert place.request is not None
    assert place.request.inputs[0].path.stat().st_mode & 0o777 == 0o644


async def test_only_the_preparation_of_a_run_tells_what_it_waits_for(steps, executor, place):
    await steps.prepare(execution(), place, print)
    assert (executor.prepared[0].note, place.request.note) == (print, tell_nobody)
