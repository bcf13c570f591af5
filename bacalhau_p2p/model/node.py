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


class ComputeInfo(Model):
    """What the compute component of a node offers at the moment."""

    engines: _Names = ()
    storage_sources: _Names = ()
    publishers: _Names = ()
    max_capacity: _Capacity = Resources()
    available_capacity: _Capacity = Resources()
    running_executions: Annotated[int, clamped(0, 2**31 - 1)] = 0


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
    sent: UnixSeconds = 0
