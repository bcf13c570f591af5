"""What adapters can use of their node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.quantities import parse_bytes
from bacalhau_p2p.settings import Settings

if TYPE_CHECKING:
    from bacalhau_p2p.outbound.s3.access import S3Access
    from bacalhau_p2p.storage.fetching.fetcher import Fetcher
    from bacalhau_p2p.storage.fetching.input_cache import InputCache


@dataclass(frozen=True, kw_only=True)
class AdapterContext:
    """What adapters may use of their node. The callables return what holds at that time: addresses change."""

    settings: Settings
    peer_id: PeerID
    folder: Path
    """The node's data directory. An adapter that stores files creates a folder of its own in it."""
    content: Content
    addresses: Callable[[], Sequence[str]]
    connect: Callable[[str], Awaitable[PeerID]]
    """Connects to the peer at a multiaddr that ends in `/p2p/<peer id>`. Raises PeerUnreachable."""
    api_url: Callable[[], str]
    """`http://host:port` of this node's API; empty while no API serves it."""

    @cached_property
    def fetcher(self) -> Fetcher:
        """Downloads inputs from the web. All storage providers share its cache and its threads."""
        from bacalhau_p2p.runtime.threads import Threads
        from bacalhau_p2p.storage.fetching.fetcher import Fetcher, FetchLimits

        limits = FetchLimits(bytes=parse_bytes(self.settings.input_limit))
        return Fetcher(self.input_cache, limits, Threads(4))

    @cached_property
    def input_cache(self) -> InputCache:
        """Inputs that executions share. All storage providers share it."""
        from bacalhau_p2p.storage.fetching.input_cache import InputCache

        return InputCache(self.folder / "inputs", budget=parse_bytes(self.settings.input_cache))

    @cached_property
    def s3(self) -> S3Access:
        from bacalhau_p2p.outbound.s3.access import S3Access

        return S3Access(endpoints=self.settings.s3_endpoints, buckets=self.settings.s3_buckets)
