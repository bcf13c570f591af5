"""What a node announces about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from bacalhau_p2p.model.base import Model, UnixSeconds
from bacalhau_p2p.model.fields import FEW, Line, Name, Value
from bacalhau_p2p.model.quantities import MAX_BYTES, MAX_CPU, MAX_GPU
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.model.wire_types import BoundedPeerID, PeerAddresses, clamped

MAX_NODE_INFO = 8 * 1024
"""Bytes of a node info in CBOR, with everything around it. Every node keeps those of all others."""

SHORTEST_INFO_INTERVAL = 15.0
"""Seconds from one info of a node to its next at most, in a network of a few nodes."""
LONGEST_INFO_INTERVAL = 3600.0
"""The same in a network of any size. Whatever an info claims counts as no more."""


def _within_limits(resources: Resources) -> Resources:
    """Amounts that no machine has count as the largest that one can have; negative ones count as none."""
    return Resources(
        cpu=min(max(resources.cpu, 0.0), MAX_CPU),
        memory=min(max(resources.memory, 0), MAX_BYTES),
        disk=min(max(resources.disk, 0), MAX_BYTES),
        gpu=min(max(resources.gpu, 0), MAX_GPU),
    )


_Capacity = Annotated[Resources, AfterValidator(_within_limits)]
_Names = Annotated[tuple[Name, ...], FEW]


class NodeLoad(Model):
    """How busy a node is at the moment."""

    available_capacity: _Capacity = Resources()
    running_executions: Annotated[int, clamped(0, 2**31 - 1)] = 0


class ComputeInfo(NodeLoad):
    """What the compute component of a node offers, and how busy it was when it said so."""

    engines: _Names = ()
    storage_sources: _Names = ()
    publishers: _Names = ()
    networks: _Names = ()
    """The networks, beside `None`, that jobs on it may have: `HTTP`, `Full`."""
    max_capacity: _Capacity = Resources()

    def with_load(self, load: NodeLoad) -> ComputeInfo:
        """The same offer of a node that is as busy as this."""
        return self.replace(
            available_capacity=load.available_capacity, running_executions=load.running_executions
        )


class NodeInfo(Model):
    """The announcement of a node. `addresses` are multiaddrs that end in `/p2p/<its peer id>`."""

    id: BoundedPeerID
    addresses: PeerAddresses = ()
    version: Line = ""
    labels: Annotated[Mapping[Name, Value], FEW] = Field(default_factory=dict)
    requester: bool = False
    compute: ComputeInfo | None = None
    dht: bool = False
    """Whether it serves the DHT."""
    gateway: Value = ""
    """URL of its public gateway (`<URL>/ipfs/<CID>`); empty if it has none."""
    interval: Annotated[float, clamped(SHORTEST_INFO_INTERVAL, LONGEST_INFO_INTERVAL)] = (
        SHORTEST_INFO_INTERVAL
    )
    """Seconds until its next info at most. After three times as long without one the node is stale."""
    leaving: bool = False
    """The node is about to stop."""
    sent: UnixSeconds = 0
