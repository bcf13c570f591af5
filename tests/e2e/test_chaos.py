"""A short run of scripts/chaos: a real network whose processes are killed and disconnected all the time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.networks.networks import REPOSITORY

pytestmark = pytest.mark.network


@pytest.mark.parametrize(
    ("wires", "minutes", "jobs", "kills"),
    [([], 0.2, 10, 3), (["--proxies"], 0.15, 8, 2)],
    ids=["default", "proxies"],
)
def test_a_short_run_of_chaos_loses_no_job_and_leaves_nothing_behind(wires, minutes, jobs, kills):
    ran = subprocess.run(
        [
            *(sys.executable, REPOSITORY / "scripts" / "lib" / "chaos", "--json", "--seed", "1", *wires),
            *("--minutes", f"{minutes}", "--jobs", f"{jobs}", "--kills", f"{kills}", "--compute-nodes", "3"),
        ],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.returncode in (0, 1), ran.stderr
    assert ran.stdout, ran.stderr
    figures = json.loads(ran.stdout)
    assert figures["kills"] >= kills
    assert figures["submitted"] >= 0.8 * jobs
    assert figures["passed"], json.dumps(figures, indent=1)
    assert figures["results correct"] == figures["states"]["Completed"]
