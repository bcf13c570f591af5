"""Which members of a mesh send their messages at once, and which hold them back and only offer them. Pure.

Each member of a mesh brings a node every message, and all copies but the first are in vain. So a node notes
who brings messages first or second, and asks the others to hold theirs back (CHOKE): these offer the ids once
a second instead. Who then offers what nobody else has brought is asked to send at once again. So a node whose
other members stop to pass on messages gets the next one a second late, and those after it in time.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from random import Random
from typing import Final

from bacalhau_p2p.model.base import PeerID

EAGER: Final = 3
"""Members that send messages at once, at least."""
USEFUL_COPIES: Final = 2
"""Copies of a message that are of use: the second makes up for the first member, should it fail."""
JUDGED_AFTER: Final = 20
"""Messages that a member brings before it is asked to hold back what comes."""
LATE_SHARE: Final = 0.5
"""The share of them that came too late, from which on it is asked."""


@dataclass(slots=True)
class _Tally:
    useful: int = 0
    late: int = 0

    @property
    def late_share(self) -> float:
        return self.late / (self.useful + self.late)


@dataclass(slots=True)
class Chokes:
    """Whom to ask to hold messages back, and whom to send them at once again."""

    choke: list[PeerID] = field(default_factory=list)
    unchoke: list[PeerID] = field(default_factory=list)


class EagerLinks:
    """The members of one mesh, as senders to this node."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._tallies: dict[PeerID, _Tally] = {}
        self._choked: dict[PeerID, None] = {}

    def came(self, peer: PeerID, copy: int) -> None:
        """A neighbour brought a message, as the first, second, ... of all."""
        tally = self._tallies.get(peer)
        if tally is None:
            return
        if copy <= USEFUL_COPIES:
            tally.useful += 1
        else:
            tally.late += 1

    def missed(self, peer: PeerID) -> bool:
        """A neighbour offers a message that nobody has brought. Whether to ask it to send at once again."""
        if peer not in self._choked:
            return False
        self._release(peer)
        return True

    def heartbeat(self, members: Collection[PeerID]) -> Chokes:
        """Once a second: who are the members now, and one more of them may be asked to hold back."""
        for gone in self._choked.keys() - members:
            del self._choked[gone]
        self._tallies = {
            peer: self._tallies.get(peer) or _Tally() for peer in members if peer not in self._choked
        }
        chokes = Chokes()
        while self._choked and len(self._tallies) < EAGER:
            peer = self._random.choice(list(self._choked))
            self._release(peer)
            chokes.unchoke.append(peer)
        judged = [peer for peer, tally in self._tallies.items() if tally.useful + tally.late >= JUDGED_AFTER]
        if judged and len(self._tallies) > EAGER:
            latest = max(judged, key=lambda peer: self._tallies[peer].late_share)
            if self._tallies[latest].late_share >= LATE_SHARE:
                del self._tallies[latest]
                self._choked[latest] = None
                chokes.choke.append(latest)
                self._tallies = {peer: _Tally() for peer in self._tallies}  # fewer copies come now
        return chokes

    def _release(self, peer: PeerID) -> None:
        del self._choked[peer]
        self._tallies[peer] = _Tally()
