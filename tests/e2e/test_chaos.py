"""The short form of scripts/chaos: a real network whose processes are killed all the time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from networks import REPOSITORY

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("network")]


def test_half_a_minute_of_chaos_loses_nothing_and_leaves_nothing():
    ran = subprocess.run(
        [
            *(sys.executable, REPOSITORY / "scripts" / "lib" / "chaos", "--json", "--seed", "1"),
            *("--minutes", "0.5", "--jobs", "22", "--kills", "5", "--compute-nodes", "3"),
        ],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.returncode in (0, 1), ran.stderr
    figures = json.loads(ran.stdout)
    assert figures["kills"] >= 5
    assert figures["submitted"] >= 20
    assert figures["passed"], json.dumps(figures, indent=1)
    assert figures["results correct"] == figures["states"]["Completed"]
