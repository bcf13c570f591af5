"""Keeps a node connected to enough others, and to not many more."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence

import trio

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.node.connection_plan import HIGH_WATER, ConnectionPlan
from bacalhau_p2p.node.known_nodes import KnownNodes
from bacalhau_p2p.node.neighbours import RETRY_AFTER, Neighbours, usable_addresses
from bacalhau_p2p.node.neighbours_file import NeighboursFile
from bacalhau_p2p.node.peer_exchange import Known, PeerExchange
from bacalhau_p2p.runtime.events import AutoResetEvent
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.threads import Threads
from bacalhau_p2p.transports.interface import Transport

log = get_logger(__name__)

CHECK_INTERVAL = 5.0
"""Seconds between two looks at the connections, up to half of it more or less."""
RECORD_INTERVAL = 30.0
"""Seconds after which it is recorded again who is there, for the time after a restart."""
FIRST_CHECK = 0.5
"""Seconds from the first connection until a newcomer looks for more."""
ASK_INTERVAL = 60.0
"""Seconds after which a peer is asked again whom else there is."""
MAX_DIALS = 4
"""Nodes that are dialled at the same time to have enough connections."""
MAX_FAILURES = 4096
"""Unreachable peers that are remembered."""
MAX_FOUND = 64
"""Peers that others named, and as many on the local network, that are remembered."""


class ConnectionKeeper:
    """Dials nodes at random while there are too few connections, and closes idle ones if there are too many.

    It also dials one silent node at a time to see whether it is still there.

    So the network outlives the node that its members were started with, and heals after a split.
    """

    def __init__(
        self,
        transport: Transport,
        known_nodes: KnownNodes,
        file: NeighboursFile,
        *,
        wanted: int,
        clock: Callable[[], UnixSeconds],
        rng: random.Random,
    ) -> None:
        """`wanted` is how many connections to have. With 0 nobody is dialled, and `file` is deleted."""
        self._transport = transport
        self._known_nodes = known_nodes
        self._file = file
        self._plan = ConnectionPlan(wanted)
        self._users: list[Callable[[], Collection[PeerID]]] = []
        self._clock = clock
        self._rng = rng
        self._neighbours = Neighbours()
        self._found: Known = {}
        self._nearby: Known = {}
        self._failed_at: dict[PeerID, UnixSeconds] = {}
        self._just_dialled: set[PeerID] = set()
        self._exchange = PeerExchange(transport, self._reachable, rng)
        self._recorded_at: UnixSeconds = -RECORD_INTERVAL
        self._asked_at: dict[PeerID, UnixSeconds] = {}
        self._look = AutoResetEvent()
        self._threads = Threads(1)

    def protect(self, peers: Callable[[], Collection[PeerID]]) -> None:
        """Never close connections to the peers that `peers` returns: there is work under way with them."""
        self._users.append(peers)

    def look_soon(self) -> None:
        """A peer has connected, or was found."""
        if self._plan.missing:
            self._look.set()

    def found_nearby(self, peer: PeerID, addresses: Sequence[str]) -> None:
        """A peer on the local network says that it is there. One that is not known yet is dialled also when
        there are enough connections: it may be in a part of the network that was separated from this one."""
        if not self._is_member(peer):
            self._remember(self._nearby, peer, addresses)
            self.look_soon()

    def _found_by_others(self, peer: PeerID, addresses: Sequence[str]) -> None:
        """A peer says that this one is there. It is dialled when there are too few connections."""
        self._remember(self._found, peer, addresses)

    def _remember(self, found: Known, peer: PeerID, addresses: Sequence[str]) -> None:
        if peer != self._transport.peer_id and addresses:
            found.pop(peer, None)
            while len(found) >= MAX_FOUND:
                del found[next(iter(found))]
            found[peer] = tuple(addresses)

    async def run(self) -> None:
        """Until cancelled. The neighbours are written to the file at intervals and at the end."""
        if self._plan.wanted:
            self._neighbours.restore(self._file.read(), self._clock())
        else:
            self._file.delete()
        try:
            while True:
                await self._pause()
                self._note_lost()
                self._plan.connected(self._transport.peers, self._clock(), self._is_member)
                if self._plan.wanted:
                    if self._clock() - self._recorded_at >= RECORD_INTERVAL:
                        self._record_present()
                    if (entries := self._neighbours.entries_to_write(self._clock())) is not None:
                        await self._threads.run(self._file.write, entries)
                    await self._dial_some()
                await self._close_some()
        finally:
            self._record_present()
            entries = self._neighbours.entries_to_write(self._clock(), last=True)
            if entries is not None and self._plan.wanted:
                self._file.write(entries)

    async def _pause(self) -> None:
        with trio.move_on_after(CHECK_INTERVAL * self._rng.uniform(0.5, 1.5)):
            await self._look.wait()
            await trio.sleep(FIRST_CHECK * self._rng.uniform(0.5, 1.5))

    # --- what is known ------------------------------------------------------------------------

    def _record_present(self) -> None:
        """Record who is connected or announces itself, with the addresses that it gave itself."""
        now, connected = self._clock(), set(self._transport.peers)
        self._recorded_at = now
        for node in self._known_nodes.nodes():
            peer = node.info.id
            if peer != self._transport.peer_id and (node.is_fresh(now) or peer in connected):
                self._neighbours.record(peer, node.info.addresses, now, met=peer in connected)
        for peer in connected:
            self._neighbours.record(peer, (), now, met=True)

    def _reachable(self) -> Known:
        """Whom to name to a newcomer: nodes that announce themselves."""
        now = self._clock()
        return {
            node.info.id: usable_addresses(node.info.id, node.info.addresses)
            for node in self._known_nodes.nodes()
            if node.is_fresh(now) and node.info.id != self._transport.peer_id
        }

    # --- dialling -----------------------------------------------------------------------------

    async def _dial_some(self) -> None:
        """Make connections while some are missing, and try one silent node."""
        if self._plan.missing and not self._candidates(self._fresh()):
            await self._ask()
        async with trio.open_nursery() as nursery:
            for peer, addresses in self._to_dial().items():
                nursery.start_soon(self._dial, peer, addresses)

    def _to_dial(self) -> Known:
        """Peers to dial now, with their addresses: nodes that announce themselves; without any, peers that
        others named; and when nobody is connected, the neighbours of earlier times."""
        missing = min(self._plan.missing, MAX_DIALS)
        fresh, silent = self._candidates(self._fresh()), self._candidates(self._silent())
        nearby = self._candidates(self._nearby)
        named = {**self._candidates(self._found), **nearby}
        chosen = self._sample(fresh, missing) or self._sample(named, missing)
        if not self._transport.peers:
            return chosen or self._sample(silent, missing) or self._neighbours_to_dial(missing)
        return {**chosen, **self._sample(silent, 1), **self._sample(nearby, 1)}

    def _is_member(self, peer: PeerID) -> bool:
        """Whether a peer has announced itself as a node of this network."""
        return self._known_nodes.get(peer) is not None

    def _fresh(self) -> Known:
        now = self._clock()
        nodes = self._known_nodes.nodes()
        return {node.info.id: tuple(node.info.addresses) for node in nodes if node.is_fresh(now)}

    def _silent(self) -> Known:
        now = self._clock()
        nodes = self._known_nodes.nodes()
        return {node.info.id: tuple(node.info.addresses) for node in nodes if not node.is_fresh(now)}

    def _candidates(self, known: Known) -> Known:
        """Those that are not connected and may be dialled now."""
        if len(self._failed_at) >= MAX_FAILURES:
            self._failed_at.clear()
        connected = set(self._transport.peers) | {self._transport.peer_id}
        return {
            peer: addresses
            for peer, addresses in known.items()
            if addresses and peer not in connected and self._may_be_dialled(peer)
        }

    def _neighbours_to_dial(self, count: int) -> Known:
        """Neighbours of earlier times: first those that there was a connection to."""
        recently_failed = {peer for peer in self._failed_at if not self._may_be_dialled(peer)}
        neighbours = self._neighbours.to_dial(self._clock(), without=recently_failed)
        self._rng.shuffle(neighbours)
        neighbours.sort(key=lambda neighbour: not neighbour.met)
        return {neighbour.id: neighbour.addresses for neighbour in neighbours[:count]}

    def _sample(self, known: Known, count: int) -> Known:
        chosen = self._rng.sample(sorted(known), min(count, len(known)))
        return {peer: known[peer] for peer in chosen}

    def _may_be_dialled(self, peer: PeerID) -> bool:
        return self._failed_at.get(peer, -RETRY_AFTER) + RETRY_AFTER <= self._clock()

    async def _dial(self, peer: PeerID, addresses: Sequence[str]) -> None:
        for address in addresses:
            try:
                await self._transport.connect(address)
            except PeerUnreachable:
                continue
            self._plan.dialled(peer, self._clock())
            self._just_dialled.add(peer)
            self._nearby.pop(peer, None)
            return
        self._failed(peer)

    def _note_lost(self) -> None:
        """A peer that closed the connection since the last look, when it was dialled, is not dialled again
        at once: it may refuse this node. Others are tried first."""
        for peer in self._just_dialled.difference(self._transport.peers):
            self._failed(peer)
        self._just_dialled.clear()

    def _failed(self, peer: PeerID) -> None:
        self._found.pop(peer, None)
        self._nearby.pop(peer, None)
        self._failed_at[peer] = self._clock()
        self._neighbours.record_failure(peer, self._clock())

    async def _ask(self) -> None:
        """Ask one peer whom else there is."""
        now, peers = self._clock(), list(self._transport.peers)
        self._asked_at = {peer: at for peer, at in self._asked_at.items() if peer in peers}
        due = [peer for peer in peers if now - self._asked_at.get(peer, -ASK_INTERVAL) >= ASK_INTERVAL]
        if due:
            peer = self._rng.choice(due)
            self._asked_at[peer] = now
            for other, addresses in (await self._exchange.ask(peer)).items():
                self._found_by_others(other, addresses)

    # --- closing ------------------------------------------------------------------------------

    async def _close_some(self) -> None:
        """Close connections that nobody uses, beyond HIGH_WATER."""
        peers = list(self._transport.peers)
        if len(peers) <= HIGH_WATER:
            return
        self._rng.shuffle(peers)
        used = set(self._transport.transferring).union(*(peers() for peers in self._users))
        for peer in self._plan.to_close(used, self._clock(), peers):
            log.debug("connection_closed", peer=peer, reason="too many connections")
            await self._transport.disconnect(peer)
