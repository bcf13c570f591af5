"""The neighbours that a node keeps over a restart: which, for how long, and how often they are dialled."""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.node import neighbours, peer_book
from bacalhau_p2p.node.known_nodes import KnownNodes
from bacalhau_p2p.node.neighbours import (
    AGAIN_AT_LAST,
    KEPT_FOR,
    MOST,
    MOST_ADDRESSES,
    WRITE_APART,
    WRITE_EVERY,
    Neighbours,
)
from bacalhau_p2p.node.peer_book import LOOK_EVERY, PeerBook
from bacalhau_p2p.transports.memory.network import MemoryNetwork

DAY = 24 * 3600.0


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "neighbours.json"


def peer(number: int) -> PeerID:
    return PeerID(f"peer-{number}")


def address(number: int) -> str:
    return f"/ip4/192.0.2.1/tcp/{number}/p2p/{peer(number)}"


def see(known: Neighbours, number: int, now: float, *, met: bool = False) -> None:
    known.saw(peer(number), [address(number)], now, met=met)


def listed(known: Neighbours, now: float) -> set[PeerID]:
    return {neighbour.id for neighbour in known.to_dial(now)}


def restarted(path: Path, now: float) -> Neighbours:
    known = Neighbours(path)
    known.load(now)
    return known


def keep(known: Neighbours, now: float) -> None:
    data = known.due(now, last=True)
    assert data is not None
    known.write(data)


# --- the list and its file ------------------------------------------------------------------------


def test_what_was_kept_is_there_after_a_restart_for_a_week(path):
    known = Neighbours(path)
    see(known, 1, 100.0, met=True)
    see(known, 2, 200.0)
    keep(known, 200.0)
    assert path.stat().st_mode & 0o777 == 0o600
    assert restarted(path, 300.0).to_dial(300.0) == known.to_dial(300.0)
    assert [neighbour.met for neighbour in restarted(path, 300.0).to_dial(300.0)] == [True, False]
    assert listed(restarted(path, 150.0 + KEPT_FOR), 150.0 + KEPT_FOR) == {peer(2)}


def test_a_clock_that_was_put_back_keeps_nobody_for_longer(path):
    known = Neighbours(path)
    see(known, 1, 1000 * DAY)
    keep(known, 1000 * DAY)
    later = restarted(path, DAY)
    assert listed(later, DAY) == {peer(1)}
    assert listed(later, DAY + KEPT_FOR + 1) == set()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[{",
        b"\xff\xfe",
        b'{"id": "x"}',
        b'[{"id": 7, "addresses": [], "seen": 0}]',
        b'[{"id": "x", "addresses": [], "seen": NaN}]',
        b"[" * 100_000,
        b" " * 3_000_000,
    ],
    ids=["empty", "cut", "no text", "no list", "types", "nan", "deep", "large"],
)
def test_a_damaged_file_is_no_error_and_said_in_the_log(path, content, caplog):
    path.write_bytes(content)
    known = restarted(path, 0.0)
    assert listed(known, 0.0) == set()
    assert "neighbours_damaged" in caplog.text
    see(known, 1, 0.0)
    keep(known, 0.0)
    assert listed(restarted(path, 0.0), 0.0) == {peer(1)}


def test_a_missing_file_and_one_that_cannot_be_read_are_said_in_the_log(path, caplog):
    with caplog.at_level(logging.INFO, logger="bacalhau_p2p"):
        restarted(path, 0.0)
    assert "no_neighbours_kept" in caplog.text
    path.mkdir()
    known = restarted(path, 0.0)
    assert "neighbours_unreadable" in caplog.text
    see(known, 1, 0.0)
    keep(known, 0.0)
    assert "neighbours_not_kept" in caplog.text


def test_it_is_written_seldom(path):
    known = Neighbours(path)
    assert known.due(0.0, last=True) is None
    written = []
    for second in range(0, 7200, 5):
        if second < 3600:
            see(known, 1000 + second, float(second))  # ever new ones
        for number in range(0, 100, 5):
            see(known, number, float(second))
        if known.due(float(second)) is not None:
            written.append(second)
    early = [second for second in written if second < 320]
    assert early == [0, 60, 120, 180, 240, 300]
    assert min(b - a for a, b in pairwise(written)) >= WRITE_APART
    late = [second for second in written if second > 3700]  # nothing new but when they were seen
    assert min(b - a for a, b in pairwise(late)) >= WRITE_EVERY
    assert known.due(7200.0, last=True) is not None
    assert known.due(7200.0, last=True) is None


def test_a_flood_of_invented_nodes_drives_out_none_that_is_there():
    known = Neighbours(Path("never written"))
    honest = range(10)
    for number in honest:
        see(known, number, 0.0, met=number == 0)
    for number in range(1000, 9000):
        see(known, number, 30.0)
    assert len(listed(known, 30.0)) == MOST
    assert {peer(number) for number in honest} <= listed(known, 30.0)
    for number in range(10_000, 19_000):  # the honest ones are away by now
        see(known, number, 500.0)
    assert peer(0) in listed(known, 500.0)  # whom it was connected to
    assert len(listed(known, 500.0)) == MOST
    for number in range(100, 100 + MOST):
        see(known, number, 501.0, met=True)
    assert listed(known, 501.0) == {peer(number) for number in range(100, 100 + MOST)}


def test_only_addresses_of_the_node_itself_are_kept_and_not_too_many():
    known = Neighbours(Path("never written"))
    known.saw(
        peer(1), [address(2), "/ip4/192.0.2.1/tcp/1", f"/dns4/{'x' * 300}/p2p/{peer(1)}"], 0.0, met=True
    )
    assert listed(known, 0.0) == set()
    own = [f"/ip4/192.0.2.1/tcp/{port}/p2p/{peer(1)}" for port in range(100)]
    known.saw(peer(1), [address(2), *own], 0.0, met=True)
    (neighbour,) = known.to_dial(0.0)
    assert neighbour.addresses == tuple(own[:MOST_ADDRESSES])
    known.saw(peer(1), [], 5.0, met=False)
    assert known.to_dial(5.0) == [neighbour.model_copy(update={"seen": 5.0})]


# --- dialling -------------------------------------------------------------------------------------


@asynccontextmanager
async def living(
    path: Path,
    wires: MemoryNetwork,
    identity: Identity,
    wanted: int = 4,
    known_nodes: KnownNodes | None = None,
):
    """A node as far as it looks for neighbours; yields its transport, and a count of what it dials."""
    async with wires.open(identity) as transport, trio.open_nursery() as nursery:
        dialled: Counter[str] = Counter()
        connect = transport.connect

        async def counted(address: str) -> PeerID:
            dialled[address] += 1
            return await connect(address)

        transport.connect = counted
        node = PeerBook(transport, known_nodes or KnownNodes(), trio.current_time, Neighbours(path))
        nursery.start_soon(node.keep_neighbours, wanted, random.Random(1))
        yield transport, dialled
        nursery.cancel_scope.cancel()


@pytest.fixture
def jumping(autojump_clock, monkeypatch):
    """A clock that jumps, and waits for no thread: so what is for one is done at once."""

    async def at_once(call, *args):
        return call(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)
    return autojump_clock  # where it is seen by pytest-trio


def nowhere(peer: PeerID) -> str:
    return f"/memory/9/p2p/{peer}"


def write(path: Path, known: dict[PeerID, str], met: PeerID | None = None) -> None:
    entries = [{"id": peer, "addresses": [at], "seen": 0.0, "met": peer == met} for peer, at in known.items()]
    path.write_text(json.dumps(entries))


async def test_a_node_that_starts_alone_turns_to_those_whom_it_knew(path, jumping):
    wires = MemoryNetwork(full_mesh=False)
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(wires.open(Identity.generate()))
        absent = [Identity.generate().peer_id for _ in range(3)]
        write(path, {gone: nowhere(gone) for gone in absent} | {other.peer_id: other.addresses[0]})
        transport, dialled = await stack.enter_async_context(living(path, wires, Identity.generate()))
        with trio.fail_after(2 * LOOK_EVERY):
            while other.peer_id not in transport.peers:  # noqa: ASYNC110
                await trio.sleep(0.1)
        before = dialled.copy()
        await trio.sleep(DAY)
        assert dialled == before  # all is well


async def test_a_node_that_was_cut_off_for_hours_finds_the_others_again(path, jumping):
    wires, known_nodes = MemoryNetwork(full_mesh=False), KnownNodes()
    async with (
        wires.open(Identity.generate()) as other,
        living(path, wires, Identity.generate(), known_nodes=known_nodes) as (transport, _),
    ):
        await transport.connect(other.addresses[0])
        known_nodes.update(NodeInfo(id=other.peer_id, addresses=tuple(other.addresses)), trio.current_time())
        await trio.sleep(2 * LOOK_EVERY)
        wires.cut(transport.peer_id, other.peer_id)
        await trio.sleep(2 * 3600)
        assert not transport.peers
        known_nodes.expire(trio.current_time())  # as a node does it now and then
        assert known_nodes.nodes() == []
        wires.heal()
        await trio.sleep(AGAIN_AT_LAST + 2 * LOOK_EVERY)
        assert list(transport.peers) == [other.peer_id]


async def test_those_who_are_away_are_dialled_ever_less_often_and_at_last_not_at_all(
    path, jumping, monkeypatch
):
    monkeypatch.setattr(neighbours, "KEPT_FOR", 2 * DAY)
    monkeypatch.setattr(peer_book, "LOOK_EVERY", 30.0)
    gone = Identity.generate().peer_id
    write(path, {gone: (at := nowhere(gone))})
    async with living(path, MemoryNetwork(full_mesh=False), Identity.generate()) as (_, dialled):
        await trio.sleep(600)
        assert 3 <= dialled[at] <= 5
        await trio.sleep(DAY)
        assert 20 <= dialled[at] <= 32
        await trio.sleep(DAY)
        before = dialled[at]
        await trio.sleep(DAY)
        assert dialled[at] == before


async def test_those_met_are_tried_first(path, jumping):
    peers = [Identity.generate().peer_id for _ in range(20)]
    write(path, {peer: nowhere(peer) for peer in peers}, met=peers[13])
    async with living(path, MemoryNetwork(full_mesh=False), Identity.generate(), wanted=2) as (_, dialled):
        await trio.sleep(1.5 * LOOK_EVERY)
        assert dialled[nowhere(peers[13])] == 1
        assert dialled.total() == 2


async def test_with_it_off_nobody_is_dialled_and_nothing_kept(path, jumping):
    wires = MemoryNetwork(full_mesh=False)
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(wires.open(Identity.generate()))
        write(path, {other.peer_id: other.addresses[0]})
        transport, dialled = await stack.enter_async_context(
            living(path, wires, Identity.generate(), wanted=0)
        )
        await trio.sleep(DAY)
        assert not dialled
        await transport.connect(other.addresses[0])
        await trio.sleep(DAY)
    assert not path.exists()


def test_pauses_grow_to_an_hour_and_end_when_it_is_there_again():
    known = Neighbours(Path("never written"))
    see(known, 1, 0.0)
    now, pauses = 0.0, []
    for _ in range(9):
        known.failed(peer(1), now)
        pause = next(second for second in range(10_000) if known.to_dial(now + second))
        pauses.append(pause)
        now += pause
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    known.failed(peer(1), now)
    see(known, 1, now, met=True)
    assert listed(known, now) == {peer(1)}
