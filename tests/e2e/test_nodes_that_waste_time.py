"""A node whose runs all fail, beside others: it is soon chosen last, and its requester says so."""

from __future__ import annotations

import sys
from itertools import count

import pytest

from tests.support.networks.forked_commands import COMMAND
from tests.support.networks.networks import FAILING, network_of

pytestmark = pytest.mark.network

HONEST = (COMMAND, "serve", "--engine", "noop")
BID_REJECTED = 8
"""Bacalhau's number of this state."""
MOST_JOBS = 100
"""In which a node among three gets three jobs."""


def test_a_node_whose_runs_fail_is_named_and_gets_no_more_jobs_that_others_take(tmp_path):
    broken = (sys.executable, str(FAILING), "serve", "--engine", "noop")
    with network_of(tmp_path, [broken, HONEST, HONEST]) as (network, nodes):
        failing = nodes[0].peer_id

        def chosen_last() -> bool:
            return failing in network.get("/api/v1/agent/node")["ChosenLast"]

        def nodes_of_a_job() -> list[str]:
            ran = network.cli("job", "run", "--id-only", "--wait", str(job))
            assert (ran.returncode, ran.stderr) == (0, "")
            _, executions = network.job(ran.stdout.strip())
            return [
                each["NodeID"] for each in executions if each["ComputeState"]["StateType"] != BID_REJECTED
            ]

        job = tmp_path / "job.yaml"
        job.write_text("Tasks: [{Engine: {Type: noop}}]")
        numbers = count(1)
        while not chosen_last():
            assert next(numbers) < MOST_JOBS
            nodes_of_a_job()
        assert f"node {failing} is chosen last for " in network.cli("node", "list").stderr
        for _ in range(3):
            ran_on = nodes_of_a_job()
            assert failing not in ran_on or not chosen_last()
