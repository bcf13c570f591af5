"""The links of an in-memory network: how each treats messages, and which are cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from bacalhau_p2p.model.base import PeerID

Pair = tuple[PeerID, PeerID]
"""Two peers in sorted order."""


def pair(one: PeerID, other: PeerID) -> Pair:
    """These two peers, whichever comes first."""
    return (one, other) if one < other else (other, one)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConditions:
    """How one direction of a link treats messages. Each probability applies to every message on its own.

    `loss`, `repetition` (a message arrives twice) and `reordering` (it is held back for up to
    `reorder_window` seconds while later ones pass) apply to broadcasts and direct frames. `delay` and
    `jitter` (seconds; jitter is drawn evenly and added) also apply to streams, which stay complete and in
    order like TCP.
    """

    loss: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    repetition: float = 0.0
    reordering: float = 0.0
    reorder_window: float = 0.1

    def __post_init__(self) -> None:
        for name in ("loss", "repetition", "reordering"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a probability is between 0 and 1")
        for name in ("delay", "jitter", "reorder_window"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; seconds cannot be negative")


PERFECT: Final = LinkConditions()
"""Everything arrives at once and in order."""


class Links:
    """The links between all peers. `random` decides what is lost, late or repeated."""

    def __init__(self, random: Random, conditions: LinkConditions) -> None:
        self.random = random
        self._default = conditions
        self._conditions: dict[Pair, LinkConditions] = {}  # by source and target
        self._cuts: set[Pair] = set()  # by source and target

    def set_conditions(
        self, conditions: LinkConditions, source: PeerID | None = None, target: PeerID | None = None
    ) -> None:
        """Set the conditions of all links, or of the one from `source` to `target`."""
        if source is None and target is None:
            self._default = conditions
            self._conditions.clear()
        elif source is not None and target is not None:
            self._conditions[source, target] = conditions
        else:
            raise ValueError("name both ends of the link, or neither")

    def cut(self, source: PeerID, target: PeerID) -> None:
        """Let nothing pass from `source` to `target`."""
        self._cuts.add((source, target))

    def heal(self, source: PeerID | None, target: PeerID | None) -> list[Pair]:
        """Undo every cut, or both directions between these two. Returns the pairs that were cut."""
        healed = [
            cut
            for cut in sorted(self._cuts)
            if source is None or target is None or pair(*cut) == pair(source, target)
        ]
        self._cuts.difference_update(healed)
        return list(dict.fromkeys(pair(*cut) for cut in healed))

    def is_cut(self, source: PeerID, target: PeerID) -> bool:
        """Whether nothing passes from `source` to `target`."""
        return (source, target) in self._cuts

    def is_blocked(self, one: PeerID, other: PeerID) -> bool:
        """Whether at least one direction is cut, so that no connection can be made."""
        return self.is_cut(one, other) or self.is_cut(other, one)

    def transit(self, source: PeerID, target: PeerID) -> float | None:
        """Seconds that something sent now takes to arrive, or None while the link is cut."""
        if self.is_cut(source, target):
            return None
        conditions = self._conditions.get((source, target), self._default)
        return conditions.delay + (self.random.uniform(0, conditions.jitter) if conditions.jitter else 0.0)

    def round_trip(self, source: PeerID, target: PeerID) -> float:
        """Seconds for a question and its answer; a direction that is cut takes no time."""
        return (self.transit(source, target) or 0.0) + (self.transit(target, source) or 0.0)

    def arrivals(self, source: PeerID, target: PeerID) -> Iterator[tuple[float, bool]]:
        """When each copy of one message arrives (seconds from now), and whether later messages may overtake
        it."""
        conditions = self._conditions.get((source, target), self._default)
        copies = 1 + (self.random.random() < conditions.repetition)
        for _ in range(copies):
            transit = self.transit(source, target)
            if transit is None or self.random.random() < conditions.loss:
                continue
            overtaken = self.random.random() < conditions.reordering
            if overtaken:
                transit += self.random.uniform(0, conditions.reorder_window)
            yield transit, overtaken
