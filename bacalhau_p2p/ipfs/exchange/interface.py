"""What a fetch uses of other parts of the node: streams, another protocol, the DHT and gateways."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from trio.abc import HalfCloseableStream

from bacalhau_p2p.ipfs.exchange.scheduler import Work
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import PeerID

OpenStream = Callable[[PeerID, str], Awaitable[HalfCloseableStream]]
"""Opens a stream of a protocol to a peer, and dials the peer if necessary. Raises PeerUnreachable."""

Receive = Callable[[], Awaitable[bytes]]
"""Returns the next bytes of a stream, b"" at its end."""

OnBytes = Callable[[int], None]
"""Is called with the number of bytes that arrived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeLimits:
    """Timeouts in seconds, and numbers of simultaneous requests."""

    find: float = 15.0
    """Until a fetch must have found a peer that has the content."""
    idle: float = 15.0
    """Without a byte, until a stream is given up. The duration of a whole transfer is not limited."""
    requests_per_peer: int = 8
    """Served to one peer; further ones are answered `busy`."""
    requests_to_peer: int = 4
    """Made to one peer, of each operation; further ones wait."""


class BlockFetch(Work, Protocol):
    """A fetch of some blocks by another protocol, and all below them."""

    @property
    def unavailable(self) -> Collection[CID]:
        """The blocks that the peer turned out not to have."""
        ...

    async def run(self, peer: PeerID, cid: CID, on_bytes: OnBytes) -> None:
        """Bring the blocks, which are parts of the DAG below `cid`, into the block store.

        Raises PeerFault, at last also when a block was unavailable; ContentError.
        """
        ...


class FallbackProtocol(Protocol):
    """Another protocol, for peers that do not speak ours."""

    async def has(self, peer: PeerID, cid: CID) -> bool:
        """Whether a peer has at least the root of a DAG. Raises PeerFault."""
        ...

    def prepare(self, wanted: Sequence[CID]) -> BlockFetch:
        """A fetch of these blocks that has not started."""
        ...


class ProviderFinder(Protocol):
    """Finds providers beyond the known peers, such as the DHT."""

    async def find_providers(self, cid: CID, on_found: Callable[[PeerID], None]) -> str:
        """Call `on_found` for each peer that may have the content; returns what was asked:
        `DHT lookup (3 nodes)`."""
        ...


class Gateway(Protocol):
    """A trustless HTTP gateway, which sends DAGs as CARs."""

    @property
    def name(self) -> str: ...

    def open(self, cid: CID, timeout: float) -> AbstractAsyncContextManager[Receive]:
        """The CAR of a DAG; its first byte must arrive within `timeout` seconds.

        Raises PeerFault, inside the block too.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where one fetch looks for content: first `peers`, then peers that the finder names, then gateways."""

    peers: Sequence[PeerID] = ()
    finder: ProviderFinder | None = None
    gateways: Callable[[Sequence[PeerID]], Sequence[Gateway]] = lambda peers: ()
    """The gateways to ask, those of these peers first."""
