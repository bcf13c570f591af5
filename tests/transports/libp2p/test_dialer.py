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
from bacalhau_p2p.transports import dial_budget
from bacalhau_p2p.transports.dial_budget import DialBudget, dialling_for
from bacalhau_p2p.transports.libp2p import dialer
from bacalhau_p2p.transports.libp2p.dialer import DIAL_TIMEOUT, Dialer
from bacalhau_p2p.transports.offences import Offences

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


class ShortSessions(NoSessions):
    """Each connection lasts so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def get(self, peer: str) -> ShortSessions:
        return self

    @property
    def peers(self) -> tuple[PeerID, ...]:
        return ()

    @property
    def gone(self) -> ShortSessions:
        return self

    async def wait(self) -> None:
        await trio.sleep(self.seconds)


def new_dialer(swarm, nursery, *, budget=None, counters=None, sessions=None) -> Dialer:
    return Dialer(
        swarm,
        nursery,
        sessions=sessions or NoSessions(),
        admits=lambda peer: True,
        budget=budget or DialBudget(trio.current_time, Offences()),
        counters=Counter() if counters is None else counters,
    )


async def test_addresses_that_never_answer_do_not_take_all_descriptors(autojump_clock, monkeypatch):
    monkeypatch.setattr(dialer, "MAX_DIALS", 3)
    swarm, counters, reasons = WaitingSwarm(), Counter(), []
    async with trio.open_nursery() as nursery:
        dials = new_dialer(swarm, nursery, counters=counters)

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


async def reason(dials: Dialer, number: int, address: str) -> str:
    """Why this peer cannot be reached; empty if it can."""
    try:
        await dials.connect(peer(number), [address])
    except PeerUnreachable as error:
        return str(error)
    return ""


async def test_who_brings_strangers_that_never_answer_is_dialled_for_no_more(autojump_clock, monkeypatch):
    monkeypatch.setattr(dial_budget, "VAIN_DIAL_BURST", 3)
    offences, hub = Offences(), peer(99)
    budget = DialBudget(trio.current_time, offences)
    for number in range(1, 30):
        budget.brought(peer(number), hub)
    async with trio.open_nursery() as nursery:
        dials = new_dialer(WaitingSwarm(), nursery, budget=budget)
        async with trio.open_nursery() as callers:
            for number in range(1, 21):
                callers.start_soon(reason, dials, number, TARPIT)
        began = trio.current_time()
        assert hub in await reason(dials, 21, GOOD)
        assert trio.current_time() == began
        assert await reason(dials, 50, GOOD) == ""  # nobody brought this one
        await trio.sleep(60)
        assert await reason(dials, 21, GOOD) == ""
    assert offences.of(hub)["vain_dials"] > 10


async def test_a_requester_pays_for_the_providers_that_its_jobs_name(autojump_clock, monkeypatch):
    monkeypatch.setattr(dial_budget, "VAIN_DIAL_BURST", 1)
    requester = peer(77)
    async with trio.open_nursery() as nursery:
        dials = new_dialer(WaitingSwarm(), nursery)
        with dialling_for(requester):
            async with trio.open_nursery() as callers:  # as inputs are fetched, in tasks of their own
                for number in range(1, 4):
                    callers.start_soon(reason, dials, number, TARPIT)
            assert requester in await reason(dials, 4, GOOD)
        assert await reason(dials, 4, GOOD) == ""


async def test_dials_for_this_node_itself_cost_nobody(autojump_clock, monkeypatch):
    monkeypatch.setattr(dial_budget, "VAIN_DIAL_BURST", 1)
    async with trio.open_nursery() as nursery:
        dials = new_dialer(WaitingSwarm(), nursery)
        with dialling_for(peer(0)):
            for number in range(1, 5):
                assert "no answer" in await reason(dials, number, TARPIT)


async def test_dials_that_are_given_up_for_later_ones_are_in_vain(autojump_clock, monkeypatch):
    monkeypatch.setattr(dialer, "MAX_DIALS", 2)
    offences, hub = Offences(), peer(99)
    budget = DialBudget(trio.current_time, offences)
    monkeypatch.setattr(dial_budget, "VAIN_DIAL_BURST", 3)
    async with trio.open_nursery() as nursery:
        dials = new_dialer(WaitingSwarm(), nursery, budget=budget)
        async with trio.open_nursery() as callers:
            for number in range(1, 9):
                budget.brought(peer(number), hub)
                callers.start_soon(reason, dials, number, TARPIT)
                await trio.testing.wait_all_tasks_blocked()
        assert offences.of(hub)["vain_dials"] > 0


async def times_dialled(lasting: float, within: float) -> int:
    """How often a bootstrap peer is dialled whose connections last so long."""
    swarm = WaitingSwarm()
    async with trio.open_nursery() as nursery:
        dials = new_dialer(swarm, nursery, sessions=ShortSessions(lasting))
        with trio.move_on_after(within):
            await dials.keep_connected(f"{GOOD}/p2p/{peer(1)}")
        nursery.cancel_scope.cancel()
    return len(swarm.connected)


async def test_a_bootstrap_peer_that_closes_each_connection_at_once_is_dialled_less_and_less(
    autojump_clock, caplog
):
    assert 10 <= await times_dialled(lasting=0.01, within=60) <= 20
    assert sum("it closed the connection at once" in line for line in caplog.messages) in (1, 2)


async def test_a_bootstrap_peer_that_is_lost_after_a_while_is_dialled_again_at_once(autojump_clock, caplog):
    lasting = 2 * dialer.SHORT_CONNECTION
    assert await times_dialled(lasting=lasting, within=60) == 6
    assert not caplog.messages


async def test_nothing_is_said_of_a_bootstrap_peer_when_this_node_closes_the_connection(
    autojump_clock, caplog
):
    async with trio.open_nursery() as nursery:
        dials = new_dialer(WaitingSwarm(), nursery, sessions=ShortSessions(1.0))
        with trio.fail_after(60):
            async with trio.open_nursery() as keeping:
                keeping.start_soon(dials.keep_connected, f"{GOOD}/p2p/{peer(1)}")
                await trio.testing.wait_all_tasks_blocked()
                dials.stop()
        nursery.cancel_scope.cancel()
    assert not caplog.messages
