"""Faults, from a seed: kills, stops, cuts and engine restarts, each healed after a while."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio
from engine import OwnEngine
from load import Users
from nodes import Node
from wires import Wires

KILL = "kill -9"
AFTER_ANSWER = "kill -9 of the requester as it answers a submit"
STOP = "SIGSTOP"
CUT = "network cut"
ISOLATE = "cut between two"
RESET = ", by a reset"
ENGINE = "engine restart"


class Tormentor:
    """Does something to somebody all the time; whoever is in its hand is left alone until healed."""

    def __init__(
        self,
        rng: random.Random,
        nodes: Sequence[Node],
        wires: Wires,
        users: Users,
        engine: OwnEngine | None,
        tell: Callable[[str], None],
    ) -> None:
        self._rng = rng
        self._nodes = nodes
        self._wires = wires
        self._users = users
        self._engine = engine
        self._tell = tell
        self.faults: Counter[str] = Counter()
        self.killed: Counter[str] = Counter()

    @property
    def kills(self) -> int:
        return sum(self.killed.values())

    async def run(self, seconds: float, kills: int) -> None:
        """For so long, with at least so many kills spread over it; every fault is healed on return."""
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            while (passed := trio.current_time() - begun) < seconds or self.kills < kills:
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
        for manner in self._wires.manners:
            suffix = RESET if manner == "reset" else ""
            others.append((CUT + suffix, partial(self._cut, manner), (victim,)))
            if len(free) >= 2:
                pair = tuple(self._rng.sample(free, 2))
                others.append((ISOLATE + suffix, partial(self._isolate, manner), pair))
        if self._engine is not None and self._rng.random() < 0.5:
            others = [(ENGINE, self._restart_engine, ())]
        name, fault, victims = self._rng.choice(others)
        if kill:
            name, fault, victims = KILL, self._kill, (victim,)
            if victim.number == 0 and self._rng.random() < 0.5:
                name, fault = AFTER_ANSWER, self._kill_after_answer
        for node in victims:
            node.busy = True
        nursery.start_soon(self._inflict, name, fault, victims)

    async def _inflict(
        self, name: str, fault: Callable[..., Awaitable[None]], victims: Sequence[Node]
    ) -> None:
        self.faults[name] += 1
        self._tell(f"{name}: {', '.join(node.name for node in victims)}")
        try:
            await fault(*victims)
        finally:
            for node in victims:
                node.busy = False

    async def _kill(self, node: Node) -> None:
        await node.kill()
        self.killed[node.name] += 1
        # Mostly back before it is given up as lost, sometimes well after.
        away = self._rng.choice((0, 0.5, 2, 4, 12))
        await trio.sleep(away)
        await node.start()

    async def _kill_after_answer(self, node: Node) -> None:
        with trio.move_on_after(10):
            await self._users.answered.wait()
        await self._kill(node)

    async def _stop(self, node: Node) -> None:
        node.signal(signal.SIGSTOP)
        await trio.sleep(self._rng.uniform(0.5, 12))
        node.signal(signal.SIGCONT)

    async def _cut(self, manner: str, node: Node) -> None:
        self._wires.cut(node.number, manner)
        await trio.sleep(self._rng.uniform(1, 15))
        self._wires.heal(node.number)

    async def _isolate(self, manner: str, first: Node, second: Node) -> None:
        self._wires.isolate(first.number, second.number, manner)
        await trio.sleep(self._rng.uniform(1, 15))
        self._wires.heal(first.number, second.number)

    async def _restart_engine(self) -> None:
        assert self._engine is not None
        await self._engine.restart(kill=self._rng.random() < 0.5)
