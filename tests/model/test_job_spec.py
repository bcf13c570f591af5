from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic import ValidationError

from bacalhau_p2p.model.engine_params import environment_of
from bacalhau_p2p.model.job import Deal, JobSpec, SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping


def spec(task: dict[str, Any] | None = None, **job: Any) -> JobSpec:
    return job_from_mapping({"Tasks": [{"Engine": {"Type": "noop"}, **(task or {})}], **job})


def test_defaults():
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
    ],
)
def test_timeouts_that_are_not_given_follow_from_those_that_are(timeouts, execution, queue, total):
    job = spec({"Timeouts": timeouts})
    assert (job.execution_timeout, job.queue_timeout, job.total_timeout) == (execution, queue, total)


def test_zero_cpu_and_memory_mean_the_default():
    job = spec({"Resources": {"CPU": "0", "Memory": "0", "Disk": "1gb", "GPU": 2}})
    assert (job.resources.cpu, job.resources.memory) == (0.1, 100_000_000)
    assert (job.resources.disk, job.resources.gpu) == (10**9, 2)


def test_resources_follow_a_changed_copy():
    job = spec({"Resources": {"CPU": "2"}})
    assert job.resources.cpu == 2
    task = job.task.replace(resources=job.task.resources.replace(cpu="3"))
    assert job.replace(tasks=(task,)).resources.cpu == 3


def test_deal_and_verifier():
    job = spec(Deal={"MinBids": 3}, Verifier={"Type": "Deterministic"})
    assert (job.min_bids, job.deterministic) == (3, True)
    assert job.replace(deal=Deal()).min_bids == 1


@pytest.mark.parametrize("network", ["full", "HOST", "bridge"])
def test_bacalhaus_other_names_for_a_network_mean_the_full_one(network):
    assert spec({"Network": {"Type": network}}).task.network.type == "Full"


def test_the_engines_environment_wins_over_the_tasks():
    engine = {"Type": "docker", "Params": {"Image": "x", "EnvironmentVariables": ["A=engine", "B=2"]}}
    task = spec({"Engine": engine, "Env": {"A": "task", "C": 3}}).task
    assert environment_of(task) == {"A": "engine", "B": "2", "C": "3"}
    assert environment_of(spec({"Env": {"A": "1"}}).task) == {"A": "1"}


@pytest.mark.parametrize(
    "change",
    [
        {"Count": 0},
        {"Count": 1001},
        {"Type": "ops"},
        {"Tasks": []},
        {"Name": "n" * 300},
        {"Labels": {str(i): "" for i in range(300)}},
        {"Unknown": 1},
    ],
)
def test_what_a_peer_sends_is_held_to_the_same_rules(change):
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
def test_what_a_peer_sends_in_a_task_is_held_to_the_same_rules(change):
    wire = spec().to_wire()
    with pytest.raises(ValidationError):
        JobSpec.from_wire({**wire, "Tasks": [{**wire["Tasks"][0], **change}]})


def test_type_names_of_a_peer_are_lower_case_too():
    wire = spec().to_wire()
    wire["Tasks"][0]["Engine"]["Type"] = " NoOp "
    assert JobSpec.from_wire(wire).task.engine == SpecConfig(type="noop")


def test_reading_and_writing_a_small_job_is_cheap():
    source = {"Type": "ipfs", "Params": {"CID": "bafy"}}
    wire = spec({"InputSources": [{"Target": "/inputs", "Source": source}]}).to_wire()
    best = min(_timed(wire) for _ in range(20))
    # About 60 us; the bound is generous for a busy machine, and far below a signature's cost.
    assert best < 500e-6


def _timed(wire: dict[str, Any]) -> float:
    start = time.perf_counter()
    JobSpec.from_wire(wire).to_wire()
    return time.perf_counter() - start
