"""The mesh of one topic: which neighbours get its messages at once. Pure: time and randomness come in.

It is that of gossipsub 1.1, without scores: DEGREE links, between DEGREE_LOW and DEGREE_HIGH, DEGREE_OUT of
them to peers that this node dialled, since an attacker cannot choose these; a peer that was pruned stays out
for a while. One addition keeps star-shaped networks whole: a node that has fewer than DEGREE_LOW links says
so when it grafts, and is taken even by a full mesh. So a leaf of a star is served by its hub, and a newcomer
by a network in which every mesh is full. A hub whose neighbours have each other prunes them as usual.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from math import ceil
from random import Random
from typing import Final

from bacalhau_p2p.model.base import PeerID

DEGREE: Final = 6
DEGREE_LOW: Final = 5
DEGREE_HIGH: Final = 8
"""Links of a mesh: wanted; fewer are filled up; more are pruned."""
DEGREE_OUT: Final = 2
"""Links to peers that this node dialled, if it dialled so many."""
MAX_NEEDY: Final = 128
"""Further links to peers that have too few."""

LAZY_DEGREE: Final = 6
LAZY_SHARE: Final = 0.25
"""Neighbours outside of the mesh that are offered ids at each heartbeat: so many, or this share if more. They
take turns, so each is offered a message before it is forgotten."""

PRUNE_BACKOFF: Final = 60.0
"""Seconds after a PRUNE before the link may be grafted again."""
LONGEST_BACKOFF: Final = 3600.0
"""Seconds that are honoured when a peer asks for more."""
BACKOFF_SLACK: Final = 1.0
"""Seconds that this node waits longer than it must."""
MAX_BACKOFFS: Final = 4_096
"""Peers whose back-off is remembered; beyond, the oldest is forgotten."""
MAX_EARLY_GRAFTS: Final = 3
"""GRAFTs during a back-off before each is an offence. One may cross the PRUNE on its way."""


class Reply(Enum):
    """What a GRAFT leads to."""

    ACCEPT = auto()
    REFUSE = auto()
    OFFENCE = auto()


@dataclass(slots=True)
class Changes:
    """Whom to tell that they are in the mesh now, or no longer."""

    graft: list[PeerID] = field(default_factory=list)
    prune: list[PeerID] = field(default_factory=list)


@dataclass(slots=True)
class _Link:
    """A member of the mesh."""

    links: int = DEGREE
    """How many links it said to have; a peer that says nothing is taken to have enough."""
    told: int = DEGREE
    """How many links it was told that we have."""

    @property
    def needy(self) -> bool:
        return self.links < DEGREE_LOW


@dataclass(slots=True)
class _Backoff:
    until: float
    early: int = 0


class Mesh:
    """The mesh of one topic. Each method that changes it says what to tell whom."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._dialled: dict[PeerID, bool] = {}  # of each subscribed neighbour, whether this node dialled it
        self._links: dict[PeerID, _Link] = {}
        self._backoffs: dict[PeerID, _Backoff] = {}

    # --- who is in it -------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._links)

    def __contains__(self, peer: object) -> bool:
        return peer in self._links

    @property
    def members(self) -> Iterable[PeerID]:
        """Those that get messages at once."""
        return self._links

    def next_outside(self) -> list[PeerID]:
        """Some subscribed neighbours that are not members, in turn."""
        outside = [peer for peer in self._dialled if peer not in self._links]
        some = outside[: max(LAZY_DEGREE, ceil(len(outside) * LAZY_SHARE))]
        for peer in some:
            self._dialled[peer] = self._dialled.pop(peer)
        return some

    # --- what happens -------------------------------------------------------------------------

    def joined(self, peer: PeerID, now: float, *, dialled: bool) -> Changes:
        """A neighbour subscribed to the topic, and can be written to. A small mesh takes it at once."""
        self._dialled[peer] = dialled
        changes = Changes()
        if len(self._links) < DEGREE and self._may_graft(peer, now):
            self._graft([peer], changes)
        return changes

    def left(self, peer: PeerID, now: float) -> Changes:
        """A neighbour is gone, or has unsubscribed."""
        self._dialled.pop(peer, None)
        return self._lost(peer, now)

    def grafted(self, peer: PeerID, links: int | None, now: float) -> Reply:
        """A neighbour asks to be a member; `links`: how many it has, if it says so. REFUSE: answer PRUNE."""
        if link := self._links.get(peer):
            link.links = DEGREE if links is None else links
            return Reply.ACCEPT
        if peer not in self._dialled:
            return Reply.REFUSE
        backoff = self._backoffs.get(peer)
        if backoff is not None and now < backoff.until:
            backoff.early += 1
            backoff.until = max(backoff.until, now + PRUNE_BACKOFF)
            return Reply.OFFENCE if backoff.early > MAX_EARLY_GRAFTS else Reply.REFUSE
        new = _Link(links=DEGREE if links is None else links)
        needy = sum(link.needy for link in self._links.values())
        if needy >= MAX_NEEDY if new.needy else len(self._links) - needy >= DEGREE_HIGH:
            self._back_off(peer, now, PRUNE_BACKOFF)
            return Reply.REFUSE
        self._links[peer] = new
        return Reply.ACCEPT

    def pruned(self, peer: PeerID, backoff: float, now: float) -> Changes:
        """A neighbour ends the link; it may be grafted again after `backoff` seconds."""
        if peer not in self._dialled:
            return Changes()
        self._back_off(peer, now, min(backoff, LONGEST_BACKOFF) + BACKOFF_SLACK)
        return self._lost(peer, now)

    def heartbeat(self, now: float) -> Changes:
        """Once a second: fill up and prune."""
        changes = Changes()
        self._backoffs = {peer: each for peer, each in self._backoffs.items() if each.until > now}
        if len(self._links) < DEGREE_LOW:
            self._fill(now, changes)
        core = [peer for peer, link in self._links.items() if not link.needy]
        if len(core) > DEGREE_HIGH:
            self._prune(core, now, changes)
        dialled = sum(self._dialled[peer] for peer in self._links)
        if len(self._links) >= DEGREE_LOW and dialled < DEGREE_OUT:
            outside = [peer for peer in self._grafted_next(now) if self._dialled[peer]]
            self._graft(outside[: DEGREE_OUT - dialled], changes)
        self._tell_links(changes)
        return changes

    # --- parts --------------------------------------------------------------------------------

    def _may_graft(self, peer: PeerID, now: float) -> bool:
        backoff = self._backoffs.get(peer)
        return peer not in self._links and (backoff is None or now >= backoff.until)

    def _grafted_next(self, now: float) -> list[PeerID]:
        """Neighbours that may be grafted, in random order."""
        peers = [peer for peer in self._dialled if self._may_graft(peer, now)]
        self._random.shuffle(peers)
        return peers

    def _fill(self, now: float, changes: Changes) -> None:
        self._graft(self._grafted_next(now)[: DEGREE - len(self._links)], changes)

    def _graft(self, peers: list[PeerID], changes: Changes) -> None:
        for peer in peers:
            self._links[peer] = _Link()
            changes.graft.append(peer)
        for peer in peers:
            self._links[peer].told = len(self._links)

    def _prune(self, core: list[PeerID], now: float, changes: Changes) -> None:
        """Keep DEGREE links of these, and among them DEGREE_OUT that this node dialled."""
        self._random.shuffle(core)
        kept_out = [peer for peer in core if self._dialled[peer]][:DEGREE_OUT]
        others = [peer for peer in core if peer not in kept_out]
        for peer in others[: len(core) - DEGREE]:
            del self._links[peer]
            self._back_off(peer, now, PRUNE_BACKOFF)
            changes.prune.append(peer)

    def _lost(self, peer: PeerID, now: float) -> Changes:
        changes = Changes()
        if self._links.pop(peer, None) is not None and len(self._links) < DEGREE_LOW:
            self._fill(now, changes)
        return changes

    def _back_off(self, peer: PeerID, now: float, seconds: float) -> None:
        self._backoffs.pop(peer, None)
        if len(self._backoffs) >= MAX_BACKOFFS:
            del self._backoffs[next(iter(self._backoffs))]
        self._backoffs[peer] = _Backoff(now + seconds)

    def _tell_links(self, changes: Changes) -> None:
        """Graft again those that would take us for one with too few links, or with enough, wrongly."""
        links = len(self._links)
        for peer, link in self._links.items():
            if peer not in changes.graft and (link.told < DEGREE_LOW) != (links < DEGREE_LOW):
                changes.graft.append(peer)
        for peer in changes.graft:
            if peer in self._links:
                self._links[peer].told = links
