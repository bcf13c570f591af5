"""Bacalhau's own Python client, unchanged, with a node: jobs are put, followed, read and stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.networks.networks import Network, devstack

pytest.importorskip("bacalhau_sdk", reason="scripts/setup --test installs it")
pytestmark = pytest.mark.network

PROGRAM = """
import json, time
from bacalhau_apiclient.api.orchestrator_api import OrchestratorApi
from bacalhau_apiclient.api_client import ApiClient
from bacalhau_apiclient.models import (
    ApiPutJobRequest, Job, LabelSelectorRequirement, ResourcesConfig, SpecConfig, Task, TimeoutConfig,
)
from bacalhau_sdk.config import init_config
from bacalhau_sdk.jobs import Jobs

def task(**params):
    return Task(
        name="main", engine=SpecConfig(type="noop", params=params), publisher=SpecConfig(),
        resources=ResourcesConfig(memory="4096Mb"), timeouts=TimeoutConfig(),
    )

def put(name, constraints=None, **params):
    job = Job(name=name, type="batch", count=1, labels={"a": "b"}, tasks=[task(**params)],
              constraints=constraints)
    return jobs.put(ApiPutJobRequest(job=job)).job_id

def state_of(job_id):
    state = jobs.get(job_id).job.state
    return state.state_type, state.message

jobs = Jobs()
job_id = put("hello", Stdout="hi\\n", Stderr="no\\n", ExitCode=3)
for _ in range(300):
    (execution, *others) = jobs.executions(job_id, limit=10).items or [None]
    if execution is not None and str(execution.compute_state.state_type) in ("9", "10", "11"):
        break
    time.sleep(0.1)
got = jobs.get(job_id, include="executions", limit=10)
output = execution.run_output
results = jobs.results(job_id).items
waiting = put("waits", [LabelSelectorRequirement(key="nowhere", operator="exists", values=[])])
nodes = OrchestratorApi(ApiClient(init_config())).orchestratorlist_nodes().nodes
print(json.dumps({
    "job": [got.job.id == job_id, got.job.name, got.job.state.state_type, got.job.labels],
    "included": [each.id for each in got.executions.items] == [execution.id],
    "execution": [execution.compute_state.state_type, execution.desired_state.state_type, execution.revision],
    "output": [output.stdout, output.stderr, output.exit_code, output.error_msg],
    "results": [[each.type, sorted(each.params)] for each in results],
    "history": sorted({each.type for each in jobs.history(job_id, event_type="execution").items}),
    "listed": [each.id for each in jobs.list(limit=5, order_by="created_at", reverse=True).items][::-1]
        == [job_id, waiting],
    "stopped": [bool(jobs.stop(waiting, reason="enough").evaluation_id), *state_of(waiting)],
    "nodes": sorted(node.info.node_type for node in nodes),
}))
"""


def asked(network: Network, folder: Path) -> dict[str, Any]:
    """What the program prints, which uses the client with its defaults."""
    environment = {
        **os.environ,
        "BACALHAU_API_HOST": "127.0.0.1",
        "BACALHAU_API_PORT": str(network.port),
        "BACALHAU_DIR": str(folder),
    }
    command = [sys.executable, "-c", PROGRAM]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    shown: dict[str, Any] = json.loads(ran.stdout)
    return shown


def test_the_client_of_bacalhau_in_python_works_unchanged(tmp_path):
    with devstack("--compute-nodes", "1", "--engine", "noop", folder=tmp_path) as (network, _):
        shown = asked(network, tmp_path)
    assert shown["job"] == [True, "hello", "Completed", {"a": "b"}]
    assert shown["included"]
    assert shown["execution"][:2] == [9, 2]
    assert shown["output"] == ["hi\n", "no\n", 3, ""]
    assert shown["results"] == [["urlDownload", ["CID", "Providers", "URL"]]]
    assert shown["history"] == ["ExecutionLevel"]
    assert shown["listed"]
    assert shown["stopped"] == [True, "Stopped", "enough"]
    assert shown["nodes"] == ["Compute", "Requester"]
