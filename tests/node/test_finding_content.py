"""Whole nodes over libp2p find content, and each other, beyond the peers in their settings."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from bacalhau_p2p.api.server import serve_api
from bacalhau_p2p.errors import ContentNotFound
from bacalhau_p2p.ipfs.exchange.wire import PROTOCOL as CAR_PROTOCOL
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.node import Node, content_assembly, open_node
from bacalhau_p2p.settings import Settings
from tests.support.waiting import until

pytestmark = pytest.mark.network


def chosen(folder: Path, **options: object) -> Settings:
    return Settings(
        data_dir=folder,
        swarm_host="127.0.0.1",
        swarm_port=0,
        api_port=0,
        engines=("noop",),
        **{"neighbours": 0, **options},
    )


@asynccontextmanager
async def opened(tmp_path: Path, *options: dict[str, object]):
    """Nodes whose settings name only the first one as a peer."""
    nodes: list[Node] = []
    async with AsyncExitStack() as stack:
        for number, option in enumerate(options):
            peers = nodes[0].addresses[:1] if nodes else ()
            settings = chosen(tmp_path / f"node-{number}", peers=peers, **option)
            nodes.append(await stack.enter_async_context(open_node(settings)))
        yield nodes


def all_know_each_other(nodes: list[Node]) -> bool:
    return all(len(node.known_nodes()) == len(nodes) for node in nodes)


def info(node: Node, other: Node) -> NodeInfo | None:
    """What `node` knows of the other one."""
    return next((known.info for known in node.known_nodes() if known.info.id == other.peer_id), None)


def records(node: Node) -> Any:
    """Which providers the node stores for the DHT."""
    return node._networking.dht.records


async def test_content_that_no_connected_peer_has_is_found_through_the_dht(tmp_path, monkeypatch):
    monkeypatch.setattr(content_assembly, "MAX_PEERS_ASKED", 1)
    async with opened(tmp_path, {}, {}, {"dht": "client"}) as (hub, giver, taker):
        (tmp_path / "file").write_bytes(b"only the second has this")
        cid = await giver.add(tmp_path / "file")
        await until(lambda: len(records(hub)) == 1 and taker.transport.peers)
        assert list(taker.transport.peers) == [hub.peer_id]
        await taker.export(str(cid), tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == b"only the second has this"
        with pytest.raises(ContentNotFound, match=r"asked 1 peer; DHT lookup \(2 nodes\) found no other"):
            await taker.export(str(CID.of(RAW, b"nowhere")), tmp_path / "none")


async def test_published_results_are_announced_but_inputs_are_not(tmp_path):
    async with opened(tmp_path, {"compute": False}, {}) as nodes:
        requester, compute = nodes
        await until(lambda: all_know_each_other(nodes))
        task = {"Engine": {"Type": "noop", "Params": {"Stdout": "x"}}, "Publisher": {"Type": "ipfs"}}
        job = await requester.submit({"Tasks": [task]})
        result = await job.wait_result()
        await until(lambda: records(requester))
        key = result.cid.binary[-34:] if isinstance(result.cid, CID) else CID.parse(result.cid).binary[-34:]
        providers = records(requester).get(key, requester.clock())
        assert [provider.peer for provider in providers] == [compute.peer_id]
        assert len(records(requester)) == 1


async def test_nodes_without_a_dht_announce_that_and_work(tmp_path):
    async with opened(tmp_path, {"dht": "off"}, {"dht": "client"}) as (first, second):
        await until(lambda: all_know_each_other([first, second]))
        assert not first.info().dht
        assert not second.info().dht
        (tmp_path / "file").write_bytes(b"x")
        cid = await first.add(tmp_path / "file")
        await second.export(str(cid), tmp_path / "copy")
        with pytest.raises(ContentNotFound, match=r"asked 1 peer$"):
            await first.export(str(CID.of(RAW, b"nowhere")), tmp_path / "none")


async def test_nodes_connect_to_each_other_when_their_only_peer_is_gone(tmp_path):
    options = {"neighbours": 1, "dht": "off"}
    async with opened(tmp_path, {"compute": False}, options, options) as (hub, one, other):
        await until(lambda: all_know_each_other([hub, one, other]))
        assert list(one.transport.peers) == list(other.transport.peers) == [hub.peer_id]
        for node in (one, other):
            await hub.transport.ban(node.peer_id)  # for them, it is gone
        await until(lambda: [*one.transport.peers, *other.transport.peers] == [other.peer_id, one.peer_id])
        job = await one.submit({"Count": 2, "Tasks": [{"Engine": {"Type": "noop"}}]})
        await job.wait_result(20)


async def live(settings: Settings, end: trio.Event, task_status=trio.TASK_STATUS_IGNORED) -> None:
    async with open_node(settings) as node:
        task_status.started(node)
        await end.wait()


async def test_a_restarted_node_connects_to_a_neighbour_if_its_peer_is_gone(tmp_path, nursery):
    end = trio.Event()
    hub = await nursery.start(live, chosen(tmp_path / "hub", compute=False), end)
    known = {"peers": hub.addresses[:1], "dht": "off"}
    settings = chosen(tmp_path / "other", neighbours=1, **known)
    async with open_node(chosen(tmp_path / "one", **known)) as one:
        async with open_node(settings) as other:
            await until(lambda: all_know_each_other([hub, one, other]))
            assert list(other.transport.peers) == [hub.peer_id]
        end.set()
        await until(lambda: not one.transport.peers)
        async with open_node(settings) as other:
            await until(lambda: list(other.transport.peers) == [one.peer_id])
            await until(lambda: info(other, one))
    assert (tmp_path / "other" / "neighbours.json").exists()
    assert not (tmp_path / "one" / "neighbours.json").exists()


async def refuse(peer: object, stream: trio.abc.HalfCloseableStream) -> None:
    raise trio.BrokenResourceError("refused")


async def test_content_is_fetched_from_the_gateway_of_a_peer_that_refuses_streams(tmp_path):
    public = {"gateway": True, "compute": False}
    loopback = {"allow_private_networks": ("127.0.0.0/8",)}
    async with opened(tmp_path, public, loopback, {}) as nodes, serve_api(nodes[0]) as url:
        giver, taker, careful = nodes
        await until(lambda: all_know_each_other(nodes))
        object.__setattr__(giver.settings, "gateway_url", url)
        giver._networking.info_exchange.publish_soon()
        for protocol in (CAR_PROTOCOL, "/ipfs/bitswap/1.2.0"):
            giver.transport.handle_streams(protocol, refuse)
        folder = tmp_path / "folder"
        folder.mkdir()
        for number in range(30):
            (folder / f"{number}").write_bytes(b"%d" % number * 100_000)
        cid = await giver.add(folder)
        for node in (taker, careful):
            await until(lambda node=node: info(node, giver).gateway == url)
        with pytest.raises(ContentNotFound, match=rf"gateway {url}: 127\.0\.0\.1 is not a public"):
            await careful.export(str(cid), tmp_path / "none")
        await taker.export(str(cid), tmp_path / "copy")
        assert (tmp_path / "copy" / "7").read_bytes() == b"7" * 100_000
        nowhere = str(CID.of(RAW, b"nowhere"))
        with pytest.raises(ContentNotFound, match=r"asked 2 peers \(.*; gateway .*: 404 Not Found"):
            await taker.export(nowhere, tmp_path / "none")
