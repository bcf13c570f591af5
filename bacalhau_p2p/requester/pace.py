"""How long nodes lately took to answer announcements, and so how long a round of bids stays open."""

from __future__ import annotations

from bacalhau_p2p.components.undo import Undoable

FIRST_WINDOW = 0.3
"""Seconds that the first round of bids is open at most, where answers are quick; doubles each round."""
LONGEST_FIRST_WINDOW = 2.0
"""The same where answers have lately taken long, because machines are busy or the network is slow."""
LONGEST_WINDOW = 30.0
"""Seconds that any round is open at most."""


class Pace(Undoable):
    """A smoothed average of the time to an answer, and its deviation.

    Both are weighted as TCP does for its retransmissions, and doubled while nobody answers (RFC 6298): one
    slow node changes little, and a burst on a busy machine is noticed within it.
    """

    def __init__(self) -> None:
        self._average = self._deviation = 0.0
        self._patience = 1.0

    def answered_after(self, seconds: float) -> None:
        """A node answered a round this long after it began."""
        self._patience = 1.0
        took = min(max(seconds, 0.0), LONGEST_FIRST_WINDOW)
        if not self._average:
            self._average, self._deviation = took, took / 2
        else:
            self._deviation += (abs(took - self._average) - self._deviation) / 4
            self._average += (took - self._average) / 8

    def nobody_answered(self) -> None:
        """A round is over, and none of the nodes that should have answered it did."""
        self._patience = min(2 * self._patience, LONGEST_FIRST_WINDOW / FIRST_WINDOW)

    @property
    def first_window(self) -> float:
        """Seconds in which nearly all answers to a first round come."""
        expected = max(self._average + 4 * self._deviation, FIRST_WINDOW) * self._patience
        return min(expected, LONGEST_FIRST_WINDOW)

    def window(self, round_number: int) -> float:
        """Seconds that the round of this number is open at most."""
        doubled = FIRST_WINDOW * 2.0 ** min(round_number - 1, 10)
        return min(max(doubled, self.first_window), LONGEST_WINDOW)
