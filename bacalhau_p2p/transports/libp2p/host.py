"""py-libp2p's host, with addresses that are computed once, and without its log."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from libp2p.host.basic_host import BasicHost
from libp2p.network.connection import swarm_connection
from multiaddr import Multiaddr

from bacalhau_p2p.transports.libp2p.addresses import expand_wildcard
from bacalhau_p2p.transports.libp2p.swarm import GuardedSwarm


class Host(BasicHost):  # type: ignore[misc]
    """A host that announces `announced`, or else the addresses on which it listens.

    py-libp2p's computes its addresses again for every message.
    """

    _fixed: tuple[Multiaddr, ...] | None = None

    def __init__(self, swarm: GuardedSwarm, announced: Sequence[Multiaddr]) -> None:
        self._announced = announced
        super().__init__(
            swarm, addrs_factory=self._addresses_to_announce, disable_identify_address_discovery=True
        )

    def get_addrs(self) -> list[Multiaddr]:
        return list(super().get_addrs() if self._fixed is None else self._fixed)

    def fix_addresses(self) -> None:
        """The host listens now, and its addresses do not change any more."""
        self._fixed = tuple(super().get_addrs())

    def _addresses_to_announce(self, candidates: list[Multiaddr]) -> list[Multiaddr]:
        if self._announced:
            return list(self._announced)
        return [address for candidate in candidates for address in expand_wildcard(candidate)]


def silence_libp2p() -> None:
    """Hide py-libp2p's log, which reports everything a peer does wrong as an error. LIBP2P_DEBUG shows it."""
    if "LIBP2P_DEBUG" not in os.environ:
        logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    # This module logs to the root logger, which makes `logging` print everything from everybody.
    swarm_connection.logging = logging.getLogger(swarm_connection.__name__)
