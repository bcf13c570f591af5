"""Peers that have a DAG or parts of it, and how to get parts from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bacalhau_p2p.ipfs.exchange.block_receiver import BlockReceiver
from bacalhau_p2p.ipfs.exchange.flat_walk import FlatWalk
from bacalhau_p2p.ipfs.exchange.interface import BlockFetch, FallbackProtocol, OnBytes
from bacalhau_p2p.ipfs.exchange.requests import Requests
from bacalhau_p2p.ipfs.exchange.scheduler import Assignment
from bacalhau_p2p.ipfs.exchange.wire import HOLDS_ALL, HOLDS_NOTHING, HOLDS_ROOT
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.format.traversal import Walk
from bacalhau_p2p.model.base import PeerID

PARTS_PER_QUESTION = 256
"""Parts of a DAG that a provider is asked about in one request."""

PartFetch = Walk | BlockFetch
"""What is left of an assignment: a walk for our protocol, or a fetch by another one."""


class Provider(Protocol):
    """A peer that has at least a part of a DAG."""

    peer: PeerID
    whole: bool
    """Whether it has all of the DAG."""
    supports_flat: bool
    """Whether it sends blocks without what is below them, as far as is known."""

    async def held(self, parts: Sequence[CID]) -> list[CID]:
        """Those of these parts that it can be asked for. Raises PeerFault."""
        ...

    def prepare(self, wanted: Sequence[CID], *, flat: bool) -> PartFetch:
        """A fetch of these parts that has not started."""
        ...

    async def fetch(self, assignment: Assignment[PartFetch], on_bytes: OnBytes) -> None:
        """Bring the parts of an assignment into the block store. Raises PeerFault, ContentError."""
        ...

    def note_unavailable(self, assignment: Assignment[PartFetch]) -> bool:
        """Note the parts that it turned out not to have; whether they explain why an assignment failed."""
        ...


class CarProvider:
    """A provider that speaks our protocol."""

    def __init__(
        self,
        peer: PeerID,
        cid: CID,
        requests: Requests,
        receiver: BlockReceiver,
        limits: Limits,
        *,
        whole: bool,
    ) -> None:
        self.peer = peer
        self.whole = whole
        self.supports_flat = True
        self._cid = cid
        self._requests = requests
        self._receiver = receiver
        self._limits = limits
        self._holds: dict[CID, int] = {}
        """What it said about parts, if it does not have the whole DAG."""

    async def held(self, parts: Sequence[CID]) -> list[CID]:
        """A part of which it has only the root comes last and alone, because its stream will break off."""
        if self.whole:
            return list(parts)
        unknown = [cid for cid in parts if cid not in self._holds]
        while unknown:
            asked, unknown = unknown[:PARTS_PER_QUESTION], unknown[PARTS_PER_QUESTION:]
            answer = await self._requests.have(self.peer, self._cid, tuple(asked))
            holds = answer.holds.ljust(len(asked), bytes((HOLDS_NOTHING,)))
            self._holds.update(zip(asked, holds, strict=False))
            if any(map(self._sends, parts)):
                break
        held = [cid for cid in parts if self._sends(cid)]
        return held or [cid for cid in parts if self._holds.get(cid) == HOLDS_ROOT][:1]

    def _sends(self, cid: CID) -> bool:
        """Whether it said that it has a part, or the root of one, of which it sends only the root."""
        holds = self._holds.get(cid, HOLDS_NOTHING)
        return holds == HOLDS_ALL or (holds == HOLDS_ROOT and self.supports_flat and cid.codec != RAW)

    def prepare(self, wanted: Sequence[CID], *, flat: bool) -> PartFetch:
        return FlatWalk(wanted, self._limits) if flat else Walk(list(wanted), self._limits)

    async def fetch(self, assignment: Assignment[PartFetch], on_bytes: OnBytes) -> None:
        assert isinstance(assignment.work, Walk)
        await self._receiver.fetch(self.peer, self._cid, assignment.wanted, assignment.work, on_bytes)

    def note_unavailable(self, assignment: Assignment[PartFetch]) -> bool:
        roots_only = HOLDS_ROOT in map(self._holds.get, assignment.wanted)
        unavailable = assignment.work.rest()[:1] if assignment.bytes and roots_only else []
        self._holds.update(dict.fromkeys(unavailable, HOLDS_NOTHING))
        return bool(unavailable)


class FallbackProvider:
    """A provider that speaks only the fallback protocol, by which it can be asked for its root only."""

    whole = True
    supports_flat = False

    def __init__(self, peer: PeerID, cid: CID, protocol: FallbackProtocol) -> None:
        self.peer = peer
        self._cid = cid
        self._protocol = protocol
        self._unavailable: set[CID] = set()

    async def held(self, parts: Sequence[CID]) -> list[CID]:
        return [cid for cid in parts if cid not in self._unavailable]

    def prepare(self, wanted: Sequence[CID], *, flat: bool) -> PartFetch:
        return self._protocol.prepare(wanted)

    async def fetch(self, assignment: Assignment[PartFetch], on_bytes: OnBytes) -> None:
        assert not isinstance(assignment.work, Walk)
        await assignment.work.run(self.peer, self._cid, on_bytes)

    def note_unavailable(self, assignment: Assignment[PartFetch]) -> bool:
        assert not isinstance(assignment.work, Walk)
        self._unavailable |= set(assignment.work.unavailable)
        return bool(assignment.work.unavailable)
