"""What a fetch tried and what came of it, for the error when it fails."""

from __future__ import annotations

from collections import Counter
from enum import Enum

import trio

from bacalhau_p2p.errors import ContentError, ContentNotFound, InvalidContent, PeerUnreachable
from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import PeerID


class Outcome(Enum):
    """What came of asking one peer whether it has the content. The values are words for the error."""

    HAS = ""
    """It has at least a part. How the transfer went is reported separately."""
    MISSING = "without it"
    BUSY = "busy"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    """There is no connection to it, or it speaks no protocol of ours."""
    FAILED = "failed to answer"
    TIMED_OUT = "timed out"

    @classmethod
    def of(cls, *faults: PeerFault) -> Outcome:
        """The outcome when a peer was asked by one protocol after another, and all failed."""
        causes = [fault.__cause__ for fault in faults]
        if any(isinstance(cause, trio.TooSlowError) for cause in causes):
            return cls.TIMED_OUT
        if all(isinstance(cause, PeerUnreachable) for cause in causes):
            return cls.UNREACHABLE
        return cls.FAILED


class FetchReport:
    """Everything that was tried to fetch one DAG."""

    def __init__(self) -> None:
        self.finder = ""
        """What the provider finder did, in words."""
        self._outcomes: dict[PeerID, Outcome] = {}
        self._faults: dict[str, PeerFault] = {}
        self._gateways: list[str] = []

    def asking(self, peer: PeerID) -> None:
        """A peer is being asked; until there is an outcome, it counts as timed out."""
        self._outcomes[peer] = Outcome.TIMED_OUT

    def busy(self, peer: PeerID) -> None:
        """A peer answered that it is busy, and will be asked again."""
        if self._outcomes[peer] is Outcome.TIMED_OUT:
            self._outcomes[peer] = Outcome.BUSY

    def answered(self, peer: PeerID, outcome: Outcome) -> None:
        self._outcomes[peer] = outcome

    def transfer_failed(self, peer: PeerID, fault: PeerFault) -> None:
        self._faults[f"peer {peer}"] = fault

    def gateway_failed(self, name: str, fault: PeerFault) -> None:
        if fault.invalid:
            self._faults[name] = fault
        self._gateways.append(f"{name}: {fault}")

    def error(self, cid: CID, *, partial_providers: int) -> ContentError:
        """The error of a failed fetch; `partial_providers` peers had a part of the DAG."""
        for source, fault in self._faults.items():
            if fault.invalid:
                return InvalidContent(f"cannot fetch {cid}: {source} sent invalid data: {fault}")
        details = self._details(partial_providers)
        for source, fault in self._faults.items():
            return ContentNotFound(f"cannot fetch {cid} from {source}: {fault} ({details})")
        if not self._outcomes and not self.finder and not self._gateways:
            return ContentNotFound(f"{cid} is not in the local store, and no peers are known")
        return ContentNotFound(f"no peer has {cid}: {details}")

    def _details(self, partial_providers: int) -> str:
        parts = [self._asked_peers()]
        if partial_providers:
            parts.append(f"{_peers(partial_providers)} with parts of it")
        if self.finder:
            parts.append(self.finder)
        return "; ".join([*parts, *self._gateways])

    def _asked_peers(self) -> str:
        """`asked 3 peers (1 without it, 2 timed out)`."""
        counts = Counter(self._outcomes.values())
        text = f"asked {_peers(len(self._outcomes))}"
        if counts.keys() <= {Outcome.HAS, Outcome.MISSING}:
            return text
        outcomes = [
            f"{counts[outcome]} {outcome.value}"
            for outcome in Outcome
            if counts[outcome] and outcome is not Outcome.HAS
        ]
        return f"{text} ({', '.join(outcomes)})"


def _peers(count: int) -> str:
    return "1 peer" if count == 1 else f"{count} peers"
