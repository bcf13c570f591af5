"""Finds peers on the local networks, and lets them find this node: libp2p's mDNS.

What strangers send is read and handed on at once. Nothing of it is kept here.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from ipaddress import ip_address

import trio

from bacalhau_p2p.discovery import packets
from bacalhau_p2p.discovery.multicast import Multicast, MulticastSocket
from bacalhau_p2p.discovery.networks import (
    LocalNetwork,
    addresses_within,
    ip_of_address,
    networks_of,
    own_networks,
)
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.events import AutoResetEvent
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.rate_limit import RateLimits, TokenBucket
from bacalhau_p2p.runtime.tasks import all_or_first_fault

log = get_logger(__name__)

CHECK_INTERVAL = 60.0
"""Seconds between two looks at which networks this machine is part of."""
FIRST_QUERY_INTERVAL = 1.0
LONGEST_QUERY_INTERVAL = 300.0
"""Seconds from one question to the next: twice as long each time. All hear the answers to anybody's question,
so who heard one in the meantime does not ask."""
ANSWER_DELAY = (0.02, 0.12)
"""Seconds until a question is answered, chosen at random, so that not all peers answer at once."""
ANSWER_INTERVAL = 1.0
"""Seconds between two answers."""
PACKETS_PER_SECOND = 100.0
PACKET_BURST = 1000.0
"""Packets that are read of each network."""
PACKETS_PER_SECOND_OF_ONE = 20.0
PACKET_BURST_OF_ONE = 200.0
"""Packets that are read of one IP address, behind which there may be many nodes."""
NAME_LENGTH = 40
"""Characters of the name that a node makes up. It says nothing about the node, and must be below 64."""
MAX_SENDERS = 1000
"""IP addresses whose packets are counted."""


class Mdns:
    """mDNS of one node, in each private network in which it has an address."""

    def __init__(
        self,
        addresses: Callable[[], Sequence[str]],
        found: Callable[[PeerID, Sequence[str]], None],
        rng: random.Random,
        *,
        networks: Callable[[], list[LocalNetwork]] = own_networks,
        join: Callable[[LocalNetwork], Multicast] = MulticastSocket,
    ) -> None:
        """`addresses` are the multiaddrs of this node, each ending in `/p2p/<peer id>`. `found` is called
        with each peer that says that it is there, this node included, and with those of its addresses that
        are in a private network of this machine. `join` raises OSError."""
        self._addresses = addresses
        self._found = found
        self._rng = rng
        self._read_networks = networks
        self._networks: list[LocalNetwork] = []
        self._join = join
        self._reported: set[LocalNetwork] = set()
        self._name = "".join(rng.choices(string.ascii_lowercase + string.digits, k=NAME_LENGTH))

    async def run(self) -> None:
        """Until cancelled. Networks that this machine joins or leaves are noticed within a minute."""
        joined: dict[LocalNetwork, trio.CancelScope] = {}
        async with trio.open_nursery() as nursery:
            while True:
                self._networks = self._read_networks()
                present = networks_of(self._addresses(), self._networks)
                for network in set(joined) - set(present):
                    joined.pop(network).cancel()
                for network in present:
                    if network not in joined or joined[network].cancel_called:
                        joined[network] = await nursery.start(self._serve, network)
                await trio.sleep(CHECK_INTERVAL)

    async def _serve(self, network: LocalNetwork, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        """Ask and answer in one network, until that fails or the returned scope is cancelled. The log has the
        first failure in each network."""
        with trio.CancelScope() as scope:
            task_status.started(scope)
            try:
                multicast = self._join(network)
                try:
                    await Conversation(multicast, network, self.answer, self.heard, self._rng).run()
                finally:
                    multicast.close()
            except OSError as error:
                if network not in self._reported:
                    log.warning(
                        "mdns_unavailable", address=str(network.ip), error=error.strerror or str(error)
                    )
                self._reported.add(network)
                scope.cancel()

    def answer(self, network: LocalNetwork) -> bytes | None:
        """What this node says of itself in a network; None without an address there."""
        own = addresses_within(self._addresses(), [network])
        ports = [int(address.split("/")[4]) for address in own if ip_of_address(address) == network.ip]
        return packets.answer(self._name, network.ip, ports[0], own) if ports else None

    def heard(self, peers: dict[PeerID, tuple[str, ...]]) -> None:
        """Somebody says that these peers are there."""
        for peer, addresses in peers.items():
            if near := addresses_within(addresses, self._networks):
                self._found(peer, near)


class Conversation:
    """Questions and answers in one network."""

    def __init__(
        self,
        multicast: Multicast,
        network: LocalNetwork,
        answer: Callable[[LocalNetwork], bytes | None],
        heard: Callable[[dict[PeerID, tuple[str, ...]]], None],
        rng: random.Random,
    ) -> None:
        self._multicast = multicast
        self._network = network
        self._answer = answer
        self._heard = heard
        self._rng = rng
        self._asked = AutoResetEvent()
        self._asked_at = -LONGEST_QUERY_INTERVAL
        self._packets = TokenBucket(PACKETS_PER_SECOND, PACKET_BURST)
        self._senders = RateLimits[str](PACKETS_PER_SECOND_OF_ONE, PACKET_BURST_OF_ONE, max_keys=MAX_SENDERS)

    async def run(self) -> None:
        """Until cancelled. Raises OSError when the network is gone."""
        await all_or_first_fault([self._listen, self._answer_questions, self._ask], OSError)

    async def _ask(self) -> None:
        interval = FIRST_QUERY_INTERVAL
        await self._multicast.send(packets.query())
        while True:
            await trio.sleep(interval * self._rng.uniform(1.0, 1.2))
            if trio.current_time() - self._asked_at >= interval:
                await self._multicast.send(packets.query())
            interval = min(2 * interval, LONGEST_QUERY_INTERVAL)

    async def _answer_questions(self) -> None:
        while True:
            await self._asked.wait()
            await trio.sleep(self._rng.uniform(*ANSWER_DELAY))
            if packet := self._answer(self._network):
                await self._multicast.send(packet)
            await trio.sleep(ANSWER_INTERVAL)

    async def _listen(self) -> None:
        while True:
            data, sender = await self._multicast.receive()
            if self._admits(sender):
                heard = packets.read(data)
                if heard.asks:
                    self._asked_at = trio.current_time()
                    self._asked.set()
                elif heard.peers:
                    self._heard(heard.peers)

    def _admits(self, sender: str) -> bool:
        """Whether to read a packet of this IP address: it is in the network, and does not send too many."""
        ip, now = ip_address(sender), trio.current_time()
        near = ip.is_link_local or (ip.version == self._network.ip.version and ip in self._network.network)
        return near and self._senders.take(sender, now) and self._packets.take(now)
