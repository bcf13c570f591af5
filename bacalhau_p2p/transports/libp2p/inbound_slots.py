"""Inbound connections: when there are too many, one of the silent and the many makes room for a newcomer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network
from math import inf
from typing import Final

import trio

from bacalhau_p2p.model.base import PeerID

WORKING: Final = 120.0
"""Seconds since a peer last acknowledged a message of this node within which it may have work under way: its
connection is kept. A peer with work answers at least once a minute."""
IPV4_PREFIX: Final = 24
IPV6_PREFIX: Final = 48
"""Bits of an address that connections share which count as coming from the same place."""


@dataclass(slots=True, eq=False)
class Slot:
    """One inbound connection. Its scope is cancelled when it has to make room."""

    place: str
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    peer: PeerID | None = None
    """None until it has authenticated."""


class InboundSlots:
    """The slots of one node. `silent_for` says how many seconds ago a peer last acknowledged a message."""

    def __init__(self, most: int, silent_for: Callable[[PeerID], float]) -> None:
        self._most = most
        self._silent_for = silent_for
        self._slots: dict[Slot, None] = {}

    def take(self, host: str) -> Slot | None:
        """A slot for a connection from this address; None if all others are in use by peers with work."""
        if len(self._slots) >= self._most and not self._make_room():
            return None
        slot = Slot(place_of(host))
        self._slots[slot] = None
        return slot

    def give_back(self, slot: Slot) -> None:
        """The connection has ended."""
        self._slots.pop(slot, None)

    def _make_room(self) -> bool:
        """Drop a connection: of a peer that never answered before one that has not for long, then from the
        place with the most, then the oldest."""
        idle = {slot: self._silent_for(slot.peer) for slot in self._slots if slot.peer is not None}
        candidates = [slot for slot, silent in idle.items() if silent > WORKING]
        if not candidates:
            return False
        places = Counter(slot.place for slot in self._slots)
        victim = max(
            candidates, key=lambda slot: (idle[slot] == inf, places[slot.place])
        )  # the first of equals
        del self._slots[victim]
        victim.scope.cancel()
        return True


def place_of(host: str) -> str:
    """The network that an address belongs to: an attacker has many addresses of one."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    bits = IPV6_PREFIX if isinstance(address, IPv6Address) else IPV4_PREFIX
    return str(ip_network((address, bits), strict=False))
