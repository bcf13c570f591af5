"""The examples do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support.networks.forked_commands import COMMAND
from tests.support.networks.networks import REPOSITORY

EXAMPLES = REPOSITORY / "examples"


def run(*command: object, cwd=None) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=120,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.docker
@pytest.mark.network
@pytest.mark.usefixtures("docker_client")
def test_the_example_of_a_docker_job_works(tmp_path):
    example = EXAMPLES / "submit_docker.py"
    printed = run(COMMAND, "devstack", "--compute-nodes", 1, "--", sys.executable, example, cwd=tmp_path)
    assert "Hello from a container\n" in printed
    assert re.search(r"^ipfs://bafy\w+$", printed, re.MULTILINE)


def test_every_example_is_run_by_a_test():
    tests = "".join(path.read_text() for path in (REPOSITORY / "tests" / "e2e").glob("*.py"))
    other_examples = (EXAMPLES / "three_peers.py").read_text()
    for example in EXAMPLES.glob("*.py"):
        assert f'"{example.name}"' in tests + other_examples
