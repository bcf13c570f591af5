"""Which nodes lately had the inputs of jobs, so that these nodes are asked first when others want the same.

Pure, as a part of the requester's machine. Nothing is looked up: a node has an input that it had when it bid,
or that an execution on it has used, and results that it has published.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TypeVar

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.components.undo import Undoable, UndoableDict
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution
from bacalhau_p2p.model.job import JobSpec, SpecConfig

V = TypeVar("V")
_Nodes = dict[str, tuple[PeerID, ...]]

MAX_SOURCES = 2_000
"""Inputs and results whose holders are remembered: those that were last used."""
MAX_HOLDERS = 8
"""Nodes that are remembered for each: those that were last seen to have it. At most half of them only say so
in bids: anybody may, and who has used it must not be forgotten for that."""
ASK_AGAIN_AFTER = 60.0
"""Seconds after which connected nodes are asked again who has an input, when none had it."""
MAX_INPUTS = 16
"""Inputs of one job that count, the first ones."""


class Holders(Undoable):
    """What one requester knows about where inputs are."""

    def __init__(self) -> None:
        self._holders: dict[str, tuple[PeerID, ...]] = UndoableDict()
        """By input, those that have used it or made it, the latest first."""
        self._claimed: dict[str, tuple[PeerID, ...]] = UndoableDict()
        """By input, those that say that they have it, the latest first."""
        self._asked: dict[str, UnixSeconds] = UndoableDict()
        """When connected nodes were last asked who has an input."""

    def __len__(self) -> int:
        """The inputs and results whose holders are known."""
        return len(self._holders.keys() | self._claimed.keys())

    def of(self, spec: JobSpec) -> list[PeerID]:
        """Nodes that have inputs of this job, those with most of them first, and first those that have used
        them."""
        found: dict[PeerID, tuple[int, int]] = {}
        for key in _keys(spec):
            used = self._holders.get(key, ())
            for node in dict.fromkeys((*used, *self._claimed.get(key, ()))):
                inputs, proven = found.get(node, (0, 0))
                found[node] = inputs + 1, proven + (node in used)
        return sorted(found, key=lambda node: found[node], reverse=True)

    def may_ask(self, spec: JobSpec, now: UnixSeconds) -> bool:
        """Whether to ask connected nodes who has the inputs of this job: nobody is known to, and they were
        not asked lately. Then they count as asked."""
        keys = _keys(spec)
        if not keys or self.of(spec) or any(now < self._asked.get(key, -1.0) for key in keys):
            return False
        for key in keys:
            _put(self._asked, key, now + ASK_AGAIN_AFTER)
        return True

    def bid(self, spec: JobSpec, node: PeerID, bid: say.Bid) -> None:
        """A node has bid on this job, and has said how much of its inputs it has."""
        if bid.input_bytes and bid.local_input_bytes >= bid.input_bytes:
            self._note(self._claimed, _keys(spec), node, MAX_HOLDERS // 2)
        elif bid.local_input_bytes < bid.input_bytes:
            self._forget(_keys(spec), node)

    def completed(self, spec: JobSpec, execution: Execution) -> None:
        """An execution has used the inputs of its job, and its node has published the result."""
        published = execution.published
        result = published is not None and published.location.type == "ipfs"
        made = [f"ipfs {published.cid}"] if published is not None and result else []
        self._note(self._holders, [*_keys(spec), *made], execution.node_id, MAX_HOLDERS)

    def failed(self, spec: JobSpec, node: PeerID) -> None:
        """An execution of this job has failed, or was lost with its node."""
        self._forget(_keys(spec), node)

    def _note(self, known: _Nodes, keys: Sequence[str], node: PeerID, most: int) -> None:
        for key in keys:
            others = (other for other in known.get(key, ()) if other != node)
            _put(known, key, (node, *others)[:most])

    def _forget(self, keys: Sequence[str], node: PeerID) -> None:
        for known in (self._holders, self._claimed):
            for key in keys:
                if node in (nodes := known.get(key, ())):
                    known[key] = tuple(other for other in nodes if other != node)


def _put(known: dict[str, V], key: str, value: V) -> None:
    """Remember this as the latest, and forget the oldest if there are too many."""
    known.pop(key, None)
    known[key] = value
    if len(known) > MAX_SOURCES:
        del known[next(iter(known))]


def _keys(spec: JobSpec) -> list[str]:
    """What the inputs of a job are remembered by."""
    return list(dict.fromkeys(map(_key, spec.outer_sources[:MAX_INPUTS])))


def _key(source: SpecConfig) -> str:
    """Content is the same however a job names it; of everything below a CID, the root counts."""
    cid = source.params.get("CID")
    if source.type == "ipfs" and isinstance(cid, str):
        return f"ipfs {cid.removeprefix('ipfs://').partition('/')[0]}"
    return sha256(repr((source.type, source.params)).encode("utf-8", "surrogatepass")).hexdigest()
