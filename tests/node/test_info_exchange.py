from __future__ import annotations

from collections import Counter

import pytest
import trio

from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.messages import Greeting, Heartbeat, NodeInfoPublished
from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.node import SHORTEST_INFO_INTERVAL as INTERVAL
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo, NodeLoad
from bacalhau_p2p.node.info_exchange import FEW_NODES, MAX_STRANGERS, MIN_PUBLISH_INTERVAL, NodeInfoExchange
from bacalhau_p2p.node.info_pace import LEAST_SHARE, MISSED_INTERVALS, info_interval
from bacalhau_p2p.node.known_nodes import KnownNodes

OWN, OTHER, THIRD = PeerID("own"), PeerID("other"), PeerID("third")


class Messenger:
    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.published: list[float] = []
        self.infos: list[NodeInfo] = []
        self.told_itself = 0
        self.greeted: list[PeerID] = []
        self.unreachable: set[PeerID] = set()
        self._listeners = {}

    def listen(self, kinds, receive) -> None:
        self._listeners |= dict.fromkeys(kinds, receive)

    def drop(self, author: PeerID, counter: str, reason: str) -> None:
        self.counters[counter] += 1

    def broadcast(self, message: NodeInfoPublished) -> None:
        self.published.append(trio.current_time())
        self.infos.append(message.info)

    def deliver_here(self, message: NodeInfoPublished) -> None:
        self.told_itself += 1
        self.receive(OWN, message)

    async def send_directly(self, to: PeerID, message: Greeting) -> None:
        if to in self.unreachable:
            raise PeerUnreachable(f"cannot reach {to}")
        self.greeted.append(to)

    def deliver(self, info: NodeInfo, author: PeerID) -> None:
        self.receive(author, NodeInfoPublished(info=info))

    def greet(self, info: NodeInfo, network: str = "main") -> None:
        self.receive(info.id, Greeting(info=info, network=network))

    def receive(self, author: PeerID, message) -> None:
        self._listeners[type(message)](Arrival(author=author, message=message))


class Transport:
    peer_id = OWN

    def __init__(self) -> None:
        self.learned: list[PeerID] = []

    def learn_addresses(self, peer: PeerID, addresses) -> None:
        self.learned.append(peer)


class Observer:
    def __init__(self) -> None:
        self.events: list[tuple[str, PeerID]] = []

    def node_seen(self, info: NodeInfo) -> None:
        self.events.append(("seen", info.id))

    def node_went_stale(self, peer: PeerID) -> None:
        self.events.append(("stale", peer))


@pytest.fixture
def messenger() -> Messenger:
    return Messenger()


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def known_nodes() -> KnownNodes:
    return KnownNodes()


@pytest.fixture
def exchange(messenger, transport, known_nodes) -> NodeInfoExchange:
    return NodeInfoExchange(messenger, transport, known_nodes, trio.current_time)


@pytest.fixture
async def greeting(exchange, messenger, nursery) -> None:
    """The node greets who connects, and has published its info."""
    nursery.start_soon(exchange.greet, lambda: NodeInfo(id=OWN))
    nursery.start_soon(exchange.publish, lambda: NodeInfo(id=OWN))
    await trio.sleep(MIN_PUBLISH_INTERVAL)


async def test_strangers_that_connect_are_greeted_and_the_network_hears_of_the_first_that_answers(
    exchange, messenger, autojump_clock, greeting
):
    exchange.met(OTHER)
    await trio.sleep(0.1)
    assert (messenger.greeted, messenger.published) == ([OTHER], [])
    messenger.greet(NodeInfo(id=OTHER))
    exchange.met(THIRD)
    messenger.greet(NodeInfo(id=THIRD))
    await trio.sleep(2.0)
    assert (messenger.greeted, len(messenger.published)) == ([OTHER, THIRD], 1)


async def test_who_is_known_is_greeted_only_in_answer_to_its_greeting(
    exchange, messenger, autojump_clock, greeting
):
    messenger.deliver(NodeInfo(id=OTHER), OTHER)
    exchange.met(OTHER)
    messenger.deliver(NodeInfo(id=OTHER, sent=1.0), OTHER)
    await trio.sleep(2.0)
    assert (messenger.greeted, len(messenger.published)) == ([], 1)
    for sent in (2.0, 3.0):
        messenger.greet(NodeInfo(id=OTHER, sent=sent))
    await trio.sleep(0.1)
    assert messenger.greeted == [OTHER]


async def test_who_connects_again_is_greeted_again_and_the_network_hears_of_it(
    exchange, messenger, autojump_clock, greeting
):
    for sent in (1.0, 2.0):
        exchange.met(OTHER)
        messenger.greet(NodeInfo(id=OTHER, sent=sent))
        await trio.sleep(2.0)
        exchange.left(OTHER)
    assert (messenger.greeted, len(messenger.published)) == ([OTHER, OTHER], 2)


async def test_a_peer_that_is_no_node_or_cannot_be_reached_changes_nothing(
    exchange, messenger, autojump_clock, greeting
):
    messenger.unreachable.add(OTHER)
    exchange.met(OTHER)
    await trio.sleep(2.0)
    assert (messenger.greeted, messenger.published) == ([], [])


async def test_greetings_of_another_network_and_of_who_is_not_connected_are_ignored(
    exchange, messenger, known_nodes, autojump_clock, greeting
):
    exchange.met(OTHER)
    messenger.greet(NodeInfo(id=OTHER), network="other")
    messenger.greet(NodeInfo(id=THIRD))
    await trio.sleep(2.0)
    assert (messenger.greeted, messenger.published) == ([OTHER], [])
    assert [known.info.id for known in known_nodes.nodes()] == [OWN]


async def test_in_a_small_network_all_say_who_they_are_when_a_new_node_does(
    exchange, messenger, known_nodes, autojump_clock, greeting
):
    exchange.met(OTHER)
    messenger.deliver(NodeInfo(id=OTHER), OTHER)
    await trio.sleep(2.0)
    for number in range(FEW_NODES + 3):
        messenger.deliver(NodeInfo(id=PeerID(f"node-{number}")), PeerID(f"node-{number}"))
        await trio.sleep(1.5)
    assert known_nodes.count == FEW_NODES + 5
    assert len(messenger.published) == FEW_NODES


async def test_a_node_without_peers_tells_only_itself(exchange, messenger, autojump_clock, nursery):
    nursery.start_soon(exchange.publish, lambda: NodeInfo(id=OWN))
    await trio.sleep(1.5 * INTERVAL)
    assert (messenger.told_itself, messenger.published) == (2, [])


async def test_an_unchanged_node_publishes_its_info_at_intervals(
    exchange, messenger, autojump_clock, nursery
):
    exchange.met(OTHER)
    nursery.start_soon(exchange.publish, lambda: NodeInfo(id=OWN))
    await trio.sleep(2.5 * INTERVAL)
    assert messenger.published == [0.0, INTERVAL, 2 * INTERVAL]


async def test_changes_are_published_at_once_but_not_more_often_than_once_a_second(
    exchange, messenger, autojump_clock, nursery
):
    exchange.met(OTHER)
    nursery.start_soon(exchange.publish, lambda: NodeInfo(id=OWN))
    await trio.sleep(5.0)
    for _ in range(3):
        exchange.publish_soon()
        await trio.sleep(0.1)
    await trio.sleep(5.0)
    assert messenger.published == [0.0, 5.0, 5.0 + MIN_PUBLISH_INTERVAL]


async def test_an_info_reaches_known_nodes_observers_and_the_transport(
    exchange, messenger, transport, known_nodes, autojump_clock
):
    exchange.observe(observer := Observer())
    messenger.deliver(NodeInfo(id=OTHER), OTHER)
    messenger.deliver(NodeInfo(id=OWN), OWN)
    assert [node.info.id for node in known_nodes.nodes()] == [OTHER, OWN]
    assert observer.events == [("seen", OTHER), ("seen", OWN)]
    assert transport.learned == [OTHER]


async def test_an_info_about_another_node_is_dropped_and_counted(
    exchange, messenger, known_nodes, autojump_clock
):
    messenger.deliver(NodeInfo(id=OTHER), PeerID("stranger"))
    assert known_nodes.nodes() == []
    assert messenger.counters == {"forged_info": 1}


async def test_an_outdated_info_changes_nothing(exchange, messenger, autojump_clock):
    exchange.observe(observer := Observer())
    messenger.deliver(NodeInfo(id=OTHER, sent=2.0), OTHER)
    messenger.deliver(NodeInfo(id=OTHER, sent=1.0), OTHER)
    assert observer.events == [("seen", OTHER)]


async def test_observers_are_told_once_that_a_node_went_stale(exchange, messenger, autojump_clock, nursery):
    exchange.observe(observer := Observer())
    messenger.deliver(NodeInfo(id=OTHER), OTHER)
    nursery.start_soon(exchange.expire_known_nodes)
    await trio.sleep((MISSED_INTERVALS + 3) * INTERVAL)
    assert observer.events == [("seen", OTHER), ("stale", OTHER)]


async def test_waiting_ends_when_an_info_makes_the_condition_true(
    exchange, messenger, known_nodes, autojump_clock, nursery
):
    async def deliver() -> None:
        for peer in (OWN, OTHER):
            await trio.sleep(1.0)
            messenger.deliver(NodeInfo(id=peer), peer)

    nursery.start_soon(deliver)
    await exchange.wait_until(lambda: len(known_nodes.nodes()) == 2)
    assert trio.current_time() == 2.0
    await exchange.wait_until(lambda: True)


async def test_observers_hear_of_a_stranger_only_once_it_is_met(messenger, transport):
    known, observer, friends = KnownNodes(), Observer(), set()
    infos = NodeInfoExchange(messenger, transport, known, lambda: 1.0, is_acquainted=friends.__contains__)
    infos.observe(observer)
    messenger.deliver(NodeInfo(id=OTHER, sent=1), author=OTHER)
    assert known.get(OTHER) is not None
    assert observer.events == []
    infos.met(OTHER)
    infos.met(OTHER)
    assert observer.events == [("seen", OTHER)]
    friends.add(OTHER)
    messenger.deliver(NodeInfo(id=OTHER, sent=2), author=OTHER)
    assert observer.events == [("seen", OTHER)] * 2


async def test_invented_nodes_displace_each_other_and_no_others(messenger, transport):
    known = KnownNodes()
    infos = NodeInfoExchange(
        messenger, transport, known, lambda: 1.0, is_acquainted=lambda peer: peer == OTHER
    )
    messenger.deliver(NodeInfo(id=OTHER, sent=1), author=OTHER)
    for number in range(MAX_STRANGERS + 500):
        messenger.deliver(NodeInfo(id=f"invented-{number}", sent=1), author=f"invented-{number}")
    assert len(known.nodes()) == len(infos._strangers) + 1 == MAX_STRANGERS + 1
    assert known.get(OTHER) is not None
    assert known.get("invented-0") is None


async def test_infos_are_repeated_more_rarely_in_a_larger_network(
    exchange, messenger, known_nodes, autojump_clock, nursery
):
    for number in range(100):
        known_nodes.update(NodeInfo(id=PeerID(f"node-{number}")), 0.0)
    exchange.met(OTHER)
    assert exchange.interval == info_interval(100) == 100.0 / LEAST_SHARE
    nursery.start_soon(exchange.publish, lambda: NodeInfo(id=OWN, interval=exchange.interval))
    await trio.sleep(260.0)
    assert messenger.published == [0.0, 125.0, 250.0]


async def test_a_node_that_leaves_says_so_at_once_and_is_stale_for_others(
    exchange, messenger, known_nodes, autojump_clock
):
    exchange.observe(observer := Observer())
    exchange.met(OTHER)
    exchange.leave(NodeInfo(id=OWN))
    assert [info.leaving for info in messenger.infos] == [True]
    messenger.deliver(NodeInfo(id=OTHER, sent=1.0), OTHER)
    messenger.deliver(NodeInfo(id=OTHER, sent=2.0, leaving=True), OTHER)
    assert observer.events == [("seen", OTHER), ("stale", OTHER)]
    assert not known_nodes.get(OTHER).is_fresh(trio.current_time())
    messenger.deliver(NodeInfo(id=OTHER, sent=3.0), OTHER)
    assert known_nodes.get(OTHER).is_fresh(trio.current_time())


async def test_a_heartbeat_says_how_busy_its_node_is(exchange, messenger, known_nodes, autojump_clock):
    messenger.deliver(NodeInfo(id=OTHER, compute=ComputeInfo(engines=("noop",))), OTHER)
    messenger.receive(OTHER, Heartbeat(executions=(), load=NodeLoad(running_executions=3)))
    messenger.receive(OTHER, Heartbeat(executions=()))
    info = known_nodes.get(OTHER).info_at(trio.current_time())
    assert (info.compute.running_executions, info.compute.engines) == (3, ("noop",))
