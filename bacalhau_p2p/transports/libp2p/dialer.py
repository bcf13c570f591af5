"""Where peers can be dialled, and the dialling: address by address, one attempt a peer at a time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.faults import FaultBarrier
from bacalhau_p2p.transports.libp2p.sessions import Sessions
from bacalhau_p2p.transports.libp2p.swarm import GuardedSwarm

DIAL_TIMEOUT: Final = 5.0
"""Seconds for one address to connect and authenticate."""

MAX_ADDRESSES: Final = 16
"""Addresses kept of a peer and tried in turn."""

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 10.0
"""Seconds between two attempts at a bootstrap peer; each pause is up to twice the last."""


def parse_peer_address(address: str) -> tuple[PeerID, Multiaddr]:
    """A multiaddr that ends in `/p2p/<peer id>`, taken apart. Raises ValueError."""
    try:
        whole = Multiaddr(address)
        peer = whole.value_for_protocol("p2p")
        protocols = [protocol.name for protocol in whole.protocols()]
        peer_id = ID.from_base58(peer)
    except (MultiaddrError, ValueError, LookupError, TypeError) as fault:
        raise ValueError(f"not a multiaddr that ends in /p2p/<peer id>: {address!r}") from fault
    if protocols[-1] != "p2p" or "tcp" not in protocols:
        raise ValueError(f"not a TCP multiaddr that ends in /p2p/<peer id>: {address!r}")
    return PeerID(peer_id.to_base58()), whole


class _Dial:
    """One attempt at a peer, for which several may wait."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.fault: PeerUnreachable | None = None


class Dialer:
    """Connects to peers, unless `admits` says that one may not be connected to now."""

    def __init__(
        self,
        swarm: GuardedSwarm,
        nursery: trio.Nursery,
        *,
        sessions: Sessions,
        admits: Callable[[str], bool],
        counters: Counter[str],
    ) -> None:
        self._counters = counters
        self._swarm = swarm
        self._nursery = nursery
        self._sessions = sessions
        self._admits = admits
        self._own = PeerID(swarm.self_id.to_base58())
        self._addresses: dict[PeerID, tuple[str, ...]] = {}
        self._dials: dict[PeerID, _Dial] = {}

    def learn(self, peer: PeerID, addresses: Sequence[str]) -> None:
        """Remember where a peer can be dialled, in place of what was known."""
        self._addresses[peer] = tuple(addresses[:MAX_ADDRESSES])

    async def connect(self, peer: PeerID, addresses: Sequence[str] = ()) -> None:
        """Make sure of a connection: at `addresses`, or at those known of the peer.

        Raises PeerUnreachable. Cancelled: the attempt goes on, for others may wait for it.
        """
        if peer == self._own:
            raise PeerUnreachable("this peer is ourselves")
        if self._sessions.is_connected(peer):
            return
        await trio.lowlevel.checkpoint()
        dial = self._dials.get(peer)
        if dial is None:
            dial = self._dials[peer] = _Dial()
            self._nursery.start_soon(self._dial, peer, tuple(addresses), dial)
        await dial.done.wait()
        if dial.fault is not None:
            raise PeerUnreachable(str(dial.fault)) from dial.fault

    async def keep_connected(self, address: str) -> None:
        """Dial a bootstrap address, and again whenever its peer is lost, until cancelled."""
        peer, _ = parse_peer_address(address)
        pause = FIRST_PAUSE
        while True:
            try:
                await self.connect(peer, (address,))
            except PeerUnreachable:
                await trio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads dials, no secret
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            if session := self._sessions.get(peer):
                await session.gone.wait()
            pause = FIRST_PAUSE
            await trio.sleep(pause)

    async def _dial(self, peer: PeerID, addresses: tuple[str, ...], dial: _Dial) -> None:
        try:
            await self._try_addresses(peer, addresses or self._known(peer))
        except PeerUnreachable as fault:
            dial.fault = fault
        finally:
            del self._dials[peer]
            dial.done.set()

    async def _try_addresses(self, peer: PeerID, addresses: Sequence[str]) -> None:
        if not self._admits(peer):
            raise PeerUnreachable(f"peer {peer} is banned for now")
        if not addresses:
            raise PeerUnreachable(f"no address is known of peer {peer}")
        reasons = []
        for address in addresses:
            try:
                await self._try_address(peer, address)
            except PeerUnreachable as fault:
                reasons.append(f"{address}: {fault}")
            else:
                self._addresses.setdefault(peer, (address,))
                return
        raise PeerUnreachable(f"cannot reach peer {peer} ({'; '.join(reasons)})")

    async def _try_address(self, peer: PeerID, address: str) -> None:
        expected = (BaseLibp2pError, MultiaddrError, ValueError, OSError)
        with FaultBarrier(self._counters, "dial_faults", f"dialling {address}", expected=expected) as barrier:
            with trio.move_on_after(DIAL_TIMEOUT) as patience:
                await self._swarm.dial_addr(Multiaddr(address), ID.from_base58(peer))
            if not patience.cancelled_caught:
                return
        raise PeerUnreachable(_cause(barrier.fault) if barrier.fault else "no answer in time")

    def _known(self, peer: PeerID) -> Sequence[str]:
        """Addresses we were told, or else those that the peer itself announced when it was connected."""
        if peer in self._addresses:
            return self._addresses[peer]
        try:
            announced: Sequence[Any] = self._swarm.peerstore.addrs(ID.from_base58(peer))
        except (PeerStoreError, ValueError):
            return ()
        return [str(address) for address in announced[:MAX_ADDRESSES]]


def _cause(fault: BaseException) -> str:
    """The innermost reason, which names what happened."""
    while fault.__cause__ is not None:
        fault = fault.__cause__
    return str(fault) or type(fault).__name__
