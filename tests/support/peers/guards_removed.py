"""Removes one guard from our transport, in a child process, to show that py-libp2p still needs it.

When a test "..._is_still_needed" fails, a newer py-libp2p has fixed the fault: remove the guard.
"""

from __future__ import annotations

import time
from math import inf
from typing import Any


def prepare(guard: str | None) -> None:
    """Remove the guard, as far as that happens before the transport is opened."""
    from libp2p.pubsub.gossipsub import GossipSub
    from libp2p.pubsub.pubsub import Pubsub

    from bacalhau_p2p.transports.libp2p import sessions, swarm
    from bacalhau_p2p.transports.libp2p.gossip import pubsub, router

    match guard:
        case "contained tasks" | "guarded streams":
            del swarm.GuardedSwarm.manager
            del pubsub.GuardedPubsub.manager
            del router.GossipRouter.manager
        case "guarded messages":
            prepare("contained tasks")
            pubsub.GuardedPubsub.push_msg = Pubsub.push_msg
            pubsub.GuardedPubsub.continuously_read_stream = Pubsub.continuously_read_stream
        case "own inbound handler":
            swarm.MAX_CONNECTIONS = 20
            del swarm.GuardedSwarm._do_handle_inbound_connection
        case "many connections":
            swarm.MAX_CONNECTIONS = 20
        case "pings":
            sessions.PING_INTERVAL = inf
        case "handshake timeout":
            swarm.HANDSHAKE_TIMEOUT = 600.0
        case "flood publishing":
            del router.GossipRouter._get_peers_to_send
        case "refusing itself":
            swarm.GuardedSwarm.add_conn = swarm.Swarm.add_conn
        case "disabled spam protection" | "scaled degree":
            if guard == "disabled spam protection":
                del router.GossipRouter.publish
            stock = GossipSub.__init__

            def init(self: Any, **options: Any) -> None:
                if guard == "disabled spam protection":
                    options["spam_protection_enabled"] = True
                else:
                    options |= {"degree": 6, "degree_low": 4, "degree_high": 12}
                stock(self, **options)

            GossipSub.__init__ = init


def remove(guard: str | None, transport: Any) -> None:
    """Remove the guard, as far as that happens on an open transport."""
    match guard:
        case "guarded streams":
            transport._swarm.set_stream_handler(transport._host._swarm_stream_handler)
            stock = type(transport._pubsub).__mro__[1]
            type(transport._pubsub).continuously_read_stream = stock.continuously_read_stream
        case "counter in nanoseconds":
            transport._pubsub.counter = int(time.time())
        case "expanded addresses":
            transport._host._addrs_factory = None
            transport._host._fixed = None
