"""Makes a failing plan smaller: fewer faults, jobs and nodes, and the same broken promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.simulation.plans.plan import Fault, JobPlan, NodePlan, Plan
from tests.simulation.worlds.world import World

Item = NodePlan | JobPlan | Fault


def shrunk(plan: Plan, promise: str) -> Plan:
    """The smallest plan found that still breaks `promise`."""

    def still_fails(items: list[Item]) -> bool:
        smaller = _plan_of(plan, items)
        if smaller is None:
            return False
        violation = World(smaller).run().violation
        return violation is not None and violation.promise == promise

    items: list[Item] = [*plan.faults, *plan.jobs, *plan.nodes]
    found = _plan_of(plan, ddmin(items, still_fails))
    assert found is not None
    return found


def ddmin(items: list[Item], still_fails: Callable[[list[Item]], bool]) -> list[Item]:
    """Zeller's delta debugging: leave out smaller and smaller parts, as long as it still fails."""
    parts = 2
    while len(items) >= 2:
        size = -(-len(items) // parts)
        for start in range(0, len(items), size):
            rest = items[:start] + items[start + size :]
            if still_fails(rest):
                items, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(len(items), parts * 2)
    return items


def _plan_of(plan: Plan, items: list[Item]) -> Plan | None:
    """The plan with these items only; None if that is no valid plan."""
    nodes = tuple(item for item in items if isinstance(item, NodePlan))
    jobs = tuple(item for item in items if isinstance(item, JobPlan))
    faults = tuple(item for item in items if not isinstance(item, NodePlan | JobPlan))
    names = {node.name for node in nodes}
    if not jobs or any(job.requester not in names for job in jobs):
        return None
    if plan.mild and not any(node.compute for node in nodes):
        return None
    left = tuple(fault for fault in faults if getattr(fault, "node", None) in (names | {None}))
    return replace(plan, nodes=nodes, jobs=jobs, faults=left)
