"""Real processes are killed: no job is lost or hangs, and a run that survives is not repeated."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from bacalhau_p2p.executors.docker.container_config import JOB_LABEL
from tests.support.networks.named_nodes import Nodes
from tests.support.networks.networks import Network
from tests.support.programs.wasm_programs import PROBE
from tests.support.waiting import eventually

pytestmark = pytest.mark.network


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    nodes = Nodes(tmp_path)
    yield nodes
    for node in reversed(nodes.by_name.values()):
        node.stop()


def run_container(network: Network, script: str) -> str:
    """Submit a job that writes the id of its container to stdout and to a file; returns the id of the job."""
    command = f"hostname; hostname >> /outputs/ran; {script}"
    ran = network.cli(
        *("docker", "run", "--id-only", "-o", "outputs:/outputs", "busybox:latest", "--", "sh", "-c", command)
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def containers(client: docker.DockerClient, job_id: str) -> list[Any]:
    return client.containers.list(all=True, filters={"label": f"{JOB_LABEL}={job_id}"}, ignore_removed=True)


def running(client: docker.DockerClient, job_id: str) -> Any:
    """The container of the job once its command has started."""
    found = containers(client, job_id)
    return found[0] if found and found[0].logs() else None


def with_container(
    nodes: Nodes, client: docker.DockerClient, script: str, *names: str
) -> tuple[Network, str, Any]:
    """A requester, compute nodes with these names, and a job whose container runs on one of them."""
    network = nodes.requester()
    for name in names:
        nodes.compute(name, "docker")
    network.wait_for_compute_nodes(len(names))
    job_id = run_container(network, script)
    return network, job_id, eventually(lambda: running(client, job_id))


def starts(client: docker.DockerClient, job_id: str, since: float) -> list[str]:
    """The containers that were started for this job, by any node."""
    filters = {"label": f"{JOB_LABEL}={job_id}", "event": "start"}
    seen = client.events(since=int(since), until=int(time.time()) + 1, filters=filters, decode=True)
    return [event["Actor"]["ID"] for event in seen]


def accepted(executions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The executions whose bid was accepted."""
    return [e for e in executions if e["ComputeState"]["State"] != "BidRejected"]


def completed(network: Network, job_id: str, folder: Path) -> tuple[str, str]:
    """What a job wrote to stdout and to its output folder. It must have had only one execution."""
    job, executions = network.job(job_id, wait=90)
    assert job["State"]["StateType"] == "Completed", job["State"]
    assert len(accepted(executions)) == 1, executions
    assert network.cli("get", "--output-dir", folder, job_id).returncode == 0
    return (folder / "stdout").read_text(), (folder / "outputs" / "ran").read_text()


@pytest.mark.docker
def test_a_container_that_survives_its_killed_node_gives_the_result(nodes, docker_client, tmp_path):
    network, job_id, container = with_container(nodes, docker_client, "sleep 6; echo done", "compute")
    nodes.kill("compute")
    nodes.start("compute")
    hostname = container.id[:12]
    assert completed(network, job_id, tmp_path / "fetched") == (f"{hostname}\ndone\n", f"{hostname}\n")
    eventually(lambda: containers(docker_client, job_id) == [])


@pytest.mark.docker
def test_other_nodes_do_not_repeat_the_run_of_a_container_that_survives_its_killed_node(
    nodes, docker_client, tmp_path
):
    began = time.time()
    names = ("first", "second", "third")
    network, job_id, container = with_container(nodes, docker_client, "sleep 10; echo done", *names)
    (execution,) = accepted(network.job(job_id)[1])
    (runner,) = (name for name, node in nodes.by_name.items() if node.peer_id == execution["NodeID"])
    nodes.kill(runner)
    # By now an execution that ends with its node would be lost, and another node would run the job.
    eventually(lambda: "continues without it" in network.job(job_id)[0]["State"]["Message"])
    assert [e["ID"] for e in accepted(network.job(job_id)[1])] == [execution["ID"]]
    nodes.start(runner)
    hostname = container.id[:12]
    assert completed(network, job_id, tmp_path / "fetched") == (f"{hostname}\ndone\n", f"{hostname}\n")
    assert starts(docker_client, job_id, began) == [container.id]
    eventually(lambda: containers(docker_client, job_id) == [])


@pytest.mark.docker
def test_a_container_that_ends_while_its_node_is_down_gives_the_result(nodes, docker_client, tmp_path):
    network, job_id, container = with_container(nodes, docker_client, "sleep 2; echo done", "compute")
    nodes.kill("compute")
    assert container.wait()["StatusCode"] == 0
    # By now the requester knows that the node is down. No other node could have run the job.
    eventually(lambda: "is unreachable" in described_message(network, job_id))
    nodes.start("compute")
    hostname = container.id[:12]
    assert completed(network, job_id, tmp_path / "fetched") == (f"{hostname}\ndone\n", f"{hostname}\n")
    eventually(lambda: containers(docker_client, job_id) == [])


@pytest.mark.docker
def test_a_container_that_disappeared_with_its_node_is_started_again(nodes, docker_client, tmp_path):
    network, job_id, container = with_container(nodes, docker_client, "sleep 2; echo done", "compute")
    nodes.kill("compute")
    container.remove(force=True)
    nodes.start("compute")
    stdout, ran = completed(network, job_id, tmp_path / "fetched")
    assert re.fullmatch(r"[0-9a-f]{12}\ndone\n", stdout)
    assert not stdout.startswith(container.id[:12])
    assert stdout.startswith(ran)


@pytest.mark.docker
def test_a_node_that_is_stopped_leaves_no_container(nodes, docker_client):
    network = nodes.requester()
    node = nodes.compute("compute", "docker")
    network.wait_for_compute_nodes(1)
    job_id = run_container(network, "sleep 3600")
    eventually(lambda: running(docker_client, job_id))
    node.process.terminate()
    node.process.send_signal(signal.SIGINT)  # of two equal signals the second may be lost in the first
    node.process.wait(40)
    eventually(lambda: containers(docker_client, job_id) == [])


@pytest.mark.docker
def test_a_restarted_requester_completes_the_job_that_it_had_just_accepted(nodes, docker_client, tmp_path):
    network = nodes.requester()
    nodes.compute("compute", "docker")
    network.wait_for_compute_nodes(1)
    job_id = run_container(network, "echo done")
    nodes.kill("requester")
    network = nodes.start("requester").network
    job, _ = network.job(job_id, wait=90)
    assert job["State"]["StateType"] == "Completed", job["State"]
    eventually(lambda: containers(docker_client, job_id) == [])


def described_message(network: Network, job_id: str) -> str:
    """The message of a job, as `describe` shows it."""
    return str(yaml.safe_load(network.cli("describe", job_id).stdout)["Job"]["State"].get("Message", ""))


def test_describe_says_that_all_nodes_are_down_and_a_new_one_completes_the_jobs(nodes, tmp_path):
    network = nodes.requester()
    names = ("first", "second", "third")
    for name in names:
        nodes.compute(name, "wasm")
    network.wait_for_compute_nodes(3)
    ran = network.cli("wasm", "run", "--id-only", PROBE, "--", "doze", 6)
    begun = ran.stdout.strip()
    eventually(lambda: any(e["ComputeState"]["State"] == "BidAccepted" for e in network.job(begun)[1]))
    nodes.kill(*names)
    eventually(lambda: "is unreachable" in described_message(network, begun))
    submitted = network.cli("wasm", "run", "--id-only", PROBE, "--", "say", "hello", "").stdout.strip()

    def waits() -> str:
        state = network.job(submitted)[0]["State"]
        return str(state["Message"]) if state["StateType"] == "Queued" else ""

    assert re.fullmatch(r"waiting for a node: .*(is unreachable|did not answer).*", eventually(waits))
    nodes.compute("newcomer", "wasm")
    for job_id in (begun, submitted):
        job, executions = network.job(job_id, wait=90)
        assert job["State"]["StateType"] == "Completed", json.dumps(executions)
