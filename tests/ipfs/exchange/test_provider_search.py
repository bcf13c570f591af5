"""Who is asked for content, and for how long."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.errors import ContentNotFound
from bacalhau_p2p.ipfs.exchange.fetch import SLOW_AFTER
from bacalhau_p2p.ipfs.exchange.interface import ExchangeLimits, Sources
from bacalhau_p2p.ipfs.exchange.provider_search import FIRST_ALONE, HEAD_START
from bacalhau_p2p.ipfs.exchange.wire import Status
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from tests.support.blocks.content_net import ALICE, BOB, CAROL, DAVE, answering, silent, trickling
from tests.support.blocks.dag_makers import file_of

X = CID.of(RAW, b"x")


class Finder:
    """Names these peers, or searches for ever; records when it was asked for what."""

    def __init__(self, *peers, endless: bool = False) -> None:
        self.asked: list[tuple[float, CID]] = []
        self._peers = peers
        self._endless = endless

    async def find_providers(self, cid, on_found):
        self.asked.append((trio.current_time(), cid))
        for peer in self._peers:
            on_found(peer)
        if self._endless:
            await trio.sleep_forever()
        return "DHT lookup (2 nodes)"


async def test_silent_and_absent_peers_do_not_delay_a_fetch(net, autojump_clock):
    net.peer(ALICE), net.peer(BOB).put(X, b"x")
    net.handlers[CAROL] = silent
    began = trio.current_time()
    await net.fetch(ALICE, X, [CAROL, DAVE, BOB])
    assert trio.current_time() == began + FIRST_ALONE


async def test_if_the_first_peer_has_the_content_and_sends_it_soon_no_other_is_asked(net, autojump_clock):
    asked = []

    async def record(peer, stream):
        asked.append(peer)
        await silent(peer, stream)

    net.peer(ALICE), net.peer(BOB).put(X, b"x")
    net.handlers[CAROL] = record
    began = trio.current_time()
    await net.fetch(ALICE, X, [BOB, CAROL])
    assert (asked, trio.current_time()) == ([], began)


async def test_if_the_first_peer_does_not_have_the_content_others_are_asked_at_once(net, autojump_clock):
    net.peer(ALICE), net.peer(BOB).put(X, b"x"), net.peer(CAROL)
    began = trio.current_time()
    await net.fetch(ALICE, X, [CAROL, BOB])
    assert trio.current_time() == began


async def test_the_search_ends_with_its_timeout(net, autojump_clock):
    net.peer(ALICE), net.peer(BOB)
    net.handlers[CAROL] = silent
    began = trio.current_time()
    details = r"asked 3 peers \(1 without it, 1 unreachable, 1 timed out\)$"
    with pytest.raises(ContentNotFound, match=details):
        await net.fetch(ALICE, X, [BOB, CAROL, DAVE], timeout=10)
    assert trio.current_time() - began == 10


async def test_the_finder_is_asked_only_when_no_known_peer_has_the_content(net):
    blocks, root, _ = file_of(3, 100)
    net.peer(ALICE), net.peer(BOB, blocks), net.peer(CAROL), net.peer(DAVE)
    finder = Finder(BOB)
    await net.exchanges[ALICE].fetch(root, Sources(peers=[BOB], finder=finder))
    assert finder.asked == []
    await net.exchanges[CAROL].fetch(root, Sources(peers=[DAVE], finder=finder))
    assert [cid for _, cid in finder.asked] == [root]
    assert net.stores[CAROL].has_all(root)
    with pytest.raises(
        ContentNotFound, match=r"asked 2 peers; DHT lookup \(2 nodes\) found no other provider$"
    ):
        await net.exchanges[CAROL].fetch(X, Sources(peers=[DAVE], finder=finder))


async def test_the_finder_is_asked_when_known_peers_do_not_answer_soon(net, autojump_clock):
    net.peer(ALICE), net.peer(BOB).put(X, b"x")
    net.handlers[CAROL] = silent
    finder, began = Finder(BOB), trio.current_time()
    await net.exchanges[ALICE].fetch(X, Sources(peers=[CAROL], finder=finder))
    assert finder.asked == [(began + HEAD_START, X)]


async def test_the_finder_is_asked_after_the_providers_have_failed(net, autojump_clock):
    net.peer(ALICE), net.peer(BOB).put(X, b"x")
    net.handlers[CAROL] = answering(Status.OK)  # has everything, and sends nothing
    finder = Finder(BOB)
    await net.exchanges[ALICE].fetch(X, Sources(peers=[CAROL], finder=finder))
    assert net.stores[ALICE].has(X)
    assert len(finder.asked) == 1


async def test_the_finder_is_asked_when_who_claims_everything_hardly_sends_anything(net, autojump_clock):
    net.peer(ALICE), net.peer(BOB).put(X, b"x")
    net.handlers[CAROL] = trickling(0.9)
    finder, began = Finder(BOB), trio.current_time()
    await net.exchanges[ALICE].fetch(X, Sources(peers=[CAROL], finder=finder))
    assert finder.asked == [(began + SLOW_AFTER, X)]
    assert net.stores[ALICE].has_all(X)


async def test_a_finder_that_does_not_end_is_given_up(net, autojump_clock):
    net.peer(ALICE)
    net.handlers[BOB] = silent
    began = trio.current_time()
    sources = Sources(peers=[BOB], finder=Finder(endless=True))
    details = r"asked 1 peer \(1 timed out\); the search for other providers timed out$"
    with pytest.raises(ContentNotFound, match=details):
        await net.exchanges[ALICE].fetch(X, sources, timeout=5)
    assert trio.current_time() - began == 5


async def test_a_peer_that_is_busy_until_the_search_ends_is_reported_as_busy(net, autojump_clock):
    net.peer(ALICE, limits=ExchangeLimits(idle=60))
    net.handlers[BOB] = answering(Status.BUSY)
    with pytest.raises(ContentNotFound, match=r"asked 1 peer \(1 busy\)$"):
        await net.fetch(ALICE, X, [BOB], timeout=0.3)
