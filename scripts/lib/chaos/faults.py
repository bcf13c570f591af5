"""Faults, from a seed: kills, stops, cuts and engine restarts. Each is healed after a while."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio
from engine import OwnEngine
from links import Links
from load import Users
from nodes import Node

KILL = "kill -9"
AFTER_ANSWER = "kill -9 of the requester as it answers a submit"
STOP = "SIGSTOP"
CUT = "network cut"
SEPARATE = "cut between two"
RESET = ", by a reset"
ENGINE = "engine restart"


class FaultInjector:
    """Injects one fault after the other. A node has one fault at a time."""

    def __init__(
        self,
        rng: random.Random,
        nodes: Sequence[Node],
        links: Links,
        users: Users,
        engine: OwnEngine | None,
        log: Callable[[str], None],
    ) -> None:
        self._rng = rng
        self._nodes = nodes
        self._links = links
        self._users = users
        self._engine = engine
        self._log = log
        self.faults: Counter[str] = Counter()
        self.killed: Counter[str] = Counter()

    @property
    def kills(self) -> int:
        return sum(self.killed.values())

    async def run(self, seconds: float, kills: int) -> None:
        """Inject faults for so many seconds, with at least so many kills spread over them. On return every
        fault is healed."""
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            while (passed := trio.current_time() - started) < seconds or self.kills < kills:
                behind = self.kills < kills * min(1.0, passed / seconds * 1.1)
                self._next(nursery, kill=behind)
                await trio.sleep(self._rng.uniform(0.5, 1.5) * seconds / kills * 0.6)

    def _next(self, nursery: trio.Nursery, *, kill: bool) -> None:
        free = [node for node in self._nodes if not node.busy]
        if not free:
            return
        victim = self._rng.choice(free)
        others: list[tuple[str, Callable[..., Awaitable[None]], tuple[Node, ...]]] = [
            (STOP, self._stop, (victim,))
        ]
        for mode in self._links.cut_modes:
            suffix = RESET if mode == "reset" else ""
            others.append((CUT + suffix, partial(self._cut, mode), (victim,)))
            if len(free) >= 2:
                pair = tuple(self._rng.sample(free, 2))
                others.append((SEPARATE + suffix, partial(self._separate, mode), pair))
        if self._engine is not None and self._rng.random() < 0.5:
            others = [(ENGINE, self._restart_engine, ())]
        name, fault, victims = self._rng.choice(others)
        if kill:
            name, fault, victims = KILL, self._kill, (victim,)
            if victim.number == 0 and self._rng.random() < 0.5:
                name, fault = AFTER_ANSWER, self._kill_after_answer
        for node in victims:
            node.busy = True
        nursery.start_soon(self._inject, name, fault, victims)

    async def _inject(
        self, name: str, fault: Callable[..., Awaitable[None]], victims: Sequence[Node]
    ) -> None:
        self.faults[name] += 1
        self._log(f"{name}: {', '.join(node.name for node in victims)}")
        try:
            await fault(*victims)
        finally:
            for node in victims:
                node.busy = False

    async def _kill(self, node: Node) -> None:
        await node.kill()
        self.killed[node.name] += 1
        # Mostly shorter than the time after which a silent node is given up, sometimes longer.
        await trio.sleep(self._rng.choice((0, 0.5, 2, 4, 12)))
        await node.start()

    async def _kill_after_answer(self, node: Node) -> None:
        with trio.move_on_after(10):
            await self._users.answered.wait()
        await self._kill(node)

    async def _stop(self, node: Node) -> None:
        node.signal(signal.SIGSTOP)
        await trio.sleep(self._rng.uniform(0.5, 12))
        node.signal(signal.SIGCONT)

    async def _cut(self, mode: str, node: Node) -> None:
        self._links.cut(node.number, mode)
        await trio.sleep(self._rng.uniform(1, 15))
        self._links.heal(node.number)

    async def _separate(self, mode: str, first: Node, second: Node) -> None:
        self._links.separate(first.number, second.number, mode)
        await trio.sleep(self._rng.uniform(1, 15))
        self._links.heal(first.number, second.number)

    async def _restart_engine(self) -> None:
        assert self._engine is not None
        await self._engine.restart(kill=self._rng.random() < 0.5)
