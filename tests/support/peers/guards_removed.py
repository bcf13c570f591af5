"""Takes one guard away from our transport, in a child process, to show that py-libp2p still needs it.

When a test "..._is_still_needed" fails, a newer py-libp2p has mended the fault: remove the guard.
"""

from __future__ import annotations

import time
from typing import Any


def prepare(guard: str | None) -> None:
    """What has to be taken away before the transport is opened."""
    from libp2p.pubsub.gossipsub import GossipSub
    from libp2p.pubsub.pubsub import Pubsub

    from bacalhau_p2p.transports.libp2p import swarm
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
        case "few connections":
            swarm.MAX_CONNECTIONS = 20
        case "flood publishing":
            del router.GossipRouter._get_peers_to_send
        case "no self":
            swarm.GuardedSwarm.add_conn = swarm.Swarm.add_conn
        case "spam protection off" | "scaled degree":
            if guard == "spam protection off":
                del router.GossipRouter.publish
            stock = GossipSub.__init__

            def init(self: Any, **options: Any) -> None:
                if guard == "spam protection off":
                    options["spam_protection_enabled"] = True
                else:
                    options |= {"degree": 6, "degree_low": 4, "degree_high": 12}
                stock(self, **options)

            GossipSub.__init__ = init


def remove(guard: str | None, transport: Any) -> None:
    """What has to be taken away from an open transport."""
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
