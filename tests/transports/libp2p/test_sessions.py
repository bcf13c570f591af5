"""When a peer is pinged. `test_guards.py` and `test_peers.py` have what follows for real connections."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import trio

from bacalhau_p2p.transports.libp2p import sessions
from bacalhau_p2p.transports.libp2p.sessions import (
    FEW_CONNECTIONS,
    LISTENER_PATIENCE,
    LONGEST_PING_INTERVAL,
    PING_INTERVAL,
    ROUND_TRIP_LASTS,
    Session,
    Sessions,
)


class Swarm:
    def register_notifee(self, notifee) -> None:
        pass


class Connection:
    """A connection whose peer answers pings at once, while it is alive."""

    def __init__(self, *, is_initiator: bool = True) -> None:
        self.muxed_conn = self
        self.is_initiator = is_initiator
        self.is_closed = False
        self.event_closed = trio.Event()
        self.pinged: list[float] = []
        self.heard_at = trio.current_time()
        self.alive = True

    async def ping(self, timeout: float) -> bool:
        await trio.lowlevel.checkpoint()
        self.pinged.append(trio.current_time())
        if self.alive:
            self.heard_at = trio.current_time()
        return self.alive

    def close(self) -> None:
        self.is_closed = True
        self.event_closed.set()


@pytest.fixture
def watching(nursery, monkeypatch):
    async def abort(connection: Connection) -> None:
        connection.close()

    monkeypatch.setattr(sessions, "abort", abort)
    return Sessions(
        Swarm(),
        nursery,
        emit=lambda event: None,
        connected=lambda conn: None,
        connection_lost=lambda conn: None,
        counters=Counter(),
    )


def gaps(connection: Connection) -> set[float]:
    times = connection.pinged
    return {round(later - earlier, 1) for earlier, later in pairwise(times)}


@pytest.mark.parametrize(
    ("peers", "interval"),
    [
        (1, PING_INTERVAL),
        (FEW_CONNECTIONS, PING_INTERVAL),
        (2 * FEW_CONNECTIONS, 2 * PING_INTERVAL),
        (100, LONGEST_PING_INTERVAL),
    ],
)
async def test_silent_peers_are_pinged_the_more_rarely_the_more_there_are(
    watching, nursery, autojump_clock, peers, interval
):
    watching._sessions = {f"peer-{number}": Session(f"peer-{number}", None) for number in range(peers)}
    connection = Connection()
    nursery.start_soon(watching._watch, connection)
    await trio.sleep(60)
    connection.close()
    assert gaps(connection) == {interval}


async def test_of_two_nodes_only_the_one_that_dialled_pings(watching, nursery, autojump_clock):
    dialler, listener = Connection(), Connection(is_initiator=False)
    for connection in (dialler, listener):
        nursery.start_soon(watching._watch, connection)
    for _ in range(50):
        await trio.sleep(PING_INTERVAL)
        listener.heard_at = trio.current_time()
    assert gaps(dialler) == {PING_INTERVAL}
    assert gaps(listener) == {ROUND_TRIP_LASTS}
    dialler.close()
    listener.close()


@pytest.mark.parametrize("is_initiator", [True, False])
async def test_a_peer_that_falls_silent_is_pinged_and_then_disconnected(
    watching, nursery, autojump_clock, is_initiator
):
    connection = Connection(is_initiator=is_initiator)
    nursery.start_soon(watching._watch, connection)
    for _ in range(5):
        await trio.sleep(1)
        connection.heard_at = trio.current_time()
    connection.alive = False
    await trio.sleep(PING_INTERVAL + LISTENER_PATIENCE + 0.1)
    assert connection.is_closed
