from __future__ import annotations

import pytest

from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.page.job_rows import has_text, job_row, runs

DOCKER = {"Type": "docker", "Params": {"Image": "ghcr.io/someone/tool:V1"}}


def job(state=JobState.RUNNING, *, name="", message="", engine=DOCKER, more=None):
    spec = job_from_mapping({"Name": name, "Tasks": [{"Engine": engine}], **(more or {"Count": 3})})
    return Job(
        id=JobID("17b2d7dd-1"),
        spec=spec,
        state=state,
        message=message,
        requester_id=PeerID("r"),
        created=100.0,
        modified=130.0,
    )


def execution(number, state, *, slot=None):
    return Execution(
        id=ExecutionID(f"e{number}"),
        job_id=JobID("17b2d7dd-1"),
        node_id=PeerID(f"n{number}"),
        state=state,
        slot=slot,
        created=101.0,
        modified=110.0,
    )


def test_a_row_counts_what_is_done_and_names_the_nodes_that_work():
    states = [
        ExecutionState.COMPLETED,
        ExecutionState.BID_ACCEPTED,
        ExecutionState.LOST,
        ExecutionState.BID_REJECTED,
    ]
    row = job_row(job(), [execution(n, state) for n, state in enumerate(states)], now=190.0)
    assert (row.done, row.count, row.nodes) == (1, 3, ["n0", "n1"])
    assert (row.age, row.lasted) == (90.0, 90.0)
    assert row.name == "17b2d7dd-1"


def test_a_row_names_the_first_nodes_and_counts_the_others():
    row = job_row(job(), [execution(n, ExecutionState.COMPLETED) for n in range(6)], now=190.0)
    assert (row.nodes, row.more_nodes) == (["n0", "n1", "n2", "n3"], 2)


@pytest.mark.parametrize(
    ("more", "wanted"),
    [({"Count": 3}, 3), ({"Count": 3, "Deal": {"Replicas": 2}}, 6), ({"Type": "ops"}, 2)],
)
def test_a_row_counts_what_the_job_is_to_have(more, wanted):
    executions = [execution(n, ExecutionState.COMPLETED, slot=n) for n in range(2)]
    row = job_row(job(more=more), [*executions, execution(2, ExecutionState.BID_REJECTED)], now=190.0)
    assert (row.done, row.count) == (2, wanted)


def test_a_job_that_has_ended_lasted_until_its_end():
    assert job_row(job(JobState.FAILED), [], now=190.0).lasted == 30.0


def test_what_a_job_runs_is_its_image_or_module():
    wasm = {"Type": "wasm", "Params": {"EntryModule": "/modules/count.wasm"}}
    assert runs(job().spec) == "docker ghcr.io/someone/tool:V1"
    assert runs(job(engine={"Type": "noop"}).spec) == "noop"
    spec = job_from_mapping({"Tasks": [{"Engine": wasm, "InputSources": [
        {"Target": "/modules/count.wasm", "Source": {"Type": "urlDownload", "Params": {"URL": "http://x.org/c"}}}
    ]}]})  # fmt: skip
    assert runs(spec) == "wasm count.wasm"


@pytest.mark.parametrize("text", ["", "NIGHTLY", "TOOL:v1", "17b2", "waiting"])
def test_text_is_looked_for_in_name_image_id_and_message(text):
    assert has_text(job(name="nightly count", message="waiting for bids"), text)
    assert not has_text(job(name="nightly count", message="waiting for bids"), text + "nowhere")
