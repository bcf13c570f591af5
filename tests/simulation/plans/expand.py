"""From a seed to a plan: which nodes, jobs and faults a world has. Fault classes are on or off per world."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tests.simulation.plans.faults import CLASSES, Faults, Nodes, mild_faults, pruning, repetition
from tests.simulation.plans.plan import (
    Crash,
    Delay,
    JobPlan,
    Leave,
    NodePlan,
    Partition,
    Plan,
    StepFault,
)
from tests.simulation.plans.rng import rng_for


def expand(seed: int) -> Plan:
    """The plan of this seed. It is always the same."""
    rng = rng_for(seed, "plan")
    kind = rng.random()
    if kind < 0.08:
        return _calm(seed, rng)
    if kind < 0.0825:
        return _whole_day(seed, rng)
    if 0.0825 <= kind < 0.0835:
        return abandoned(seed, rng)
    if 0.25 <= kind < 0.28:
        return returning(seed, rng)
    if 0.28 <= kind < 0.295:
        return _hopeless(seed, rng)
    nodes = _nodes(rng)
    heal_at = rng.uniform(40, 120)
    jobs = _jobs(rng, nodes, heal_at)
    if kind < 0.25:
        faults = mild_faults(rng, nodes, heal_at)
        room = rng.choice((2.0, 8.0, 8.0))
        nodes = tuple(replace(node, lie="", joins=0.0, cpu=room) for node in nodes)
        jobs = tuple(_patient(job, nodes) for job in jobs)
        return Plan(
            seed=seed,
            nodes=nodes,
            jobs=jobs,
            faults=faults,
            heal_at=heal_at,
            mild=True,
            encoded=rng.random() < 0.1,
        )
    nodes, jobs = _false_roots(rng_for(seed, "false roots"), nodes, jobs)
    faults = ()
    on = [make for make in CLASSES if rng.random() < 0.3] or [rng.choice(CLASSES)]
    for make in on:
        faults += make(rng, nodes, heal_at)
    if (drawn := rng_for(seed, "pruning")).random() < 0.3:
        faults += pruning(drawn, nodes, heal_at)
    return Plan(seed=seed, nodes=nodes, jobs=jobs, faults=faults, heal_at=heal_at, encoded=rng.random() < 0.1)


def _false_roots(rng: Random, nodes: Nodes, jobs: tuple[JobPlan, ...]) -> tuple[Nodes, tuple[JobPlan, ...]]:
    """In some worlds verifiers compare single entries, and nodes lie about where these entries are."""
    if rng.random() < 0.85:
        return nodes, jobs
    nodes = tuple(replace(node, false_root=rng.random() < 0.4) for node in nodes)
    return nodes, tuple(replace(job, compared=("stdout",) * (rng.random() < 0.7)) for job in jobs)


def _nodes(rng: Random) -> Nodes:
    count = rng.choice((1, 2, 3, 3, 4, 4, 5, 7))
    requesters = 2 if rng.random() < 0.2 else 1
    skewed = rng.random() < 0.4
    lies = rng.random() < 0.25
    joining = rng.random() < 0.3
    tight = rng.random() < 0.35
    both = rng.random() < 0.3
    nodes = []
    for number in range(requesters + count - (requesters if both else 0) * (count > requesters)):
        requester = number < requesters
        nodes.append(
            NodePlan(
                name=f"{'r' if requester else 'c'}{number}",
                requester=requester,
                compute=not requester or both,
                cpu=rng.choice((0.5, 1.0, 2.0)) if tight else 8.0,
                skew=round(rng.uniform(-3600, 3600), 2) if skewed else 0.0,
                speed=rng.choice((0.5, 1.0, 1.0, 2.0)),
                joins=round(rng.uniform(5, 60), 2)
                if joining and not requester and rng.random() < 0.5
                else 0.0,
                lie=rng.choice(("-a", "-a", "-b")) if lies and not requester and rng.random() < 0.35 else "",
            )
        )
    return tuple(nodes)


def _jobs(rng: Random, nodes: Nodes, heal_at: float) -> tuple[JobPlan, ...]:
    requesters = [node.name for node in nodes if node.requester]
    computes = sum(node.compute for node in nodes)
    long_one = rng.random() < 0.15
    jobs = []
    for number in range(rng.choice((1, 1, 2, 3, 4, 6))):
        count = min(rng.choice((1, 1, 1, 2, 3, 3, 4)), computes + (rng.random() < 0.1))
        deterministic = count > 1 and rng.random() < 0.6
        total = rng.choice((60.0, 150.0, 300.0, 600.0, 600.0))
        at = round(rng.uniform(0.5, heal_at * 0.7), 2)
        jobs.append(
            JobPlan(
                name=f"j{number}",
                requester=rng.choice(requesters),
                at=at,
                count=count,
                verifier="deterministic" if deterministic else "noop",
                confidence=rng.choice((0, 0, 2, min(3, count))) if deterministic else 0,
                min_bids=rng.choice((0, 0, 0, 1, 2, 3)),
                priority=rng.choice((0, 0, 5)),
                cpu=rng.choice((0.5, 0.5, 1.0, 2.0)),
                prepare=round(rng.choice((0.0, 0.2, 3.0)) * rng.random(), 2),
                run=round(
                    rng.uniform(70, 150)
                    if long_one and number == 0
                    else rng.choice((1, 8, 50)) * rng.random(),
                    2,
                ),
                publish=round(rng.choice((0.0, 0.2, 3.0)) * rng.random(), 2),
                execution_timeout=min(total / 2, rng.choice((20.0, 60.0, 200.0))),
                queue_timeout=min(total / 2, rng.choice((30.0, 100.0, 300.0))),
                total_timeout=total,
                survives=rng.random() < 0.6,
                cancel_at=round(at + rng.uniform(0, 40), 2) if rng.random() < 0.12 else None,
            )
        )
    return tuple(jobs)


def _calm(seed: int, rng: Random) -> Plan:
    computes = rng.choice((1, 3, 5))
    nodes = (
        NodePlan(name="r0", requester=True, compute=False),
        *(NodePlan(name=f"c{number + 1}", cpu=64.0) for number in range(computes)),
    )
    jobs = tuple(
        JobPlan(
            name=f"j{number}",
            requester="r0",
            at=round(3 + rng.uniform(0, 20), 2),
            count=(count := rng.randint(1, computes)),
            verifier="deterministic" if count > 1 and rng.random() < 0.5 else "noop",
            prepare=round(rng.random(), 2),
            run=round(rng.uniform(0.05, 20), 2),
            publish=round(rng.random(), 2),
        )
        for number in range(rng.randint(1, 4))
    )
    return Plan(seed=seed, nodes=nodes, jobs=jobs, heal_at=0.0, calm=True, mild=True, encoded=True)


def _whole_day(seed: int, rng: Random) -> Plan:
    """A requester that never comes back. Its nodes keep results for a day."""
    nodes = (NodePlan(name="r0", requester=True, compute=False), NodePlan(name="c1"))
    job = JobPlan(name="j0", requester="r0", at=3.0, run=4.0)
    leave = Leave(at=round(rng.uniform(4, 9), 2), node="r0")
    return Plan(seed=seed, nodes=nodes, jobs=(job,), faults=(leave,), heal_at=10.0, whole_day=True)


def abandoned(seed: int, rng: Random) -> Plan:
    """A requester leaves for good while its job runs for hours, and another one is down for up to 50 minutes,
    while the same node runs a job for it, which must not be lost."""
    nodes = (
        NodePlan(name="r0", requester=True, compute=False),
        NodePlan(name="r1", requester=True, compute=False),
        NodePlan(name="c1", skew=round(rng.uniform(-3600, 3600), 2)),
    )
    runs = (15_000.0, round(rng.uniform(3000, 5000), 2))
    jobs = tuple(
        JobPlan(
            name=f"j{number}",
            requester=f"r{number}",
            at=3.0,
            run=run,
            execution_timeout=20_000.0,
            total_timeout=30_000.0,
        )
        for number, run in enumerate(runs)
    )
    at, away = round(rng.uniform(5, 60), 2), round(rng.uniform(60, 3000), 2)
    faults: Faults = (
        Leave(at=round(rng.uniform(5, 60), 2), node="r0"),
        Crash(at=at, node="r1", down=away, power=rng.random() < 0.3),
    )
    return Plan(seed=seed, nodes=nodes, jobs=jobs, faults=faults, heal_at=at + away + 1.0, abandoned=True)


def returning(seed: int, rng: Random) -> Plan:
    """Containers whose nodes are killed or cut off once, for up to a minute, while other nodes are free."""
    computes = rng.choice((3, 3, 4, 5))
    heal_at = 150.0
    nodes = (
        NodePlan(name="r0", requester=True, compute=False),
        *(NodePlan(name=f"c{number + 1}", cpu=64.0) for number in range(computes)),
    )
    jobs = tuple(
        JobPlan(
            name=f"j{number}",
            requester="r0",
            at=round(rng.uniform(3, 20), 2),
            count=(count := rng.randint(1, computes - 1)),
            verifier="deterministic" if count > 1 and rng.random() < 0.5 else "noop",
            prepare=round(rng.random(), 2),
            run=round(rng.uniform(5, 60), 2),
            publish=round(rng.random(), 2),
            execution_timeout=300.0,
            queue_timeout=1000.0,
            total_timeout=2000.0,
        )
        for number in range(rng.randint(1, 3))
    )
    faults: Faults = ()
    for node in rng.sample(nodes[1:], rng.randint(1, computes - 1)):
        at, away = round(rng.uniform(4, 80), 2), round(rng.uniform(1, 60), 2)
        if rng.random() < 0.75:
            faults += (Crash(at=at, node=node.name, down=away),)
        else:
            faults += (Partition(start=at, end=round(at + away, 2), group=(node.name,)),)
    if rng.random() < 0.4:
        down = round(rng.uniform(0.1, 8), 2)
        faults += (Crash(at=round(rng.uniform(4, 100), 2), node="r0", down=down),)
    if rng.random() < 0.5:
        faults += (Delay(start=0.0, end=heal_at, most=0.5), *repetition(rng, nodes, heal_at))
    return Plan(seed=seed, nodes=nodes, jobs=jobs, faults=faults, heal_at=heal_at, mild=True, returning=True)


def _hopeless(seed: int, rng: Random) -> Plan:
    """Jobs that most nodes, one after the other, report as impossible to run. The requester is killed in
    between and must remember which nodes did."""
    nodes = (
        NodePlan(name="r0", requester=True, compute=False),
        *(
            NodePlan(name=f"c{number + 1}", cpu=64.0, speed=rng.choice((0.5, 1.0, 2.0)))
            for number in range(5)
        ),
    )
    jobs = tuple(
        JobPlan(
            name=f"j{number}",
            requester="r0",
            at=round(rng.uniform(3, 10), 2),
            count=rng.randint(2, 3),
            verifier="deterministic",
            prepare=round(rng.uniform(1, 15), 2),
            survives=rng.random() < 0.5,
        )
        for number in range(2)
    )
    faults: Faults = tuple(
        StepFault(node=node.name, step="prepare", number=number, outcome="permanent")
        for node in nodes[1:]
        for number in range(1, 5)
        if rng.random() < 0.8
    )
    for _ in range(rng.randint(3, 8)):
        at, down = round(rng.uniform(5, 40), 2), round(rng.uniform(0.1, 3), 2)
        faults += (Crash(at=at, node="r0", down=down, power=rng.random() < 0.3),)
    return Plan(seed=seed, nodes=nodes, jobs=jobs, faults=faults, heal_at=90.0)


def _patient(job: JobPlan, nodes: Nodes) -> JobPlan:
    """The same job without anything that would excuse it from completing."""
    computes = sum(node.compute for node in nodes)
    count = min(job.count, computes)
    deterministic = job.verifier == "deterministic" and count > 1
    return replace(
        job,
        count=count,
        verifier="deterministic" if deterministic else "noop",
        confidence=min(job.confidence, count) if deterministic else 0,
        min_bids=min(job.min_bids, computes),
        execution_timeout=300.0,
        queue_timeout=1000.0,
        total_timeout=2000.0,
        cancel_at=None,
    )
