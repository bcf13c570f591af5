"""Which peers may be connected: whom the operator lets in, unless they keep breaking the protocol."""

from __future__ import annotations

from collections import Counter
from typing import Final

import trio

from bacalhau_p2p.model.access_list import EVERYBODY, AccessList
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.logs import get_logger

MAX_OFFENCES: Final = 10
"""Breaches of the protocol after which a peer is banned."""

BAN_DURATION: Final = 600.0
"""Seconds."""

MAX_OFFENDERS: Final = 4096
"""Peers whose offences are counted."""

_log = get_logger(__name__)


class Admission:
    """The operator's lists, bans, and the offences that lead to them."""

    def __init__(self, counters: Counter[str], access: AccessList = EVERYBODY) -> None:
        self._counters = counters
        self._access = access
        self._banned: dict[str, float] = {}  # until when
        self._offences: Counter[PeerID] = Counter()
        self._closed = False

    def admits(self, peer: str) -> bool:
        """Whether this peer may be connected now."""
        if self._closed or not self._access.admits(PeerID(peer)):
            return False
        until = self._banned.get(peer)
        if until is None:
            return True
        if trio.current_time() < until:
            return False
        del self._banned[peer]
        return True

    def ban(self, peer: PeerID, seconds: float) -> None:
        """Admit this peer no more for so long."""
        now = trio.current_time()
        self._banned = {banned: until for banned, until in self._banned.items() if until > now}
        self._banned[peer] = now + seconds
        self._counters["peers_banned"] += 1

    def record_offence(self, peer: PeerID, what: str) -> bool:
        """Count a breach of the protocol; True when it is one too many and the peer must be banned."""
        self._counters["offences"] += 1
        if len(self._offences) >= MAX_OFFENDERS:
            self._offences.clear()  # identities are free, and repeat offenders are counted again
        self._offences[peer] += 1
        _log.info("offence", peer=peer, what=what)
        if self._offences[peer] < MAX_OFFENCES:
            return False
        del self._offences[peer]
        return True

    def close(self) -> None:
        """Admit no more peers."""
        self._closed = True
