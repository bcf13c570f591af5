"""Real processes that are killed: no job is lost, none hangs, and what ran once is not run again."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from bacalhau_p2p.executors.docker.executor import JOB_LABEL
from tests.support.networks.networks import REPOSITORY, Network, Node

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("network")]

PROBE = REPOSITORY / "tests" / "executors" / "wasm" / "probe.wasm"


class Lives:
    """Nodes by name, each with its folder and its port over all its lives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports: dict[str, str] = {}
        self._flags: dict[str, tuple[str, ...]] = {}
        self.nodes: dict[str, Node] = {}

    def start(self, name: str, *flags: str) -> Node:
        """Start a node, or start it again as it was."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = self._ports.setdefault(name, str(free.getsockname()[1]))
        flags = self._flags.setdefault(name, flags)
        node = self.nodes[name] = Node(self._folder / name, "--swarm-port", port, *flags)
        return node

    def requester(self) -> Network:
        return self.start("requester", "--no-compute").network

    def compute(self, name: str, *engines: str) -> Node:
        flags = [flag for engine in engines for flag in ("--engine", engine)]
        return self.start(name, "--no-requester", "--peer", self.nodes["requester"].address, *flags)

    def kill(self, *names: str) -> None:
        for name in names:
            self.nodes[name].process.kill()
        for name in names:
            self.nodes[name].process.communicate()


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    lives = Lives(tmp_path)
    yield lives
    for node in reversed(lives.nodes.values()):
        node.stop()


def eventually(condition: Callable[[], Any], seconds: float = 40) -> Any:
    """The first answer of the condition that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)
    return answer


def run_container(network: Network, script: str) -> str:
    """Submit a job that leaves its container's id in its output and in a file; gives its id."""
    command = f"hostname; hostname >> /outputs/ran; {script}"
    ran = network.cli(
        *("docker", "run", "--id-only", "-o", "outputs:/outputs", "busybox:latest", "--", "sh", "-c", command)
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def containers(client: docker.DockerClient, job_id: str) -> list[Any]:
    return client.containers.list(all=True, filters={"label": f"{JOB_LABEL}={job_id}"}, ignore_removed=True)


def running(client: docker.DockerClient, job_id: str) -> Any:
    """The one container of the job, once its command has begun."""
    found = containers(client, job_id)
    return found[0] if found and found[0].logs() else None


def with_container(
    lives: Lives, client: docker.DockerClient, script: str, *names: str
) -> tuple[Network, str, Any]:
    """A requester, compute nodes of these names, and a job of which one of them runs a container."""
    network = lives.requester()
    for name in names:
        lives.compute(name, "docker")
    network.wait_for_compute_nodes(len(names))
    job_id = run_container(network, script)
    return network, job_id, eventually(lambda: running(client, job_id))


def starts(client: docker.DockerClient, job_id: str, since: float) -> list[str]:
    """The container of every start that the engine has seen for this job, on whatever node."""
    filters = {"label": f"{JOB_LABEL}={job_id}", "event": "start"}
    seen = client.events(since=int(since), until=int(time.time()) + 1, filters=filters, decode=True)
    return [event["Actor"]["ID"] for event in seen]


def accepted(executions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that were more than a bid."""
    return [e for e in executions if e["ComputeState"]["StateType"] != "BidRejected"]


def completed(network: Network, job_id: str, folder: Path) -> tuple[str, str]:
    """What a job printed and left in its output folder; it must have had one execution."""
    job, executions = network.job(job_id, wait=90)
    assert job["State"]["StateType"] == "Completed", job["State"]
    assert len(accepted(executions)) == 1, executions
    assert network.cli("get", "--output-dir", folder, job_id).returncode == 0
    return (folder / "stdout").read_text(), (folder / "outputs" / "ran").read_text()


@pytest.mark.docker
def test_a_container_that_outlives_its_killed_node_gives_the_result(lives, docker_client, tmp_path):
    network, job_id, container = with_container(lives, docker_client, "sleep 6; echo done", "compute")
    lives.kill("compute")
    lives.start("compute")
    hostname = container.id[:12]
    assert completed(network, job_id, tmp_path / "fetched") == (f"{hostname}\ndone\n", f"{hostname}\n")
    assert containers(docker_client, job_id) == []


@pytest.mark.docker
def test_a_container_is_not_run_again_by_others_while_its_killed_node_is_started_again(
    lives, docker_client, tmp_path
):
    began = time.time()
    names = ("first", "second", "third")
    network, job_id, container = with_container(lives, docker_client, "sleep 10; echo done", *names)
    (execution,) = accepted(network.job(job_id)[1])
    (runner,) = (name for name, node in lives.nodes.items() if node.peer_id == execution["NodeID"])
    lives.kill(runner)
    # Longer than it takes to give up what dies with its node; the two others could run it now.
    eventually(lambda: "goes on without it" in network.job(job_id)[0]["State"]["Message"])
    assert [e["ID"] for e in accepted(network.job(job_id)[1])] == [execution["ID"]]
    lives.start(runner)
    hostname = container.id[:12]
    assert completed(network, job_id, tmp_path / "fetched") == (f"{hostname}\ndone\n", f"{hostname}\n")
    assert starts(docker_client, job_id, began) == [container.id]
    assert containers(docker_client, job_id) == []


@pytest.mark.docker
def test_a_container_that_ends_while_its_node_is_dead_gives_the_result(lives, docker_client, tmp_path):
    network, job_id, container = with_container(lives, docker_client, "sleep 2; echo done", "compute")
    lives.kill("compute")
    assert container.wait()["StatusCode"] == 0
    # Longer than it takes to miss the node: nobody else could have run the job.
    eventually(lambda: "cannot be reached" in network.cli("describe", job_id).stdout)
    lives.start("compute")
    hostname = container.id[:12]
    assert completed(network, job_id, tmp_path / "fetched") == (f"{hostname}\ndone\n", f"{hostname}\n")
    assert containers(docker_client, job_id) == []


@pytest.mark.docker
def test_a_container_that_vanished_with_its_node_is_run_afresh(lives, docker_client, tmp_path):
    network, job_id, container = with_container(lives, docker_client, "sleep 2; echo done", "compute")
    lives.kill("compute")
    container.remove(force=True)
    lives.start("compute")
    stdout, ran = completed(network, job_id, tmp_path / "fetched")
    assert re.fullmatch(r"[0-9a-f]{12}\ndone\n", stdout)
    assert not stdout.startswith(container.id[:12])
    assert stdout.startswith(ran)


@pytest.mark.docker
def test_a_node_stopped_in_order_leaves_no_container(lives, docker_client):
    network = lives.requester()
    node = lives.compute("compute", "docker")
    network.wait_for_compute_nodes(1)
    job_id = run_container(network, "sleep 3600")
    eventually(lambda: running(docker_client, job_id))
    node.process.terminate()
    node.process.terminate()
    eventually(lambda: node.process.poll() is not None)
    assert containers(docker_client, job_id) == []


@pytest.mark.docker
def test_a_requester_killed_as_it_answers_completes_the_job_when_it_is_back(lives, docker_client, tmp_path):
    network = lives.requester()
    lives.compute("compute", "docker")
    network.wait_for_compute_nodes(1)
    job_id = run_container(network, "echo done")
    lives.kill("requester")
    network = lives.start("requester").network
    job, _ = network.job(job_id, wait=90)
    assert job["State"]["StateType"] == "Completed", job["State"]
    eventually(lambda: containers(docker_client, job_id) == [])


def test_with_every_node_dead_describe_says_so_and_a_newcomer_completes_the_jobs(lives, tmp_path):
    network = lives.requester()
    names = ("first", "second", "third")
    for name in names:
        lives.compute(name, "wasm")
    network.wait_for_compute_nodes(3)
    ran = network.cli("wasm", "run", "--id-only", PROBE, "--", "doze", 6)
    begun = ran.stdout.strip()
    eventually(lambda: any(e["ComputeState"]["StateType"] == "BidAccepted" for e in network.job(begun)[1]))
    lives.kill(*names)
    eventually(lambda: "cannot be reached" in network.cli("describe", begun).stdout)
    submitted = network.cli("wasm", "run", "--id-only", PROBE, "--", "say", "hello", "").stdout.strip()

    def waits() -> str:
        state = network.job(submitted)[0]["State"]
        return str(state["Message"]) if state["StateType"] == "Queued" else ""

    assert re.fullmatch(r"waiting for a node: .*(cannot be reached|did not answer).*", eventually(waits))
    lives.compute("newcomer", "wasm")
    for job_id in (begun, submitted):
        job, executions = network.job(job_id, wait=90)
        assert job["State"]["StateType"] == "Completed", json.dumps(executions)
