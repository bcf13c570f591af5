"""How the missing parts of one DAG are shared out among those who have it. Pure: time is an argument.

The parts are DAGs below blocks that somebody linked to. With one provider it gets them all in one
request. With several, blocks with links are fetched without what is below them, and of what they
link to each takes as much as it brings in about a second; who has nothing to do takes over what is
farthest away from its turn in the share of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.model.base import PeerID

UNIT_SECONDS = 1.0
"""What one request to one of several providers should take."""
LEAST_UNIT, MOST_UNIT = 1024 * 1024, 64 * 1024 * 1024
"""Bytes of such a request, whatever the provider's speed."""
GRACE = 0.05
"""Seconds in which a share is left alone: most content is there by then."""
STALLED = 1.0
"""Seconds without a byte, after which others may fetch the same blocks: the end game."""

_GUESS_RAW, _GUESS_NODE = 256 * 1024, 8 * 1024 * 1024


class Work(Protocol):
    """What of a share is still to come; may be asked while blocks arrive in another thread."""

    def rest(self) -> list[CID]:
        """The blocks that would complete the share, with all below them."""
        ...

    def split(self, keep: int) -> list[CID]:
        """Expect only the next `keep` of them from now on; the others are returned."""
        ...


_W = TypeVar("_W", bound=Work)


@dataclass(eq=False, slots=True, kw_only=True)
class Share(Generic[_W]):
    """What one provider was asked for."""

    owner: PeerID
    wanted: tuple[CID, ...]
    work: _W
    started: float
    heard: float
    """When bytes came last."""
    bytes: int = 0
    whole: bool = True
    """Whether nobody has taken a part of it over."""
    group: set[Share[_W]] = field(default_factory=set)
    """Shares of the same blocks, in the end game."""
    stop: Callable[[], None] = lambda: None
    """Ends the transfer, of which nothing is needed any more."""

    def arrived(self, size: int, now: float) -> None:
        self.bytes += size
        self.heard = now


class Board(Generic[_W]):
    """What is to be had of one DAG, and who is at it."""

    def __init__(self, wanted: Iterable[CID]) -> None:
        self._pool = dict.fromkeys(cid.v1 for cid in wanted)
        self._seen = set(self._pool)
        self._reserved = 0
        self._shares: set[Share[_W]] = set()
        self._rates: dict[PeerID, float] = {}
        self._raw = float(_GUESS_RAW)
        self._node = float(_GUESS_NODE)
        self.forgotten = False
        """Whether something that failed in the end game was left for a fresh look at what is missing."""

    @property
    def pool(self) -> list[CID]:
        """What nobody is at."""
        return list(self._pool)

    @property
    def finished(self) -> bool:
        return not self._pool and not self.busy

    @property
    def busy(self) -> bool:
        """Whether somebody is at something."""
        return bool(self._shares) or self._reserved > 0

    def __len__(self) -> int:
        """How many blocks were ever on it."""
        return len(self._seen)

    def add(self, found: Iterable[CID]) -> None:
        """What blocks link to, unless it was on the board before."""
        for cid in found:
            if cid not in self._seen:
                self._seen.add(cid)
                self._pool[cid] = None

    # --- taking

    def unit(self, owner: PeerID, offered: Iterable[CID], most: int, *, alone: bool) -> tuple[CID, ...]:
        """As much of what is `offered`, out of the pool, as this provider should be asked for next."""
        room = float("inf") if alone else self._size_for(owner)
        chosen: list[CID] = []
        for cid in offered:
            if len(chosen) == most or (chosen and room <= 0):
                break
            chosen.append(cid)
            room -= self._estimate(cid)
        return tuple(chosen)

    def take(self, owner: PeerID, wanted: tuple[CID, ...], work: _W, now: float) -> Share[_W]:
        """These, out of the pool, are this provider's now."""
        for cid in wanted:
            self._pool.pop(cid, None)
        share = Share(owner=owner, wanted=wanted, work=work, started=now, heard=now)
        self._shares.add(share)
        return share

    @contextmanager
    def reserving(self, wanted: Iterable[CID]) -> Iterator[None]:
        """A block in which these are out of the pool, while it is found out whether they are needed."""
        for cid in wanted:
            self._pool.pop(cid, None)
        self._reserved += 1
        try:
            yield
        finally:
            self._reserved -= 1

    def steal(self, thief: PeerID, now: float) -> bool:
        """Put what is farthest from its turn in the share of another into the pool; whether there was any."""
        best, spare, keep = None, 0.0, 1
        for share in self._shares:
            if share.owner == thief or share.group or now - share.started < GRACE:
                continue
            rest = share.work.rest()
            size = self._spare(share, rest, now)
            if size > spare:
                best, spare, keep = share, size, self._keep(share, rest, now)
        if best is None:
            return False
        stolen = best.work.split(keep)
        self._pool.update(dict.fromkeys(stolen))
        best.whole &= not stolen
        return bool(stolen)

    def stalled(self, thief: PeerID, now: float) -> Share[_W] | None:
        """The share of another from which nothing has come for long, unless it is fetched twice already."""
        for share in self._shares:
            if share.owner != thief and not share.group and now - share.heard >= STALLED:
                return share
        return None

    def double(
        self, thief: PeerID, share: Share[_W], wanted: tuple[CID, ...], work: _W, now: float
    ) -> Share[_W]:
        """Fetch what is left of a share a second time, for who comes first."""
        twin = self.take(thief, wanted, work, now)
        twin.group = share.group = {share, twin}
        return twin

    def _spare(self, share: Share[_W], rest: list[CID], now: float) -> float:
        """Bytes that could be taken from this share, 0 when it is not worth it."""
        spare = sum(map(self._estimate, rest[self._keep(share, rest, now) :]))
        slow = now - share.heard >= STALLED / 2 or spare > self._speed(share, now) * UNIT_SECONDS / 2
        return spare if slow else 0.0

    def _keep(self, share: Share[_W], rest: list[CID], now: float) -> int:
        """How many of its next blocks a provider should keep."""
        room = 0.0 if now - share.heard >= STALLED / 2 else self._speed(share, now) * UNIT_SECONDS / 4
        keep = 0
        for cid in rest:
            keep += 1
            room -= self._estimate(cid)
            if room <= 0:
                break
        return max(keep, 1)

    def _speed(self, share: Share[_W], now: float) -> float:
        return max(share.bytes / max(now - share.started, GRACE), 1.0)

    def _size_for(self, owner: PeerID) -> float:
        return min(max(self._rates.get(owner, LEAST_UNIT) * UNIT_SECONDS, LEAST_UNIT), MOST_UNIT)

    def _estimate(self, cid: CID) -> float:
        """Bytes below a block that is not here yet."""
        return self._raw if cid.codec == RAW else self._node

    # --- coming back

    def done(self, share: Share[_W], now: float) -> None:
        """All of a share has come."""
        self._end(share)
        for twin in share.group - {share}:
            self._end(twin)
            twin.stop()
        if now > share.started:
            self._rates[share.owner] = share.bytes / max(now - share.started, 0.001)
        if share.whole:
            self._learn(share)

    def failed(self, share: Share[_W]) -> None:
        """A share ended before all had come: what is left of it is for others."""
        if share not in self._shares:
            return  # its twin was quicker
        self._end(share)
        twins = share.group - {share}
        if not twins:
            self._pool.update(dict.fromkeys(share.work.rest()))
        elif not any(twin in self._shares for twin in twins):
            self.forgotten = True

    def _end(self, share: Share[_W]) -> None:
        self._shares.discard(share)

    def _learn(self, share: Share[_W]) -> None:
        """What a block with all below it comes to here, as far as this share tells."""
        nodes = sum(cid.codec != RAW for cid in share.wanted)
        if nodes:
            below = max(share.bytes - (len(share.wanted) - nodes) * self._raw, 1.0)
            self._node = (self._node + below / nodes) / 2
        elif share.wanted:
            self._raw = (self._raw + share.bytes / len(share.wanted)) / 2
