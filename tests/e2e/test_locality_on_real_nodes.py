"""Jobs run where their data is: real processes over libp2p."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.support.networks.forked_commands import COMMAND
from tests.support.networks.networks import Network, Node, network_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.network

SIZE = 3_000_000


@contextmanager
def three_nodes(folder: Path, locality: str) -> Iterator[tuple[Network, list[Node]]]:
    program = (COMMAND, "serve", "--engine", "noop", "--job-selection-data-locality", locality)
    with network_of(folder, [program] * 3) as (network, nodes):
        yield network, nodes


@pytest.fixture
def data(tmp_path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


def write_job(folder: Path, cid: str) -> Path:
    source = {"Target": "/inputs", "Source": {"Type": "ipfs", "Params": {"CID": cid}}}
    path = folder / f"{cid[-8:]}.yaml"
    path.write_text(yaml.safe_dump({"Tasks": [{"Engine": {"Type": "noop"}, "InputSources": [source]}]}))
    return path


def test_with_local_data_only_the_node_that_has_the_data_runs_the_job(tmp_path, data):
    with three_nodes(tmp_path, "local") as (network, nodes):
        cid = nodes[1].network.cli("add", data).stdout.strip()
        ran = network.cli("job", "run", "--id-only", "--wait", write_job(tmp_path, cid))
        assert (ran.returncode, ran.stderr) == (0, "")
        job, executions = network.job(ran.stdout.strip())
        assert [execution["NodeID"] for execution in executions] == [nodes[1].peer_id]
        assert (executions[0]["InputBytes"], executions[0]["LocalInputBytes"]) == (SIZE, SIZE)
        shown = yaml.safe_load(network.cli("describe", job["ID"]).stdout)
        assert shown["Executions"][0]["LocalInputBytes"] == SIZE

        data.write_bytes(b"nobody else has this")
        absent = network.cli("add", data).stdout.strip()
        ran = network.cli("job", "run", "--id-only", write_job(tmp_path, absent))
        peers = ", ".join(sorted(node.peer_id[-8:] for node in nodes))
        reason = "runs only jobs whose inputs are local; /inputs is missing"
        eventually(lambda: message(network, ran.stdout.strip()) == f"waiting for a node: {peers}: {reason}")


def test_the_node_that_has_the_data_is_preferred(tmp_path, data):
    with three_nodes(tmp_path, "anywhere") as (network, nodes):
        cid = nodes[2].network.cli("add", data).stdout.strip()
        ran_on = set()
        for _ in range(3):
            ran = network.cli("job", "run", "--id-only", "--wait", write_job(tmp_path, cid))
            assert (ran.returncode, ran.stderr) == (0, "")
            _, executions = network.job(ran.stdout.strip())
            ran_on |= {e["NodeID"] for e in executions if e["ComputeState"]["State"] == "Completed"}
        assert ran_on == {nodes[2].peer_id}


def message(network: Network, job_id: str) -> str:
    """The message of a job, as `describe` shows it."""
    return str(yaml.safe_load(network.cli("describe", job_id).stdout)["Job"]["State"].get("Message", ""))
