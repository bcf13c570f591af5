"""What a node announces about itself."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from bacalhau_p2p.model.base import OpenModel, PeerID, UnixSeconds
from bacalhau_p2p.model.resources import Resources


class ComputeInfo(OpenModel):
    """What the compute component of a node offers at the moment."""

    engines: tuple[str, ...] = ()
    storage_sources: tuple[str, ...] = ()
    publishers: tuple[str, ...] = ()
    max_capacity: Resources = Resources()
    available_capacity: Resources = Resources()
    running_executions: int = 0


class NodeInfo(OpenModel):
    """The announcement of a node. `addresses` are multiaddrs that end in `/p2p/<its peer id>`."""

    id: PeerID
    addresses: tuple[str, ...] = ()
    version: str = ""
    labels: Mapping[str, str] = Field(default_factory=dict)
    requester: bool = False
    compute: ComputeInfo | None = None
    dht: bool = False
    """Whether it serves the DHT."""
    gateway: str = ""
    """URL of its public gateway (`<URL>/ipfs/<CID>`); empty if it has none."""
    sent: UnixSeconds = 0
