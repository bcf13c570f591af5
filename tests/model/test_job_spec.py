"""Jobs and their values: `job`, `fields`, `base`, `engine_params`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from bacalhau_p2p.errors import InvalidJob
from bacalhau_p2p.model.engine_params import environment_of
from bacalhau_p2p.model.job import Deal, JobSpec, SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping

YEAR = 366 * 86400
PARAMS = "Tasks[0].Engine.Params."


def spec(task: dict[str, Any] | None = None, **job: Any) -> JobSpec:
    return job_from_mapping({"Tasks": [{"Engine": {"Type": "noop"}, **(task or {})}], **job})


def test_a_minimal_job_has_defaults():
    job = spec()
    assert (job.count, job.min_bids, job.deterministic, job.namespace) == (1, 1, False, "default")
    assert (job.execution_timeout, job.queue_timeout, job.total_timeout) == (1800, 300, 3600)
    assert (job.resources.cpu, job.resources.memory, job.resources.disk, job.resources.gpu) == (
        *(0.1, 100_000_000),
        *(0, 0),
    )
    assert (job.task.network.type, job.task.publisher.type, job.task.name) == ("None", "ipfs", "main")


@pytest.mark.parametrize(
    ("timeouts", "execution", "queue", "total"),
    [
        ({"ExecutionTimeout": "2h"}, 7200, 300, 7500),
        ({"TotalTimeout": 60}, 60, 60, 60),
        ({"QueueTimeout": 10, "TotalTimeout": "1h"}, 1800, 10, 3600),
        ({"ExecutionTimeout": 5, "QueueTimeout": 5, "TotalTimeout": 10}, 5, 5, 10),
        ({"ExecutionTimeout": 0, "QueueTimeout": 0, "TotalTimeout": 0}, 1800, 300, 3600),
        ({"ExecutionTimeout": 10**12}, YEAR, 300, YEAR + 300),
        ({"ExecutionTimeout": "9999d", "QueueTimeout": 60, "TotalTimeout": 1e15}, YEAR, 60, YEAR),
    ],
)
def test_missing_timeouts_follow_from_the_given_ones(timeouts, execution, queue, total):
    job = spec({"Timeouts": timeouts})
    assert (job.execution_timeout, job.queue_timeout, job.total_timeout) == (execution, queue, total)


def test_zero_cpu_and_memory_mean_the_default():
    job = spec({"Resources": {"CPU": "0", "Memory": "0", "Disk": "1gb", "GPU": 2}})
    assert (job.resources.cpu, job.resources.memory) == (0.1, 100_000_000)
    assert (job.resources.disk, job.resources.gpu) == (10**9, 2)


def test_a_changed_copy_has_its_own_resources():
    job = spec({"Resources": {"CPU": "2"}})
    assert job.resources.cpu == 2
    task = job.task.replace(resources=job.task.resources.replace(cpu="3"))
    assert job.replace(tasks=(task,)).resources.cpu == 3


def test_the_deal_and_the_verifier_determine_bids_and_comparison():
    job = spec(Deal={"MinBids": 3}, Verifier={"Type": "Deterministic"})
    assert (job.min_bids, job.deterministic) == (3, True)
    assert job.replace(deal=Deal()).min_bids == 1


@pytest.mark.parametrize("network", ["full", "HOST", "bridge"])
def test_other_names_of_bacalhau_mean_the_full_network(network):
    assert spec({"Network": {"Type": network}}).task.network.type == "Full"


def test_the_environment_of_the_engine_overrides_that_of_the_task():
    engine = {"Type": "docker", "Params": {"Image": "x", "EnvironmentVariables": ["A=engine", "B=2"]}}
    task = spec({"Engine": engine, "Env": {"A": "task", "C": 3}}).task
    assert environment_of(task) == {"A": "engine", "B": "2", "C": "3"}
    assert environment_of(spec({"Env": {"A": "1"}}).task) == {"A": "1"}


def test_the_value_of_a_variable_has_up_to_128_kib():
    value = "v" * (128 * 1024)
    assert spec({"Env": {"A": value}}).task.env["A"] == value
    with pytest.raises(InvalidJob, match="at most 131072 characters"):
        spec({"Env": {"A": value + "v"}})


@pytest.mark.parametrize(
    ("task", "params", "path"),
    [
        ({"Env": {"A": "v" * (128 * 1024 - 2)}}, {}, "Tasks[0]"),
        ({}, {"EnvironmentVariables": {"A": "ä" * (64 * 1024 - 1)}}, PARAMS + "EnvironmentVariables"),
        ({}, {"Parameters": ["a", "v" * (128 * 1024)]}, PARAMS + "Parameters[1]"),
    ],
)
def test_what_linux_gives_to_no_program_is_a_fault_of_a_docker_job(task, params, path):
    with pytest.raises(InvalidJob) as caught:
        spec({"Engine": {"Type": "docker", "Params": {"Image": "x", **params}}, **task})
    (fault,) = caught.value.faults
    assert (fault.path, "must have less than 131,072 bytes" in fault.problem) == (path, True)


@pytest.mark.parametrize(
    "change",
    [
        {"Count": 0},
        {"Count": 1001},
        {"Type": "daemon"},
        {"Type": "ops", "Count": 2},
        {"Tasks": []},
        {"Name": "n" * 300},
        {"Labels": {str(i): "" for i in range(300)}},
    ],
)
def test_a_job_from_a_peer_follows_the_same_rules(change):
    with pytest.raises(ValidationError):
        JobSpec.from_wire({**spec().to_wire(), **change})


@pytest.mark.parametrize(
    "change",
    [
        {"Engine": {"Type": "", "Params": {}}},
        {"InputSources": [{"Target": "a", "Source": {"Type": "x"}}]},
        {"InputSources": [{"Target": "/../etc", "Source": {"Type": "x"}}]},
        {"Resources": {"CPU": "-1"}},
        {"Timeouts": {"TotalTimeout": float("nan")}},
        {"Env": {"A=B": "x"}},
        {"ResultPaths": [{"Name": "../x", "Path": "/x"}]},
    ],
)
def test_a_task_from_a_peer_follows_the_same_rules(change):
    wire = spec().to_wire()
    with pytest.raises(ValidationError):
        JobSpec.from_wire({**wire, "Tasks": [{**wire["Tasks"][0], **change}]})


def test_types_from_a_peer_become_lower_case():
    wire = spec().to_wire()
    wire["Tasks"][0]["Engine"]["Type"] = " NoOp "
    assert JobSpec.from_wire(wire).task.engine == SpecConfig(type="noop")


def test_reading_and_writing_a_small_job_runs_little_python():
    source = {"Type": "ipfs", "Params": {"CID": "bafkqaaa"}}
    wire = spec({"InputSources": [{"Target": "/inputs", "Source": source}]}).to_wire()
    assert calls(lambda: JobSpec.from_wire(wire).to_wire()) < 60  # pydantic does the rest


def calls(action: Callable[[], object]) -> int:
    """How many functions of Python are called."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count
