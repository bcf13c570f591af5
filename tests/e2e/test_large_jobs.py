"""Jobs with large specs on real nodes: they are announced by their outline, and fetched by who may bid."""

from __future__ import annotations

import json

import pytest

from tests.support.networks.networks import devstack

pytestmark = pytest.mark.network

COMPUTE_NODES = 4


def test_a_job_of_200_kb_runs_on_a_network_of_five_nodes(tmp_path):
    variables = {f"DATA{number}": str(number) * 50_000 for number in range(4)}
    job = {"Count": 3, "Tasks": [{"Engine": {"Type": "noop"}, "Env": variables}]}
    file = tmp_path / "job.json"
    file.write_text(json.dumps(job))
    with devstack("--engine", "noop", "--compute-nodes", str(COMPUTE_NODES), folder=tmp_path) as (network, _):
        network.wait_for_compute_nodes(COMPUTE_NODES)
        submitted = network.cli("create", "--id-only", file)
        assert (submitted.returncode, submitted.stderr) == (0, "")
        ended, executions = network.job(submitted.stdout.strip(), wait=30)
    assert ended["State"]["StateType"] == "Completed"
    ran = [each for each in executions if each["ComputeState"]["State"] == "Completed"]
    assert len({each["NodeID"] for each in ran}) == 3
    assert ended["Tasks"][0]["Env"] == variables
