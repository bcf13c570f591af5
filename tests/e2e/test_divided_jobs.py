"""Real nodes run ops jobs and divided jobs, and one of them is killed: nothing is lost or done twice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.networks.named_nodes import Nodes
from tests.support.programs.wasm_programs import PROBE
from tests.support.waiting import eventually

pytestmark = pytest.mark.network

WORDCOUNT = Path(__file__).parents[2] / "examples" / "wordcount" / "wordcount.wasm"
FILES = 200
ENDED = ("Completed", "Failed", "Stopped")
WAIT = 300.0
"""Seconds for anything, on the slowest machine."""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    nodes = Nodes(tmp_path)
    yield nodes
    for node in reversed(nodes.by_name.values()):
        node.stop()


def submit(network, folder: Path, job: dict) -> str:
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    ran = network.cli("job", "run", "--id-only", str(file))
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()[0]


def executions_on(network, job_id: str, node_id: str) -> list[str]:
    """The states of a node's executions that fill a place of the job."""
    _, executions = network.job(job_id)
    states = (each["ComputeState"]["State"] for each in executions if each["NodeID"] == node_id)
    return [state for state in states if state not in ("BidReceived", "BidRejected")]


def ended(network, job_id: str):
    job, executions = network.job(job_id)
    return (job, executions) if job["State"]["StateType"] in ENDED else None


def known_nodes(network) -> set[str]:
    return {each["Info"]["NodeID"] for each in network.get("/api/v1/orchestrator/nodes")["Nodes"]}


def added(network, path: Path) -> str:
    ran = network.cli("add", str(path))
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()[-1]


def test_every_file_of_a_divided_folder_is_processed_once_though_a_node_is_killed(nodes, tmp_path):
    network = nodes.requester()
    names = ("a", "b", "c")
    for name in names:
        nodes.compute(name, "wasm")
    network.wait_for_compute_nodes(3)
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(FILES):
        (texts / f"{number:04}.txt").write_text(f"file {number}\n")
    inputs = [
        {"Target": "/wc.wasm", "Source": {"Type": "ipfs", "Params": {"CID": added(network, WORDCOUNT)}}},
        {
            "Target": "/inputs",
            "Source": {
                "Type": "ipfs",
                "Params": {"CID": added(network, texts), "Partition": {"Type": "object"}},
            },
        },
    ]
    engine = {"Type": "wasm", "Params": {"EntryModule": "/wc.wasm", "Parameters": ["-n", "0", "/inputs"]}}
    job_id = submit(network, tmp_path, {"Count": 8, "Tasks": [{"Engine": engine, "InputSources": inputs}]})

    def at_work() -> list[str]:
        return [name for name in names if executions_on(network, job_id, nodes.by_name[name].peer_id)]

    killed = eventually(at_work, WAIT)[0]
    nodes.kill(killed)
    job, executions = eventually(lambda: ended(network, job_id), WAIT)
    assert job["State"]["StateType"] == "Completed", job["State"]
    completed = [each for each in executions if each["ComputeState"]["State"] == "Completed"]
    assert sorted(each["PartitionIndex"] for each in completed) == list(range(8))
    nodes.start(killed)  # it may have results
    ran = network.cli("get", job_id, "--output-dir", str(tmp_path / "results"))
    assert ran.returncode == 0, ran.stderr
    merged = tmp_path / "merged"
    ran = network.cli("get", "--merge", job_id, "--output-dir", str(merged))
    assert ran.returncode == 0, ran.stderr
    assert sorted(path.name for path in merged.iterdir()) == [f"partition-{index}" for index in range(8)]
    outputs = [path.read_text() for path in sorted((tmp_path / "results").glob("partition-*/stdout"))]
    assert len(outputs) == 8
    seen = Counter(word for text in outputs for word in text.split() if word.startswith("/inputs/"))
    assert seen == {f"/inputs/{number:04}.txt": 1 for number in range(FILES)}


def test_an_ops_job_runs_once_on_each_node_that_was_there_and_tells_of_the_one_that_died(nodes, tmp_path):
    network = nodes.requester()
    names = ("a", "b", "c", "d", "e")
    for name in names:
        nodes.compute(name, "wasm")
    network.wait_for_compute_nodes(5)
    there = {nodes.by_name[name].peer_id for name in names}
    inputs = [{"Target": "/probe.wasm", "Source": {"Type": "ipfs", "Params": {"CID": added(network, PROBE)}}}]
    engine = {"Type": "wasm", "Params": {"EntryModule": "/probe.wasm", "Parameters": ["doze", "10"]}}
    job_id = submit(network, tmp_path, {"Type": "ops", "Tasks": [{"Engine": engine, "InputSources": inputs}]})
    killed = nodes.by_name["c"].peer_id
    assert eventually(lambda: executions_on(network, job_id, killed), WAIT)
    nodes.kill("c")
    created = network.job(job_id)[0]["CreateTime"] / 1e9
    assert eventually(lambda: time.time() > created + 3, WAIT)  # those that answer until then are taken
    late = nodes.compute("late", "wasm").peer_id
    assert eventually(lambda: late in known_nodes(network), WAIT)
    job, executions = eventually(lambda: ended(network, job_id), WAIT)
    states = {each["NodeID"]: each["ComputeState"]["State"] for each in executions}
    assert states.keys() - {late} == there
    assert states.get(late, "BidRejected") == "BidRejected"
    assert {node for node in there if states[node] == "Completed"} == there - {killed}
    assert states[killed] == "Lost"
    assert job["State"]["StateType"] == "Failed"
    assert job["State"]["Message"] == (
        f"4 of 5 nodes gave a result; {killed[-8:]}: lost contact with node {killed[-8:]}"
    )
