"""The commands of the tutorial, run one after the other as it has them."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.support.networks.networks import BIN, REPOSITORY, devstack

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("network")]


def commands() -> list[str]:
    page = (REPOSITORY / "docs" / "tutorial.md").read_text()
    blocks = re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


def test_every_command_of_the_tutorial_works_and_the_result_is_right(tmp_path):
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    steps = commands()
    assert len(steps) > 15
    script = "set -euo pipefail\n" + "\n".join(f"echo '+ step {n}'\n{step}" for n, step in enumerate(steps))
    with devstack("--compute-nodes", "3", "--engine", "wasm", folder=tmp_path) as (network, _):
        network.wait_for_compute_nodes(3)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={
                **os.environ,
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "BACALHAU_P2P_API_HOST": "127.0.0.1",
                "BACALHAU_P2P_API_PORT": str(network.port),
            },
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "3/3" in done.stdout
    counted = (tmp_path / "counted" / "stdout").read_text()
    assert re.search(r"^ +2 +12 +49 +total$", counted, re.MULTILINE), counted
    assert (tmp_path / "copies").exists()
