"""Limits on dials, with a swarm that only waits. `test_peers` has the rest."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
import trio.testing
from libp2p.peer.id import ID

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.libp2p import dialer
from bacalhau_p2p.transports.libp2p.dialer import DIAL_TIMEOUT, Dialer

TARPIT, GOOD = "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1"


def peer(number: int) -> PeerID:
    return Identity.generate(bytes([number]) * 32).peer_id


class WaitingSwarm:
    """Connects to the good address at once, and to the others never."""

    def __init__(self) -> None:
        self.self_id = ID.from_base58(peer(0))
        self.dialling = self.most = 0
        self.connected: list[str] = []

    async def dial_addr(self, address: object, peer_id: ID) -> None:
        self.dialling += 1
        self.most = max(self.most, self.dialling)
        try:
            if str(address).startswith(GOOD):
                self.connected.append(peer_id.to_base58())
            else:
                await trio.sleep_forever()
        finally:
            self.dialling -= 1


class NoSessions:
    def is_connected(self, peer: str) -> bool:
        return False


async def test_addresses_that_never_answer_do_not_take_all_descriptors(autojump_clock, monkeypatch):
    monkeypatch.setattr(dialer, "MAX_DIALS", 3)
    swarm, counters, reasons = WaitingSwarm(), Counter(), []
    async with trio.open_nursery() as nursery:
        dials = Dialer(swarm, nursery, sessions=NoSessions(), admits=lambda peer: True, counters=counters)

        async def connect(number: int, address: str) -> None:
            try:
                await dials.connect(peer(number), [address, address])
            except PeerUnreachable as error:
                reasons.append(str(error).rpartition(": ")[2])

        async with trio.open_nursery() as callers:
            for number in range(1, 11):
                callers.start_soon(connect, number, TARPIT)
            await trio.testing.wait_all_tasks_blocked()
            await connect(11, GOOD)
        assert swarm.connected == [peer(11)]
        assert swarm.most in (3, 4)  # the oldest may end while the next begins
        assert trio.current_time() == pytest.approx(2 * DIAL_TIMEOUT)
        assert counters == {"dials_given_up": 8}
        assert Counter(reasons) == {
            "given up for later dials)": 8,
            "no answer within 5 s)": 2,
        }
