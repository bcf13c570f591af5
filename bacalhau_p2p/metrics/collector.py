"""Reads a node's present state whenever somebody asks for its metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from bacalhau_p2p.metrics.families import counters, gauge, gauges
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.node import Node
from bacalhau_p2p.version import __version__


class NodeCollector(Collector):
    """The metrics that need no bookkeeping of their own. Use it in the node's event loop."""

    def __init__(self, node: Node, api_counters: Mapping[str, int]) -> None:
        self._node = node
        self._api_counters = api_counters

    def collect(self) -> Iterable[Metric]:
        yield gauges("build_info", "Version of this node", ["version"], {(__version__,): 1})
        yield from self._work()
        yield from self._network()
        yield from self._content()
        yield from self._faults()

    def _work(self) -> Iterable[Metric]:
        unfinished = self._node.unfinished
        for component, name, text in (
            ("Requester", "jobs", "Jobs of this requester that have not ended"),
            ("Compute", "compute_executions", "Executions on this compute node that have not ended"),
        ):
            yield gauges(name, text, ["state"], _keyed(unfinished.get(component, {})))
        compute = self._node.info().compute
        if compute is not None:
            text = "What this compute node gives to jobs: cores, bytes of memory and disk, GPUs"
            yield gauges("capacity_limit", text, ["resource"], _amounts(compute.max_capacity))
            text = "The part of it that no execution holds"
            yield gauges("capacity_available", text, ["resource"], _amounts(compute.available_capacity))

    def _network(self) -> Iterable[Metric]:
        node, messenger, transport = self._node, self._node.messenger, self._node.transport
        yield counters(
            "messages",
            "Messages of bprotocol: each broadcast counts once, each repeat again",
            ["direction", "kind"],
            {
                **{("sent", kind): count for kind, count in messenger.sent.items()},
                **{("received", kind): count for kind, count in messenger.received.items()},
            },
        )
        yield gauge("messages_in_flight", "Messages that are not acknowledged yet", messenger.in_flight)
        yield counters(
            "network_bytes",
            "Bytes of all connections to peers",
            ["direction"],
            {("sent",): transport.traffic.sent, ("received",): transport.traffic.received},
        )
        yield gauge("connected_peers", "Peers that are connected", len(transport.peers))
        nodes, now = node.known_nodes(), node.clock()
        fresh = sum(known.is_fresh(now) for known in nodes)
        yield gauges(
            "known_nodes",
            "Nodes that this one knows, itself included, and whether they were heard of lately",
            ["fresh"],
            {("true",): fresh, ("false",): len(nodes) - fresh},
        )
        cut_off = transport.budgets.cut_off_for()
        yield gauge("cut_off_peers", "Peers that are refused for exceeding their budgets", len(cut_off))

    def _content(self) -> Iterable[Metric]:
        content = self._node.content
        yield gauge("content_bytes", "Bytes of all blocks in the content store", content.used)
        if content.quota is not None:
            yield gauge("content_quota_bytes", "The most that the content store may hold", content.quota)

    def _faults(self) -> Iterable[Metric]:
        node = self._node
        survived = {**node.counters, **self._api_counters}
        yield counters(
            "faults", "Faults that this node has survived, by kind (docs/api.md)", ["kind"], _keyed(survived)
        )
        ignored = {name.lower(): counts.total() for name, counts in node.ignored_events.items()}
        yield counters("ignored_events", "Events that changed nothing", ["component"], _keyed(ignored))
        dropped = {name.lower(): counts.total() for name, counts in node.dropped_events.items()}
        text = "Events that raised an exception and were undone"
        yield counters("dropped_events", text, ["component"], _keyed(dropped))


def _keyed(values: Mapping[str, int]) -> dict[tuple[str, ...], float]:
    return {(key,): value for key, value in values.items()}


def _amounts(resources: Resources) -> dict[tuple[str, ...], float]:
    return {
        ("cpu",): resources.cpu,
        ("memory",): resources.memory,
        ("disk",): resources.disk,
        ("gpu",): resources.gpu,
    }
