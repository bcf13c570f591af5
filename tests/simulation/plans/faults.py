"""Draws the faults of a plan. Their classes are on or off for each world."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.simulation.plans.plan import (
    Crash,
    CrashPoint,
    Delay,
    Drain,
    Fault,
    Forgery,
    FullDisk,
    Leave,
    Loss,
    NodePlan,
    Partition,
    Point,
    Prune,
    Reordering,
    Repetition,
    SlowDisk,
    Step,
    StepFault,
    StepOutcome,
)

Nodes = tuple[NodePlan, ...]
Faults = tuple[Fault, ...]
FORGERIES = (
    "bid_accepted",
    "result_accepted",
    "result_rejected",
    "cancel_execution",
    "reconcile",
    "result_proposed",
    "result_published",
    "execution_failed",
    "heartbeat",
    "bid",
)
POINTS: tuple[Point, ...] = (
    "before commit",
    "after commit",
    "amid effects",
    "before acknowledging",
    "after acknowledging",
)


def _span(rng: Random, heal_at: float) -> tuple[float, float]:
    start = round(rng.uniform(0, heal_at * 0.8), 2)
    return start, round(min(heal_at, start + rng.choice((1, 5, 20, 60)) * rng.random()), 2)


def _some(rng: Random, most: int) -> range:
    return range(rng.randint(1, most))


def _loss(rng: Random, nodes: Nodes, heal_at: float) -> Faults:
    start, _ = _span(rng, heal_at)
    return (Loss(start=start, end=heal_at, rate=rng.choice((0.02, 0.1, 0.3, 0.6))),)


def _delay(rng: Random, nodes: Nodes, heal_at: float) -> Faults:
    start, _ = _span(rng, heal_at)
    return (Delay(start=start, end=heal_at, most=rng.choice((0.1, 1.0, 5.0, 30.0))),)


def repetition(rng: Random, nodes: Nodes, heal_at: float) -> Faults:
    return (Repetition(start=0.0, end=heal_at, rate=rng.choice((0.05, 0.3))),)


def _reordering(rng: Random, nodes: Nodes, heal_at: float) -> Faults:
    return (Reordering(start=0.0, end=heal_at),)


def _partitions(rng: Random, nodes: Nodes, heal_at: float) -> Faults:
    if len(nodes) < 2:
        return ()
    names = [node.name for node in nodes]
    found = []
    for _ in _some(rng, 3):
        start, end = _span(rng, heal_at)
        group = tuple(sorted(rng.sample(names, rng.randint(1, len(names) - 1))))
        found.append(Partition(start=start, end=end, group=group, one_way=rng.random() < 0.3))
    return tuple(found)


def _crashes(rng: Random, nodes: Nodes, heal_at: float) -> Faults:
    return tuple(
        Crash(
            at=round(rng.uniform(0.5, heal_at), 2),
            node=rng.choice(nodes).name,
            down=round(rng.choice((0.2, 2, 10, 60)) * rng.random(), 2),
            power=rng.random() < 0.3,
        )
        for _ in _some(rng, 5)
    )


def _crash_points(rng: Random, nodes: Nodes, heal_at: float) -> Faults:
    return tuple(
        CrashPoint(
            node=rng.choice(nodes).name,
            commit=rng.randint(1, 25),
            point=rng.choice(POINTS),
            down=round(rng.choice((0.1, 2, 10, 40)) * rng.random(), 2),
            power=rng.random() < 0.3,
        )
        for _ in _some(rng, 5)
    )


def _leaves(rng: Random, nodes: Nodes, heal_at: float) -> Faults:
    leavers = [node.name for node in nodes if not node.requester]
    if not leavers:
        return ()
    return (Leave(at=round(rng.uniform(1, heal_at), 2), node=rng.choice(leavers)),)


def _drains(rng: Random, nodes: Nodes, heal_at: float) -> Faults:
    computes = [node.name for node in nodes if node.compute]
    return tuple(
        Drain(
            at=round(rng.uniform(1, heal_at), 2),
            node=rng.choice(computes),
            grace=round(rng.choice((0.0, 2.0, 15.0)) * rng.random(), 2),
            down=round(rng.choice((0.5, 10.0)) * rng.random(), 2),
        )
        for _ in _some(rng, 2)
    )


def _slow_disks(rng: Random, nodes: Nodes, heal_at: float) -> Faults:
    start, end = _span(rng, heal_at)
    node = rng.choice(nodes).name
    return (SlowDisk(start=start, end=end, node=node, seconds=rng.choice((0.05, 0.5, 3.0, 25.0))),)


def _full_disks(rng: Random, nodes: Nodes, heal_at: float) -> Faults:
    start, end = _span(rng, heal_at)
    return (FullDisk(start=start, end=end, node=rng.choice(nodes).name),)


def _step_faults(rng: Random, nodes: Nodes, heal_at: float) -> Faults:
    computes = [node.name for node in nodes if node.compute]
    steps: tuple[Step, ...] = ("prepare", "run", "run", "publish", "verify")
    found = []
    for _ in _some(rng, 6):
        step = rng.choice(steps)
        outcomes: tuple[StepOutcome, ...] = ("retryable", "retryable", "permanent", "hang", "wrong", "wrong")
        outcome = rng.choice(outcomes)
        if outcome == "wrong" and step in ("prepare", "verify"):
            outcome = "retryable"  # only a run and a publisher can give a wrong result
        node = nodes[0].name if step == "verify" else rng.choice(computes)
        found.append(StepFault(node=node, step=step, number=rng.randint(1, 4), outcome=outcome))
    return tuple(found)


def _forgeries(rng: Random, nodes: Nodes, heal_at: float) -> Faults:
    return tuple(
        Forgery(at=round(rng.uniform(1, heal_at), 2), kind=rng.choice(FORGERIES), pick=rng.randint(0, 99))
        for _ in _some(rng, 40)
    )


def pruning(rng: Random, nodes: Nodes, heal_at: float) -> Faults:
    return tuple(
        Prune(at=round(rng.uniform(1, heal_at), 2), node=rng.choice(nodes).name) for _ in _some(rng, 12)
    )


CLASSES: tuple[Callable[[Random, Nodes, float], Faults], ...] = (
    _loss,
    _delay,
    repetition,
    _reordering,
    _partitions,
    _crashes,
    _crash_points,
    _leaves,
    _drains,
    _slow_disks,
    _full_disks,
    _step_faults,
    _forgeries,
)


def mild_faults(rng: Random, nodes: Nodes, heal_at: float) -> Faults:
    """Faults that excuse no job from completing: a rough network, strangers, and short absences."""
    faults: Faults = ()
    if rng.random() < 0.5:
        faults += (Loss(start=0.0, end=heal_at, rate=0.05),)
    if rng.random() < 0.5:
        faults += (Delay(start=0.0, end=heal_at, most=0.5),)
    if rng.random() < 0.5:
        faults += repetition(rng, nodes, heal_at)
    if rng.random() < 0.5:
        faults += _reordering(rng, nodes, heal_at)
    if rng.random() < 0.5:
        faults += _forgeries(rng, nodes, heal_at)
    if rng.random() < 0.6:
        for _ in _some(rng, 3):
            power, chosen = rng.random() < 0.3, rng.choice(nodes)
            node, down = chosen.name, round(rng.uniform(0.1, 1.5 if chosen.compute else 8.0), 2)
            if rng.random() < 0.5:
                at = round(rng.uniform(0.5, heal_at), 2)
                faults += (Crash(at=at, node=node, down=down, power=power),)
            else:
                commit, point = rng.randint(1, 25), rng.choice(POINTS)
                faults += (CrashPoint(node=node, commit=commit, point=point, down=down, power=power),)
    return faults
