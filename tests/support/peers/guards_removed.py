"""Removes one guard from our transport, in a child process, to show that py-libp2p still needs it.

When a test "..._is_still_needed" fails, a newer py-libp2p has fixed the fault: remove the guard.
"""

from __future__ import annotations

from math import inf
from typing import Any


def prepare(guard: str | None) -> None:
    """Remove the guard, as far as that happens before the transport is opened."""
    from bacalhau_p2p.transports.libp2p import sessions, swarm

    match guard:
        case "guarded streams":
            del swarm.GuardedSwarm.manager
        case "own inbound handler":
            swarm.MAX_CONNECTIONS = 20
            del swarm.GuardedSwarm._do_handle_inbound_connection
        case "many connections":
            swarm.MAX_CONNECTIONS = 20
        case "pings":
            sessions.PING_INTERVAL = inf
        case "handshake timeout":
            swarm.HANDSHAKE_TIMEOUT = 600.0
        case "refusing itself":
            swarm.GuardedSwarm.admit = lambda swarm, peer: None


def remove(guard: str | None, transport: Any) -> None:
    """Remove the guard, as far as that happens on an open transport."""
    match guard:
        case "guarded streams":
            transport._swarm.set_stream_handler(transport._host._swarm_stream_handler)
        case "expanded addresses":
            transport._host._addrs_factory = None
            transport._host._fixed = None
