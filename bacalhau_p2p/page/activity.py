"""What a node did over the last minutes, for the charts of its page."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import trio

from bacalhau_p2p.model.base import Model, UnixSeconds
from bacalhau_p2p.model.execution import Job
from bacalhau_p2p.node import Node
from bacalhau_p2p.page.live import Changes

INTERVAL = 10.0
"""Seconds between two samples."""
SAMPLES = 180
"""Samples that are kept: those of half an hour."""


class Sample(NamedTuple):
    """What had happened since the start of the node."""

    time: UnixSeconds
    jobs: int
    """Jobs that had ended."""
    received: int
    """Bytes from peers."""
    sent: int


class Activity:
    """Counts what happens from now on. `run` takes the samples."""

    def __init__(self, node: Node) -> None:
        self.changes = Changes()
        """Of jobs and executions."""
        self.ended: Counter[str] = Counter()
        """Jobs that ended since the start of the node, by state."""
        self._node = node
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        node.watch_records(self._count)
        self._take()

    async def run(self) -> None:
        """Take a sample at intervals. Until cancelled."""
        while True:
            await trio.sleep(INTERVAL)
            self._take()

    def jobs_per_minute(self) -> list[float]:
        """For each interval, oldest first."""
        return self._rates(lambda sample: sample.jobs, 60.0)

    def bytes_per_second(self) -> list[float]:
        """From and to peers, for each interval, oldest first."""
        return self._rates(lambda sample: sample.received + sample.sent, 1.0)

    def _count(self, record: Model) -> None:
        if isinstance(record, Job) and record.state.terminal:
            self.ended[str(record.state)] += 1
        self.changes.note()

    def _take(self) -> None:
        traffic = self._node.transport.traffic
        now = self._node.clock()
        self._samples.append(Sample(now, self.ended.total(), traffic.received, traffic.sent))

    def _rates(self, total: Callable[[Sample], int], seconds: float) -> list[float]:
        samples = list(self._samples)
        return [
            max(0.0, (total(later) - total(earlier)) * seconds / max(later.time - earlier.time, 0.001))
            for earlier, later in pairwise(samples)
        ]
