"""Who sends what is dropped: counted by peer, and named in the log."""

from __future__ import annotations

from collections import Counter

from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.rate_limit import TokenBucket

log = get_logger(__name__)

MAX_OFFENDERS = 1_000
"""Peers whose offences are counted. When there are more, the half with the fewest is forgotten."""
MAX_SHOWN = 10
"""Peers in `worst`."""
FIRST_LOGGED = 10
"""Offences of a peer after which the log names it; then after ten times as many, and so on."""
LINES_PER_SECOND = 0.2
LINES_AT_ONCE = 20
"""Limits of the lines in the log, because keys cost nothing."""


class Offences:
    """The messages of each peer that were dropped, by the counter that they belong to."""

    def __init__(self) -> None:
        self._by_peer: dict[PeerID, Counter[str]] = {}
        self._lines = TokenBucket(LINES_PER_SECOND, LINES_AT_ONCE)

    def note(self, peer: PeerID, kind: str, reason: str, now: UnixSeconds) -> None:
        """A message of this peer was dropped. `kind` is the name of a counter, such as `malformed`."""
        offences = self._by_peer.get(peer)
        if offences is None:
            if len(self._by_peer) >= MAX_OFFENDERS:
                self._forget_half()
            offences = self._by_peer[peer] = Counter()
        offences[kind] += 1
        total = offences.total()
        if total >= FIRST_LOGGED and _is_power_of_ten(total) and self._lines.take(now):
            log.warning("peer_misbehaves", peer=peer, last=kind, reason=reason, **offences)

    def worst(self) -> dict[PeerID, dict[str, int]]:
        """The peers with the most offences, worst first."""
        ranked = sorted(self._by_peer.items(), key=lambda item: -item[1].total())
        return {peer: dict(offences) for peer, offences in ranked[:MAX_SHOWN]}

    def _forget_half(self) -> None:
        ranked = sorted(self._by_peer.items(), key=lambda item: -item[1].total())
        self._by_peer = dict(ranked[: MAX_OFFENDERS // 2])


def _is_power_of_ten(number: int) -> bool:
    return str(number).rstrip("0") == "1"
