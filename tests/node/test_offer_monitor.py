from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.compute.adapters import Adapters
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.node.offer_monitor import ANSWER_TIMEOUT, CHECK_INTERVAL, OfferMonitor
from bacalhau_p2p.publishers.noop import NoopPublisher
from bacalhau_p2p.storage.inline import InlineStorage


class SwitchableExecutor(NoopExecutor):
    reason: str | None = None
    outlives_node = True

    async def unavailable(self) -> str | None:
        return self.reason


class SilentPublisher(NoopPublisher):
    async def unavailable(self) -> str | None:
        await trio.sleep_forever()


@pytest.fixture
def executor() -> SwitchableExecutor:
    return SwitchableExecutor()


@pytest.fixture
def changes() -> list[float]:
    return []


@pytest.fixture
def monitor(executor, changes) -> OfferMonitor:
    adapters = Adapters(
        executors={"switchable": executor},
        storage={"inline": InlineStorage()},
        publishers={"noop": NoopPublisher()},
    )
    return OfferMonitor(adapters, lambda: changes.append(trio.current_time()))


async def test_before_the_first_check_nothing_is_offered(monitor):
    assert not monitor.offer.engines
    assert not monitor.offer.publishers


async def test_what_works_is_offered(monitor, changes, autojump_clock):
    await monitor.check()
    offer = monitor.offer
    assert (set(offer.engines), set(offer.sources), set(offer.publishers)) == (
        {"switchable"},
        {"inline"},
        {"noop"},
    )
    assert offer.outliving == {"switchable"}
    assert len(changes) == 1


async def test_an_engine_that_stops_is_offered_no_longer_and_one_that_starts_again_is(
    monitor, executor, changes, autojump_clock, nursery
):
    await monitor.check()
    nursery.start_soon(monitor.run)
    executor.reason = "no daemon"
    await trio.sleep(1.5 * CHECK_INTERVAL)
    assert set(monitor.offer.engines) == set()
    executor.reason = None
    await trio.sleep(CHECK_INTERVAL)
    assert set(monitor.offer.engines) == {"switchable"}
    await trio.sleep(2 * CHECK_INTERVAL)
    assert changes == [0.0, CHECK_INTERVAL, 2 * CHECK_INTERVAL]


async def test_an_engine_that_has_failed_a_job_is_asked_at_once(monitor, executor, changes, autojump_clock):
    await monitor.check()
    assert await monitor.engine_problem("switchable") is None
    assert len(changes) == 1
    executor.reason = "no daemon"
    assert await monitor.engine_problem("switchable") == "no daemon"
    assert (set(monitor.offer.engines), len(changes)) == (set(), 2)
    assert monitor.problems(["switchable"]) == ["engine switchable: no daemon"]


async def test_an_adapter_that_does_not_answer_is_not_offered_and_delays_nobody_for_long(autojump_clock):
    adapters = Adapters(
        executors={"noop": NoopExecutor()}, storage={}, publishers={"silent": SilentPublisher()}
    )
    monitor = OfferMonitor(adapters, lambda: None)
    await monitor.check()
    assert (set(monitor.offer.engines), set(monitor.offer.publishers)) == ({"noop"}, set())
    assert trio.current_time() == ANSWER_TIMEOUT


async def test_the_networks_that_an_engine_cannot_give_are_known_with_the_reason(monitor):
    await monitor.check()
    assert monitor.offer.no_networks == {
        "switchable": {"HTTP": "it runs nothing", "Full": "it runs nothing"},
    }
    assert not monitor.offer.gives("HTTP")
