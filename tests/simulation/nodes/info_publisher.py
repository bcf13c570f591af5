"""Tells everybody what a simulated node is and has, as the real exchange of node infos does."""

from __future__ import annotations

from collections.abc import Callable

from bacalhau_p2p.bprotocol.messages import NodeInfoPublished
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.node.info_exchange import MIN_PUBLISH_INTERVAL
from bacalhau_p2p.node.info_pace import next_pause
from tests.simulation.nodes.messaging import Messaging
from tests.simulation.nodes.process import Process


class InfoPublisher:
    """Publishes at intervals, and soon after a peer has connected."""

    def __init__(
        self,
        process: Process,
        messaging: Messaging,
        info: Callable[[], NodeInfo],
        random: Callable[[], float],
    ) -> None:
        self._process = process
        self._messaging = messaging
        self._info = info
        self._random = random
        self._published_at = 0.0
        self._version = 0
        """Counts what was scheduled: only the latest is carried out."""

    def publish(self) -> None:
        now = self._process.timeline.now
        self._published_at = now
        info = self._info()
        self._messaging.broadcast(NodeInfoPublished(info=info))
        self._schedule(now + next_pause(info.interval, self._random()))

    def publish_soon(self) -> None:
        """But no more than once a second."""
        self._schedule(max(self._process.timeline.now, self._published_at + MIN_PUBLISH_INTERVAL))

    def _schedule(self, when: float) -> None:
        self._version += 1
        version = self._version
        self._process.at(when, lambda: self.publish() if version == self._version else None)
