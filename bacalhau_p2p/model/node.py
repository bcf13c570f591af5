"""What a node tells others about itself."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from bacalhau_p2p.model.base import OpenModel, PeerID, UnixSeconds
from bacalhau_p2p.model.resources import Resources


class ComputeInfo(OpenModel):
    """What a compute component offers now."""

    engines: tuple[str, ...] = ()
    storage_sources: tuple[str, ...] = ()
    publishers: tuple[str, ...] = ()
    max_capacity: Resources = Resources()
    available_capacity: Resources = Resources()
    running_executions: int = 0


class NodeInfo(OpenModel):
    """A node as it announces itself. `addresses` are multiaddrs that end in its `/p2p/` part."""

    id: PeerID
    addresses: tuple[str, ...] = ()
    version: str = ""
    labels: Mapping[str, str] = Field(default_factory=dict)
    requester: bool = False
    compute: ComputeInfo | None = None
    dht: bool = False
    """Whether it answers questions of the DHT."""
    gateway: str = ""
    """URL below which `/ipfs/` gives anybody what it has; empty when there is none."""
    sent: UnixSeconds = 0
