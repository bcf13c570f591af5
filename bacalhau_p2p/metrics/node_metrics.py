"""All metrics of one node, as text for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from bacalhau_p2p.metrics.collector import NodeCollector
from bacalhau_p2p.metrics.families import PREFIX
from bacalhau_p2p.metrics.progress import Progress
from bacalhau_p2p.node import Node

CONTENT_TYPE = CONTENT_TYPE_LATEST
LOOP_PASSES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Upper bounds in seconds of the buckets of passes of the event loop."""


class NodeMetrics:
    """Measures a node from now on. Each node has a registry of its own: a process may run several."""

    def __init__(self, node: Node, api_counters: Mapping[str, int]) -> None:
        """`api_counters` are those of the server."""
        self.registry = CollectorRegistry()
        progress = Progress(self.registry)
        node.watch_records(progress.count)
        passes = Histogram(
            PREFIX + "event_loop_pass_seconds",
            "Passes of the event loop of more than 5 ms: everything else waits that long",
            registry=self.registry,
            buckets=LOOP_PASSES,
        )
        node.watch_slow_passes(passes.observe)
        self.registry.register(NodeCollector(node, api_counters))
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """What `GET /metrics` responds with."""
        return generate_latest(_WithoutCreated(self.registry))


class _WithoutCreated(CollectorRegistry):
    """Leaves out when each counter began: that is when the process started."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._all = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._all.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
