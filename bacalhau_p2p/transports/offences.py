"""Who sends what is dropped: counted by peer, and named in the log once a minute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

MAX_OFFENDERS = 1_000
"""Peers whose offences are counted. When there are more, the half with the fewest is forgotten."""
MAX_SHOWN = 10
"""Peers in `worst`, and in the log at a time."""
FEWEST_LOGGED = 10
"""Offences of a peer within LOG_INTERVAL below which the log does not name it."""
LOG_INTERVAL = 60.0
"""Seconds between two calls of `report`."""


class Offences:
    """The messages, streams and connections of each peer that were dropped, by the counter they belong to."""

    def __init__(self) -> None:
        self._by_peer: dict[PeerID, Counter[str]] = {}
        self._reported: dict[PeerID, int] = {}
        self._reasons: dict[PeerID, str] = {}

    def note(self, peer: PeerID, kind: str, reason: str, count: int = 1) -> None:
        """Something of this peer was dropped. `kind` is the name of a counter, such as `malformed`."""
        offences = self._by_peer.get(peer)
        if offences is None:
            if len(self._by_peer) >= MAX_OFFENDERS:
                self._forget_half()
            offences = self._by_peer[peer] = Counter()
        offences[kind] += count
        self._reasons[peer] = reason

    def of(self, peer: PeerID) -> Mapping[str, int]:
        """The offences of one peer, by counter."""
        return self._by_peer.get(peer, {})

    def worst(self) -> dict[PeerID, dict[str, int]]:
        """The peers with the most offences, worst first."""
        return {peer: dict(self._by_peer[peer]) for peer in self._ranked()[:MAX_SHOWN]}

    def report(self) -> None:
        """Name in the log the peers with the most offences since the last call."""
        new = {peer: all_.total() - self._reported.get(peer, 0) for peer, all_ in self._by_peer.items()}
        self._reported = {peer: all_.total() for peer, all_ in self._by_peer.items()}
        worst = sorted((peer for peer in new if new[peer] >= FEWEST_LOGGED), key=lambda peer: -new[peer])
        for peer in worst[:MAX_SHOWN]:
            log.warning(
                "peer_misbehaves", peer=peer, last=self._reasons[peer], new=new[peer], **self._by_peer[peer]
            )
        if len(worst) > MAX_SHOWN:
            log.warning("more_peers_misbehave", peers=len(worst) - MAX_SHOWN)

    def _ranked(self) -> list[PeerID]:
        return sorted(self._by_peer, key=lambda peer: -self._by_peer[peer].total())

    def _forget_half(self) -> None:
        for peer in self._ranked()[MAX_OFFENDERS // 2 :]:
            del self._by_peer[peer], self._reasons[peer]
            self._reported.pop(peer, None)
