"""Dialling: one address after the other, and one attempt per peer at a time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.io.exceptions import IOException
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from libp2p.transport.exceptions import MuxerUpgradeFailure

from bacalhau_p2p.encoding.multiaddrs import parse_multiaddr
from bacalhau_p2p.errors import PeerUnreachable, RemoteProtocolError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.descriptors import shares
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.transports.dial_budget import DialBudget
from bacalhau_p2p.transports.faults import FaultBarrier
from bacalhau_p2p.transports.libp2p.addresses import parse_peer_address
from bacalhau_p2p.transports.libp2p.detached_calls import SharedCalls
from bacalhau_p2p.transports.libp2p.known_addresses import MAX_ADDRESSES, KnownAddresses
from bacalhau_p2p.transports.libp2p.names import resolved
from bacalhau_p2p.transports.libp2p.sessions import Sessions
from bacalhau_p2p.transports.libp2p.swarm import GuardedSwarm

DIAL_TIMEOUT: Final = 5.0
"""Seconds for one address to connect and authenticate."""

MAX_DIALS: Final = 64
"""Addresses that are dialled at the same time; beyond, the oldest is given up. Fewer when this process may
open few files. Anybody can announce addresses that never answer."""

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 10.0
"""Seconds between two attempts to reach a bootstrap peer. Each pause is up to twice as long as the last."""

SHORT_CONNECTION: Final = 5.0
"""Seconds. A bootstrap peer that closes connections sooner counts as unreachable."""

WARNING_INTERVAL: Final = 60.0
"""Seconds between two warnings about a bootstrap peer that cannot be reached."""

ENOUGH: Final = 3
"""Other connected peers with which a node does not need a bootstrap peer at once."""
PATIENT_PAUSE: Final = 60.0
"""Seconds, at least half of them, until a bootstrap peer is dialled again that was lost while there are
enough others. It may have closed the connection because it has too many."""


_REFUSED: Final = "it closed the connection at once: it may refuse this node, or have too many peers"

log = get_logger(__name__)


class _GivenUp(PeerUnreachable):
    """There were too many dials, and this was the oldest."""


class Dialer:
    """Connects to the peers that `admits` allows."""

    def __init__(
        self,
        swarm: GuardedSwarm,
        nursery: trio.Nursery,
        *,
        sessions: Sessions,
        admits: Callable[[str], bool],
        budget: DialBudget,
        counters: Counter[str],
    ) -> None:
        self._budget = budget
        self._counters = counters
        self._swarm = swarm
        self._sessions = sessions
        self._admits = admits
        self._own = PeerID(swarm.self_id.to_base58())
        self._addresses = KnownAddresses()
        self._dials = SharedCalls(nursery)
        self._most_dials = min(MAX_DIALS, shares().dials)
        self._dialling: dict[trio.CancelScope, None] = {}
        self._stopped = False

    def learn(self, peer: PeerID, addresses: Sequence[str]) -> None:
        """Remember the addresses of a peer; they replace the known ones."""
        self._addresses.put(peer, addresses)

    async def connect(self, peer: PeerID, addresses: Sequence[str] = ()) -> None:
        """Connect to a peer, at `addresses` or at its known ones, unless it is connected.

        Raises PeerUnreachable. Cancelled: the attempt goes on, since others may wait for it.
        """
        if peer == self._own:
            raise PeerUnreachable("this peer is the node itself")
        if self._sessions.is_connected(peer):
            return
        await trio.lowlevel.checkpoint()
        await self._dials.run(peer, self._dial, peer, tuple(addresses))

    async def keep_connected(self, address: str) -> None:
        """Stay connected to the peer at a bootstrap address, until `stop` is called."""
        peer = parse_peer_address(address)
        pause, warn_at = FIRST_PAUSE, trio.current_time()
        while not self._stopped:
            try:
                await self._connect_until_lost(peer, address)
            except PeerUnreachable as fault:
                if self._stopped:
                    return  # this node has closed the connection
                if trio.current_time() >= warn_at:
                    log.warning("peer_unreachable", address=address, reason=str(fault))
                    warn_at = trio.current_time() + WARNING_INTERVAL
                await self._pause(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                pause, warn_at = FIRST_PAUSE, trio.current_time()
                await self._pause(pause)

    def stop(self) -> None:
        """Stay connected to no peer any more: this node is about to close its connections."""
        self._stopped = True

    async def _connect_until_lost(self, peer: PeerID, address: str) -> None:
        """Connect to the peer and wait until it is gone. Raises PeerUnreachable, also if it is gone at once:
        a peer that refuses this node closes the connection only after both have authenticated."""
        await self.connect(peer, (address,))
        since = trio.current_time()
        if session := self._sessions.get(peer):
            await session.gone.wait()
        if trio.current_time() - since < SHORT_CONNECTION:
            raise PeerUnreachable(f"peer {peer}: {_REFUSED}")

    async def _pause(self, seconds: float) -> None:
        """So long, or longer while there are enough peers."""
        jitter = random.uniform(0.5, 1)  # noqa: S311 - not a secret
        patient_until = trio.current_time() + PATIENT_PAUSE * jitter
        await trio.sleep(seconds * jitter)
        # Looks now and then: when the others are lost, which may be soon, this peer is dialled at once.
        while len(self._sessions.peers) >= ENOUGH and trio.current_time() < patient_until:  # noqa: ASYNC110
            await trio.sleep(PATIENT_PAUSE / 60)

    async def _dial(self, peer: PeerID, addresses: tuple[str, ...]) -> None:
        if not self._admits(peer):
            raise PeerUnreachable(f"peer {peer} is banned")
        candidates = addresses or self._known(peer)
        if not candidates:
            raise PeerUnreachable(f"no address of peer {peer} is known")
        payer = self._budget.payer(peer)
        if payer == self._own:
            payer = None
        reasons = []
        for address in candidates:
            if payer is not None and not self._budget.admits(payer):
                self._counters["dials_refused"] += 1
                reasons.append(f"peer {payer} made this node dial too many addresses that do not answer")
                break
            try:
                await self._try_address(peer, address)
            except PeerUnreachable as fault:
                if payer is not None:
                    self._budget.failed(payer)
                if isinstance(fault, _GivenUp):
                    raise  # trying its other addresses would displace others again
                reasons.append(f"{address}: {fault}")
            else:
                if self._addresses.of(peer) is None:
                    self._addresses.put(peer, (address,))
                return
        raise PeerUnreachable(f"cannot reach peer {peer} ({'; '.join(reasons)})")

    async def _try_address(self, peer: PeerID, address: str) -> None:
        expected = (BaseLibp2pError, RemoteProtocolError, ValueError, OSError)
        with FaultBarrier(self._counters, "dial_faults", f"dialling {address}", expected=expected) as barrier:
            with self._slot() as dialling:
                await trio.lowlevel.checkpoint()  # opens nothing if this one of many at once is given up
                await self._dial_resolved(address, ID.from_base58(peer))
            if not dialling.cancelled_caught:
                return
        if barrier.fault is not None:
            raise PeerUnreachable(_cause(barrier.fault))
        if trio.current_time() < dialling.deadline:
            raise _GivenUp(f"cannot reach peer {peer} ({address}: given up for later dials)")
        raise PeerUnreachable(f"no answer within {DIAL_TIMEOUT:.0f} s")

    async def _dial_resolved(self, address: str, peer: ID) -> None:
        """Dial an address, or in turn those that its host name stands for. Raises as `dial_addr`."""
        *others, last = await resolved(address)
        for each in others:
            with suppress(BaseLibp2pError, OSError):
                await self._swarm.dial_addr(parse_multiaddr(each), peer)
                return
        await self._swarm.dial_addr(parse_multiaddr(last), peer)

    @contextmanager
    def _slot(self) -> Iterator[trio.CancelScope]:
        """Limit the time of a dial, and how many there are: the oldest is given up first."""
        scope = trio.CancelScope(deadline=trio.current_time() + DIAL_TIMEOUT)
        self._dialling[scope] = None
        if len(self._dialling) > self._most_dials:
            oldest = next(iter(self._dialling))
            del self._dialling[oldest]
            oldest.cancel()
            self._counters["dials_given_up"] += 1
        try:
            with scope:
                yield scope
        finally:
            self._dialling.pop(scope, None)

    def _known(self, peer: PeerID) -> Sequence[str]:
        """The addresses given to `learn`, or else those that the peer announced while it was connected."""
        if (known := self._addresses.of(peer)) is not None:
            return known
        try:
            announced: Sequence[Any] = self._swarm.peerstore.addrs(ID.from_base58(peer))
        except (PeerStoreError, ValueError):
            return ()
        return [str(address) for address in announced[:MAX_ADDRESSES]]


def _cause(fault: BaseException) -> str:
    """The innermost cause, which names what happened."""
    authenticated = isinstance(fault.__cause__, MuxerUpgradeFailure)
    while fault.__cause__ is not None or isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0] if isinstance(fault, BaseExceptionGroup) else fault.__cause__ or fault
    if authenticated and isinstance(fault, IOException):
        return _REFUSED
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror.lower()
    return str(fault) or type(fault).__name__
