"""What came of asking each peer, for the error that says why nobody could give the content."""

from __future__ import annotations

from collections import Counter
from enum import Enum

import trio

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.model.base import PeerID


class Came(Enum):
    """What came of asking one peer: in words about one, and about several."""

    HAS = ("", "")
    """Some of it at least. What came of that is said elsewhere."""
    NOTHING = ("had nothing", "had nothing")
    BUSY = ("was busy", "were busy")
    REFUSED = ("refused", "refused")
    UNREACHED = ("could not be reached for content", "could not be reached for content")
    """There was no connection to it, or it speaks no protocol of ours."""
    BROKE_OFF = ("broke off", "broke off")
    SILENT = ("did not answer in time", "did not answer in time")

    @classmethod
    def of(cls, *faults: PeerFault) -> Came:
        """What came of asking a peer over one protocol after another, which all failed."""
        causes = [fault.__cause__ for fault in faults]
        if any(isinstance(cause, trio.TooSlowError) for cause in causes):
            return cls.SILENT
        if all(isinstance(cause, PeerUnreachable) for cause in causes):
            return cls.UNREACHED
        return cls.BROKE_OFF


class Answers:
    """What came of asking peers."""

    def __init__(self) -> None:
        self._came: dict[PeerID, Came] = {}

    def __bool__(self) -> bool:
        return bool(self._came)

    def wait_for(self, peer: PeerID) -> None:
        """This peer is being asked."""
        self._came[peer] = Came.SILENT

    def busy(self, peer: PeerID) -> None:
        """A peer that is being asked put us off; it will be asked again."""
        if self._came[peer] is Came.SILENT:
            self._came[peer] = Came.BUSY

    def __setitem__(self, peer: PeerID, came: Came) -> None:
        self._came[peer] = came

    def __str__(self) -> str:
        """`3 peers were asked, 1 had nothing, 2 did not answer in time`."""
        asked, counts = len(self._came), Counter(self._came.values())
        text = "1 peer was asked" if asked == 1 else f"{asked} peers were asked"
        if counts.keys() <= {Came.HAS, Came.NOTHING}:
            return text
        said = [f"{counts[came]} {came.value[counts[came] > 1]}" for came in Came if came is not Came.HAS]
        return ", ".join([text, *(words for words in said if not words.startswith("0 "))])
