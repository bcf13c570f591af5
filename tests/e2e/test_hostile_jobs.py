"""A node in a process of its own, and jobs that are made to end it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.support.networks.networks import Node

pytestmark = [pytest.mark.network, pytest.mark.docker]

JOBS = "/api/v1/orchestrator/jobs"
NESTED = "cd /outputs; i=0; while [ $i -lt 1500 ]; do mkdir d && cd -P d || break; i=$((i+1)); done"


@pytest.fixture
def node(tmp_path: Path, docker_client: docker.DockerClient) -> Iterator[Node]:
    node = Node(tmp_path / "node", "--engine", "noop", "--engine", "docker")
    yield node
    node.stop()


def docker_job(script: str, **params: Any) -> dict[str, Any]:
    engine = {"Image": "busybox:latest", "Entrypoint": ["sh", "-c"], "Parameters": [script], **params}
    return {
        "Engine": {"Type": "docker", "Params": engine},
        "ResultPaths": [{"Name": "outputs", "Path": "/outputs"}],
        "Resources": {"Disk": "10mb"},
        "Timeouts": {"QueueTimeout": 2},
    }


def submit(node: Node, task: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    connection = HTTPConnection("127.0.0.1", node.network.port, timeout=60)
    try:
        connection.request("PUT", JOBS, json.dumps({"Tasks": [task]}).encode())
        answer = connection.getresponse()
        return answer.status, json.load(answer)
    finally:
        connection.close()


def outcome(node: Node, task: dict[str, Any]) -> str:
    """Why the job was refused or failed; its state if it did not."""
    status, answer = submit(node, task)
    if status != 200:
        return str(answer["Error"])
    state = node.network.job(answer["JobID"], wait=60)[0]["State"]
    return str(state["Message"] if state["StateType"] == "Failed" else state["StateType"])


def url_job(url: str) -> dict[str, Any]:
    source = {"Target": "/in", "Source": {"Type": "url", "Params": {"URL": url}}}
    return {"Engine": {"Type": "noop"}, "InputSources": [source]}


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (url_job("http://xn--a/"), "is not a URL"),
        (url_job("http://xn--ls8h.la/x"), "is not a URL"),
        (docker_job(NESTED), "nested more than 200 deep"),
        (docker_job("truncate -s 3G /outputs/x"), "takes more than the 10000000 bytes"),
        (docker_job("", Image="../containers/json?x="), "'../containers/json?x=' is not an image name"),
        (docker_job("", Image="127.0.0.1:9/admin/panel"), "not among the registries of this node"),
    ],
    ids=["IDNA", "IDNA of unknown characters", "folders", "hole", "image of a path", "image of loopback"],
)
def test_a_hostile_job_fails_alone_and_the_node_starts_again(
    node: Node, tmp_path: Path, task: dict[str, Any], reason: str
) -> None:
    assert reason in outcome(node, task)
    assert outcome(node, {"Engine": {"Type": "noop"}}) == "Completed"
    assert node.process.poll() is None
    node.process.kill()
    node.process.communicate()
    again = Node(tmp_path / "node", "--engine", "noop")
    try:
        assert outcome(again, {"Engine": {"Type": "noop"}}) == "Completed"
    finally:
        again.stop()
