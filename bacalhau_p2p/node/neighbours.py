"""The nodes that a node remembers over a restart: which are kept, and when each may be dialled. Pure.

Nodes that there was a connection to are worth more than nodes that only announced themselves, and recent ones
more than old ones. So a flood of invented nodes does not displace those that are really there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import inf

from pydantic import BaseModel, ConfigDict, FiniteFloat

from bacalhau_p2p.model.base import PeerID, UnixSeconds

MAX_NEIGHBOURS = 64
MAX_ADDRESSES = 8
"""Addresses of one node."""
MAX_ADDRESS_LENGTH = 256
FORGET_AFTER = 7 * 24 * 3600.0
"""Seconds without a sign of a node after which it is forgotten."""
AWAY_AFTER = 60.0
"""Seconds without a sign of a node after which it no longer counts as present."""
RETRY_AFTER, MAX_RETRY_INTERVAL = 60.0, 3600.0
"""Seconds until an unreachable node is dialled again. Doubles with each failure."""
MIN_WRITE_INTERVAL = 60.0
"""Seconds between two writes when the set of nodes or their addresses changed."""
WRITE_INTERVAL = 600.0
"""Seconds between two writes when only the times changed at which the nodes were seen."""


class Neighbour(BaseModel):
    """A remembered node. The names of the fields are those in `neighbours.json`."""

    model_config = ConfigDict(frozen=True)

    id: PeerID
    addresses: tuple[str, ...]
    seen: FiniteFloat
    """When it was last connected or announced itself (UNIX seconds)."""
    met: bool = False
    """Whether there has been a connection to it."""

    def is_away(self, now: UnixSeconds) -> bool:
        return now - self.seen > AWAY_AFTER


class Neighbours:
    """The list of one node. Time is an argument."""

    def __init__(self) -> None:
        self._known: dict[PeerID, Neighbour] = {}
        self._failures: dict[PeerID, tuple[int, UnixSeconds]] = {}
        """How often each failed in a row, and when it may be dialled again."""
        self._written: dict[PeerID, Neighbour] = {}
        self._written_at: UnixSeconds = -inf

    def restore(self, entries: Sequence[Neighbour], now: UnixSeconds) -> None:
        """Add the entries of an earlier run. They count as written."""
        for entry in entries[:MAX_NEIGHBOURS]:
            seen = min(entry.seen, now)  # the clock may have been set back
            self._put(entry.id, usable_addresses(entry.id, entry.addresses), seen, met=entry.met)
        self._forget_old(now)
        self._written = dict(self._known)

    def entries_to_write(self, now: UnixSeconds, *, last: bool = False) -> list[Neighbour] | None:
        """All entries if a write is due, else None; `last` when the node stops. They count as written."""
        self._forget_old(now)
        if self._known == self._written:
            return None
        if not last:
            unchanged = _without_times(self._known) == _without_times(self._written)
            if now - self._written_at < (WRITE_INTERVAL if unchanged else MIN_WRITE_INTERVAL):
                return None
        self._written, self._written_at = dict(self._known), now
        return list(self._known.values())

    def record(self, peer: PeerID, addresses: Sequence[str], now: UnixSeconds, *, met: bool) -> None:
        """A node is present: it announced itself, or (`met`) there is a connection to it."""
        if met:
            self._failures.pop(peer, None)
        usable = usable_addresses(peer, addresses)
        if peer in self._known or (usable and self._make_room(now, met=met)):
            self._put(peer, usable, now, met=met)

    def record_failure(self, peer: PeerID, now: UnixSeconds) -> None:
        """A node could not be reached."""
        if peer in self._known:
            times = self._failures.get(peer, (0, 0))[0] + 1
            pause = min(RETRY_AFTER * 2.0 ** min(times - 1, 32), MAX_RETRY_INTERVAL)
            self._failures[peer] = (times, now + pause)

    def to_dial(self, now: UnixSeconds, without: Collection[PeerID] = ()) -> list[Neighbour]:
        """The nodes that may be dialled now."""
        self._forget_old(now)
        waiting = {peer for peer, (_, until) in self._failures.items() if until > now}
        return [known for peer, known in self._known.items() if peer not in waiting and peer not in without]

    def _put(self, peer: PeerID, addresses: tuple[str, ...], seen: UnixSeconds, *, met: bool) -> None:
        known = self._known.get(peer)
        if known is not None:
            addresses, met = addresses or known.addresses, met or known.met
        if addresses:
            self._known[peer] = Neighbour(id=peer, addresses=addresses, seen=seen, met=met)

    def _make_room(self, now: UnixSeconds, *, met: bool) -> bool:
        """Whether one more node fits. If the list is full, drops the node that is worth least."""
        if len(self._known) < MAX_NEIGHBOURS:
            return True
        if met:
            replaceable = [known for known in self._known.values() if not known.met or known.is_away(now)]
        else:
            replaceable = [known for known in self._known.values() if not known.met and known.is_away(now)]
        if not replaceable:
            return False
        self._drop(min(replaceable, key=lambda known: (known.met, known.seen)).id)
        return True

    def _forget_old(self, now: UnixSeconds) -> None:
        for known in list(self._known.values()):
            if now - known.seen > FORGET_AFTER:
                self._drop(known.id)

    def _drop(self, peer: PeerID) -> None:
        del self._known[peer]
        self._failures.pop(peer, None)


def usable_addresses(peer: PeerID, addresses: Sequence[str]) -> tuple[str, ...]:
    """The addresses that belong to the peer and are short enough, up to `MAX_ADDRESSES` of them."""
    own = (text for text in addresses if text.endswith(f"/p2p/{peer}") and len(text) <= MAX_ADDRESS_LENGTH)
    return tuple(own)[:MAX_ADDRESSES]


def _without_times(known: dict[PeerID, Neighbour]) -> dict[PeerID, tuple[tuple[str, ...], bool]]:
    return {peer: (neighbour.addresses, neighbour.met) for peer, neighbour in known.items()}
