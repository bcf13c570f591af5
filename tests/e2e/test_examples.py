"""The examples, and the Python code in the README, do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support.networks.networks import COMMAND, REPOSITORY

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


@pytest.mark.docker
@pytest.mark.network
@pytest.mark.usefixtures("docker_client")
def test_the_python_code_in_the_readme_works_unchanged(tmp_path):
    (program,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    own_port = program.replace('"alice")', '"alice"), swarm_host="127.0.0.1", swarm_port=0')
    assert own_port != program
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("one two three\n")
    printed = run(sys.executable, "-c", own_port, cwd=tmp_path)
    assert re.fullmatch(r"0 b'3 /inputs/a\.txt\\n' bafy\w+\n", printed)
    assert (tmp_path / "results" / "stdout").read_text() == "3 /inputs/a.txt\n"


def test_every_example_is_run_by_a_test():
    tests = "".join(path.read_text() for path in (REPOSITORY / "tests" / "e2e").glob("*.py"))
    other_examples = (EXAMPLES / "three_peers.py").read_text()
    for example in EXAMPLES.glob("*.py"):
        assert f'"{example.name}"' in tests + other_examples
