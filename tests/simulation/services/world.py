"""Layer 2: the same promises, kept by whole nodes: their services, stores and content, on trio.

A world is real nodes over the in-memory transport, with real SQLite files, on a virtual clock and a
scheduler whose dice are seeded: the same seed gives the same story. Fewer worlds a second than layer 1,
which has the machines alone; here it is the code around them that is tried.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import trio
import trio.testing

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.execution import Job, RunOutput
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.node import Node, open_node
from bacalhau_p2p.requester.record import ACTIVE
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.transports.memory.links import LinkConditions
from bacalhau_p2p.transports.memory.network import MemoryNetwork
from tests.simulation.checks.violation import Violation

REQUESTER = "requester"
COMPUTE_NODES = 4
JOBS = 5
TROUBLE = 60.0
"""Seconds of the world in which things go wrong; then all is healed."""
PATIENCE = 40 * 60.0
"""Seconds within which every job must have ended after that: more than its total time-out."""
_EPOCH = 1_700_000_000.0
_SERVICES = ("bacalhau_p2p.requester.service", "bacalhau_p2p.compute.service")


@dataclass(slots=True)
class Report:
    """One world: how its jobs ended, what was done to it, and a digest of its story."""

    seed: int
    states: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    digest: str = ""
    ended: float = 0.0
    """Seconds of the world's time that it took."""
    story: Sequence[str] = field(default=(), repr=False)
    """Line by line: when, and what."""
    violation: Violation | None = None


def watch_world(seed: int) -> Report:
    """The world of this seed, with the promise that it broke, if any.

    A fault of the code arrives as an ExceptionGroup, with a note of the seed.
    """
    with tempfile.TemporaryDirectory(dir=_fast_folder()) as folder, deterministic(seed) as clock:
        world = _World(seed, Path(folder))
        violation = None
        try:
            with _moves_heard(world.tell):
                trio.run(world.live, clock=clock)
        except BaseExceptionGroup as group:
            if (broken := group.subgroup(Violation)) is None:
                group.add_note(f"in the world of seed {seed}")
                raise
            error: BaseException = broken
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            assert isinstance(error, Violation)
            violation = error
        return world.report(clock.current_time(), violation)


def run_world(seed: int) -> Report:
    """As `watch_world`, but raises the Violation; its text has the seed."""
    report = watch_world(seed)
    if report.violation is not None:
        raise report.violation
    return report


_node_name: ContextVar[str] = ContextVar("_node_name", default="world")


class _Moves(logging.Handler):
    """Hears from the services which job or execution came into which state."""

    def __init__(self, tell: Callable[..., None]) -> None:
        super().__init__(logging.INFO)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        event, _, rest = record.getMessage().partition(" ")
        if event in ("event='job'", "event='execution'"):
            self._tell("moved", _node_name.get(), rest)


@contextmanager
def _moves_heard(tell: Callable[..., None]) -> Iterator[None]:
    """For the length of the block every change of a state is told."""
    handler, loggers = _Moves(tell), [logging.getLogger(name) for name in _SERVICES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


class _World:
    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.folder = folder
        self.rng = self.random("plan")
        self.wires = MemoryNetwork(random=self.random("wires"), notice_after=2.0)
        self.names = [REQUESTER, *(f"compute-{number}" for number in range(COMPUTE_NODES))]
        self.identities = {
            name: Identity.generate(hashlib.sha256(f"{seed}:{name}".encode()).digest()) for name in self.names
        }
        self.nodes: dict[str, Node] = {}
        self.scopes: dict[str, trio.CancelScope] = {}
        self.down_until: dict[str, float] = {}
        self.lives = dict.fromkeys(self.names, 0)
        self.submitted: dict[str, JobID] = {}
        self.story: list[tuple[Any, ...]] = []
        self.faults: dict[str, int] = {}

    def random(self, purpose: str) -> Random:
        return Random(f"{self.seed}:{purpose}")

    def report(self, ended: float, violation: Violation | None) -> Report:
        states: dict[str, int] = {}
        for _, kind, *rest in self.story:
            if kind == "ended":
                states[rest[1]] = states.get(rest[1], 0) + 1
        digest = hashlib.sha256(repr(self.story).encode()).hexdigest()[:16]
        lines = [
            f"{when:9.3f}  {what:<10} {'  '.join(map(str, rest))}".rstrip()
            for when, what, *rest in self.story
        ]
        lines.append(f"{ended:9.3f}  {violation or 'all is well'}")
        return Report(self.seed, states, self.faults, digest, ended, lines, violation)

    def tell(self, *what: Any) -> None:
        self.story.append((round(trio.current_time(), 3), *what))

    def struck(self, fault: str, *what: Any) -> None:
        self.faults[fault] = self.faults.get(fault, 0) + 1
        self.tell(fault, *what)

    async def live(self) -> None:
        async with trio.open_nursery() as nursery:
            for name in self.names:
                nursery.start_soon(self._keep_alive, name)
            nursery.start_soon(self._watch_slots)
            nursery.start_soon(self._hurt)
            for number in range(JOBS):
                nursery.start_soon(self._use, f"job-{number}", self.random(f"user-{number}"))
            await trio.sleep(TROUBLE)
            self._heal()
            await self._all_ended()
            await self._all_quiet()
            nursery.cancel_scope.cancel()

    # --- nodes ------------------------------------------------------------------------------------

    async def _keep_alive(self, name: str) -> None:
        """A node that is started again whenever it was killed."""
        while True:
            await trio.sleep(max(0.0, self.down_until.get(name, 0.0) - trio.current_time()))
            self.lives[name] += 1
            with trio.CancelScope() as self.scopes[name]:
                try:
                    await self._one_life(name)
                except* sqlite3.ProgrammingError:
                    pass  # it tried to keep something after it was killed
            self.nodes.pop(name, None)

    async def _one_life(self, name: str) -> None:
        _node_name.set(name)
        rng = self.random(f"{name}:{self.lives[name]}")
        compute = name != REQUESTER
        settings = Settings(
            data_dir=self.folder / name,
            requester=not compute,
            compute=compute,
            engines=("noop",),
            labels={"name": name},
            content_timeout=5.0,
            min_free_disk="0",
        )
        identity = self.identities[name]
        async with (
            self.wires.open(identity) as transport,
            open_node(
                settings,
                executors=[_Engine(rng)] if compute else [],
                transport=transport,
                identity=identity,
                rng=rng,
            ) as node,
        ):
            self.nodes[name] = node
            self.tell("up", name)
            await trio.sleep_forever()

    def _kill(self, name: str, down: float) -> None:
        """The process is gone between two steps: what it had not committed is lost."""
        node = self.nodes.pop(name, None)
        if node is None:
            return
        self.struck("kill", name)
        for component in (node._requester, node._compute):
            if component is not None:
                component._store.db.close()
        self.down_until[name] = trio.current_time() + down
        self.scopes[name].cancel()

    # --- what goes wrong ----------------------------------------------------------------------------

    async def _hurt(self) -> None:
        rng = self.rng
        if rng.random() < 0.7:
            conditions = LinkConditions(
                loss=rng.choice([0.0, 0.1, 0.3]),
                repetition=rng.choice([0.0, 0.3]),
                reordering=rng.choice([0.0, 0.3]),
                jitter=rng.choice([0.0, 0.05, 0.5]),
            )
            self.wires.set_conditions(conditions)
            self.struck("bad links", repr(conditions))
        for _ in range(rng.randrange(12)):
            await trio.sleep(rng.uniform(0.1, TROUBLE / 8))
            if trio.current_time() >= TROUBLE:
                return
            if rng.random() < 0.6:
                self._kill(rng.choice(self.names), down=rng.choice([0.1, 3.0, 15.0, 40.0]))
            else:
                self._partition(one_way=rng.random() < 0.3)

    def _partition(self, *, one_way: bool) -> None:
        shuffled = [self.identities[name].peer_id for name in self.names]
        self.rng.shuffle(shuffled)
        cut = self.rng.randrange(1, len(shuffled))
        self.wires.partition(shuffled[:cut], shuffled[cut:], one_way=one_way)
        self.struck("partition", cut, one_way)

    def _heal(self) -> None:
        self.wires.heal()
        self.wires.set_conditions(LinkConditions())
        self.tell("healed")

    # --- users --------------------------------------------------------------------------------------

    async def _use(self, name: str, rng: Random) -> None:
        """Submit one job, again and again with its token until it was answered."""
        await trio.sleep(rng.uniform(0.0, TROUBLE * 0.8))
        count = rng.choice([1, 1, 2, 3])
        spec = {
            "Name": name,
            "Count": count,
            "Priority": rng.randrange(3),
            "Verifier": {"Type": "deterministic" if count > 1 and rng.random() < 0.5 else "noop"},
            "Tasks": [
                {
                    "Engine": {"Type": "noop", "Params": {"Stdout": name}},
                    "Timeouts": {"ExecutionTimeout": 120, "QueueTimeout": 600, "TotalTimeout": 1800},
                }
            ],
        }
        while True:
            node = self.nodes.get(REQUESTER)
            if node is not None:
                with trio.move_on_after(5.0):
                    handle = await node.submit(spec, idempotency_token=name)
                    known = self.submitted.setdefault(name, handle.id)
                    if known != handle.id:
                        raise Violation(
                            "one token, one job",
                            f"seed {self.seed}: one token, two jobs: {known} and {handle.id}",
                        )
                    self.tell("submitted", name)
                    return
            await trio.sleep(1.0)

    # --- promises -----------------------------------------------------------------------------------

    async def _watch_slots(self) -> None:
        """Never more than Count executions are accepted at one time, and no node holds more than it has."""
        while True:
            await trio.sleep(0.25)
            for name, node in self.nodes.items():
                if node._requester is not None:
                    for entry in node._requester._machine.jobs.values():
                        active = sum(e.state in ACTIVE for e in entry.executions.values())
                        if active > entry.job.spec.count:
                            raise Violation(
                                "never more than Count",
                                f"seed {self.seed}: {active} executions of {entry.job.id}",
                            )
                if node._compute is not None:
                    capacity = node._compute.machine.capacity
                    if not capacity.reserved.fits_in(capacity.limit):
                        raise Violation(
                            "reservations fit", f"seed {self.seed}: {name} reserved more than it has"
                        )

    async def _all_ended(self) -> None:
        deadline = trio.current_time() + PATIENCE
        while trio.current_time() < deadline:
            node = self.nodes.get(REQUESTER)
            if node is not None and len(self.submitted) == JOBS:
                jobs = {name: node.requester.job(job_id) for name, job_id in self.submitted.items()}
                if all(job.state.terminal for job in jobs.values()):
                    for name, job in sorted(jobs.items()):
                        self._check_job(node, name, job)
                    return
            await trio.sleep(5.0)
        raise Violation("every job ends", f"seed {self.seed}: not every job ended: {self._open_jobs()}")

    def _open_jobs(self) -> dict[str, str]:
        node = self.nodes.get(REQUESTER)
        if node is None:
            return {"requester": "is down"}
        jobs = {name: node.requester.job(job_id) for name, job_id in self.submitted.items()}
        return {name: f"{job.state}: {job.message}" for name, job in jobs.items() if not job.state.terminal}

    def _check_job(self, node: Node, name: str, job: Job) -> None:
        executions = node.requester.executions(job.id)
        completed = [e for e in executions if e.state is ExecutionState.COMPLETED]
        self.tell("ended", name, str(job.state), job.message, len(executions))
        if job.state is not JobState.COMPLETED:
            if not job.message:
                raise Violation(
                    "every end has a reason", f"seed {self.seed}: {name} ended {job.state} without a reason"
                )
            return
        if not completed:
            raise Violation(
                "completed means published", f"seed {self.seed}: {name} completed without a result"
            )
        for execution in completed:
            proposal, published = execution.proposal, execution.published
            if proposal is None or published is None or proposal.result_cid != published.cid:
                raise Violation(
                    "what is published was verified",
                    f"seed {self.seed}: {name} published something else than it proposed",
                )
        if job.spec.deterministic:
            agreeing = {e.node_id for e in executions if e.proposal == _like(e, completed[0])}
            if len(agreeing) < 2:
                raise Violation(
                    "verified means agreed", f"seed {self.seed}: {name} was accepted on one node's word"
                )

    async def _all_quiet(self) -> None:
        """Some time later nothing is reserved, under way or on disk any more."""
        deadline = trio.current_time() + 600.0
        while (left := self._left()) and trio.current_time() < deadline:  # noqa: ASYNC110
            await trio.sleep(1.0)
        if left:
            raise Violation("nothing is left", f"seed {self.seed}: left over: {left}")

    def _left(self) -> list[str]:
        left = [f"{name} is down" for name in self.names if name not in self.nodes]
        for name, node in self.nodes.items():
            if node.messenger.in_flight:
                left.append(f"{name} has {node.messenger.in_flight} messages under way")
            if node._compute is not None:
                if node._compute.machine.capacity.reserved != Resources():
                    left.append(f"{name} holds room")
                if node._compute.machine.active:
                    left.append(f"{name} works")
                if any((node.settings.data_dir / "executions").iterdir()):
                    left.append(f"{name} keeps folders")
        return left


def _like(execution: Any, model: Any) -> Any:
    """The execution's own proposal, if it claims what `model` claims."""
    mine, other = execution.proposal, model.proposal
    return mine if mine is not None and mine.result_cid == other.result_cid else None


class _Engine(NoopExecutor):
    """Takes its time, and fails as engines do."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    async def run(self, request: RunRequest) -> RunOutput:
        await trio.sleep(self._rng.choice([0.01, 0.5, 5.0, 30.0]))
        if self._rng.random() < 0.1:
            raise ExecutorError("the engine had a bad day")
        return await super().run(request)


@contextmanager
def deterministic(seed: int) -> Iterator[trio.abc.Clock]:
    """Everything that would differ from run to run, by this seed instead."""
    from trio._core import _run  # trio has no public switch

    clock = trio.testing.MockClock(autojump_threshold=0)
    with (
        mock.patch.object(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        mock.patch.object(trio.to_thread, "run_sync", _inline),
        mock.patch.object(trio.from_thread, "check_cancelled"),
        mock.patch.object(time, "time", side_effect=lambda: _EPOCH + clock.current_time()),
    ):
        _run._r.seed(seed)
        yield clock


async def _inline(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return function(*arguments)


def _fast_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


__all__ = ["Report", "run_world", "watch_world"]
