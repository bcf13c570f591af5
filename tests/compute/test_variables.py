"""What a program is told of its job, its execution and its node."""

from __future__ import annotations

from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.compute.variables import node_variables
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ComputeState


def variables_of(partition=0, **job):
    spec = job_from_mapping({"Tasks": [{"Engine": {"Type": "noop"}}], **job})
    execution = ComputeExecution(
        id=ExecutionID("e-1"),
        job_id=JobID("j-1"),
        requester_id=PeerID("alice"),
        spec=spec,
        state=ComputeState.PREPARING,
        created=1.0,
        modified=2.0,
        expires=9.0,
        partition=partition,
    )
    return node_variables(execution, PeerID("me"))


def test_an_execution_knows_its_job_its_node_and_its_part_of_the_work():
    assert variables_of(2, Count=3, Name="sums", Namespace="lab") == {
        "BACALHAU_JOB_ID": "j-1",
        "BACALHAU_JOB_NAME": "sums",
        "BACALHAU_JOB_NAMESPACE": "lab",
        "BACALHAU_JOB_TYPE": "batch",
        "BACALHAU_PARTITION_INDEX": "2",
        "BACALHAU_PARTITION_COUNT": "3",
        "BACALHAU_EXECUTION_ID": "e-1",
        "BACALHAU_NODE_ID": "me",
    }


def test_executions_whose_results_are_compared_are_all_told_the_same():
    variables = variables_of(Count=3, Verifier={"Type": "deterministic"})
    assert (variables["BACALHAU_PARTITION_INDEX"], variables["BACALHAU_PARTITION_COUNT"]) == ("0", "1")
    assert {"BACALHAU_EXECUTION_ID", "BACALHAU_NODE_ID"}.isdisjoint(variables)


def test_a_job_without_a_name_is_named_by_its_id():
    assert variables_of()["BACALHAU_JOB_NAME"] == "j-1"


def test_no_variable_has_what_no_program_can_take():
    assert variables_of(Name="a\0b")["BACALHAU_JOB_NAME"] == "ab"
