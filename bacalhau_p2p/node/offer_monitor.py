"""Which engines and publishers of a node work at the moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from bacalhau_p2p.components.adapter_calls import call_adapter
from bacalhau_p2p.compute.adapters import Adapters
from bacalhau_p2p.compute.assessment import Offer
from bacalhau_p2p.errors import ExecutionError
from bacalhau_p2p.executors.interface import Executor
from bacalhau_p2p.model.job import NETWORKS
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

CHECK_INTERVAL = 30.0
"""Seconds between two checks whether an engine has started or stopped."""
ANSWER_TIMEOUT = 10.0
"""Seconds that an adapter may take to answer."""


class OfferMonitor:
    """Keeps `offer` up to date: what the adapters of this node can do now."""

    def __init__(self, adapters: Adapters, changed: Callable[[], None]) -> None:
        """`changed` is called when the offer has changed."""
        self.adapters = adapters
        self._changed = changed
        self.offer = Offer()
        self._unavailable: dict[str, str] = {}

    async def run(self) -> None:
        """Check the adapters at intervals. Until cancelled."""
        while True:
            await trio.sleep(CHECK_INTERVAL)
            await self.check()

    async def check(self) -> None:
        """Check all adapters at the same time; takes as long as the slowest of them, or `ANSWER_TIMEOUT`."""
        reasons = await self._reasons()
        self._unavailable = {name: reason for name, reason in reasons.items() if reason is not None}
        adapters = self.adapters
        offer = Offer(
            engines={
                name: executor.faults
                for name, executor in adapters.executors.items()
                if reasons[f"engine {name}"] is None
            },
            sources={name: provider.faults for name, provider in adapters.storage.items()},
            publishers={
                name: publisher.faults
                for name, publisher in adapters.publishers.items()
                if reasons[f"publisher {name}"] is None
            },
            no_networks={name: _network_problems(executor) for name, executor in adapters.executors.items()},
            outliving=frozenset(
                name for name, executor in adapters.executors.items() if executor.outlives_node
            ),
        )
        if _names(offer) != _names(self.offer):
            log.info(
                "offer", available=sorted(reasons.keys() - self._unavailable), unavailable=self._unavailable
            )
            self.offer = offer
            self._changed()

    async def engine_problem(self, engine: str) -> str | None:
        """Why this engine does not work now, or None: a job has failed on it. If it does not, the others are
        checked too, and from then on it is not offered. Takes at most twice `ANSWER_TIMEOUT`."""
        executor = self.adapters.executors.get(engine)
        if executor is None:
            return None
        reason = await _answer(f"engine {engine}", executor.unavailable)
        if reason is not None and engine in self.offer.engines:
            await self.check()
        return reason

    def problems(self, engines: Sequence[str]) -> list[str]:
        """Why these engines do not work; without any, why none of this node does."""
        if not engines and self.offer.engines:
            return []
        wanted = {f"engine {name}" for name in engines or self.adapters.executors}
        return [f"{name}: {why}" for name, why in sorted(self._unavailable.items()) if name in wanted]

    async def _reasons(self) -> dict[str, str | None]:
        """Why an engine or publisher is unavailable; None for those that work."""
        reasons: dict[str, str | None] = {}

        async def ask(name: str, unavailable: Callable[[], Awaitable[str | None]]) -> None:
            reasons[name] = await _answer(name, unavailable)

        async with trio.open_nursery() as nursery:
            for name, executor in self.adapters.executors.items():
                nursery.start_soon(ask, f"engine {name}", executor.unavailable)
            for name, publisher in self.adapters.publishers.items():
                nursery.start_soon(ask, f"publisher {name}", publisher.unavailable)
        return reasons


async def _answer(name: str, unavailable: Callable[[], Awaitable[str | None]]) -> str | None:
    """What an adapter says to the question why it is unavailable, or why it says nothing."""
    with trio.move_on_after(ANSWER_TIMEOUT):
        try:
            return await call_adapter(name, unavailable)
        except ExecutionError as error:
            return str(error)
    return f"no answer within {ANSWER_TIMEOUT:g} s"


def _names(offer: Offer) -> object:
    """What can change while a node runs: engines and publishers that work, and networks of jobs."""
    return frozenset(offer.engines), frozenset(offer.publishers), offer.no_networks


def _network_problems(executor: Executor) -> Mapping[str, str]:
    """The networks that an executor cannot give to jobs, and why."""
    ask = getattr(executor, "network_problem", lambda network: None)
    return {network: why for network in NETWORKS if (why := ask(network)) is not None}
