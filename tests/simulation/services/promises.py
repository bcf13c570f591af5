"""What whole nodes promise: checked while the world goes on, and at its end."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.node import Node
from bacalhau_p2p.requester.groups import ACTIVE
from tests.simulation.checks.violation import Violation, require
from tests.simulation.services.nodes import Nodes
from tests.simulation.services.story import Story

PATIENCE = 40 * 60.0
"""Seconds within which every job must end once all is healed: more than its total timeout."""
QUIET_WITHIN = 600.0
"""Seconds within which nodes must have given back everything after that."""


async def watch_slots(nodes: Nodes) -> None:
    """Never more than Count executions are accepted at one time, and no node reserves more than it has. Until
    cancelled."""
    while True:
        await trio.sleep(0.25)
        for name, node in nodes.running.items():
            if node._requester is not None:
                for entry in node._requester._machine.jobs.values():
                    active = sum(e.state in ACTIVE for e in entry.executions.values())
                    what = f"{active} executions of {entry.job.id}"
                    require(active <= entry.job.spec.count, "never more than Count", what)
            if node._compute is not None:
                capacity = node._compute.machine.capacity
                fits = capacity.reserved.fits_in(capacity.limit)
                require(fits, "reservations fit", f"{name} reserved more than it has")


async def all_ended(nodes: Nodes, submitted: Mapping[str, JobID], jobs: int, story: Story) -> None:
    """Returns when so many jobs were submitted and all have ended as they may."""
    deadline = trio.current_time() + PATIENCE
    while trio.current_time() < deadline:
        node = nodes.requester
        if node is not None and len(submitted) == jobs:
            found = {name: node.requester.job(job_id) for name, job_id in submitted.items()}
            if all(job.state.terminal for job in found.values()):
                for name, job in sorted(found.items()):
                    await _check_job(node, name, job, story)
                return
        await trio.sleep(5.0)
    raise Violation("every job ends", f"not every job ended: {_open_jobs(nodes, submitted)}")


async def all_quiet(nodes: Nodes) -> None:
    """Returns when nothing is reserved, in flight or on disk any more."""
    deadline = trio.current_time() + QUIET_WITHIN
    while (left := nodes.left_over()) and trio.current_time() < deadline:  # noqa: ASYNC110
        await trio.sleep(1.0)
    require(not left, "nothing is left", f"left over: {left}")


def _open_jobs(nodes: Nodes, submitted: Mapping[str, JobID]) -> dict[str, str]:
    node = nodes.requester
    if node is None:
        return {"requester": "is down"}
    jobs = {name: node.requester.job(job_id) for name, job_id in submitted.items()}
    return {name: f"{job.state}: {job.message}" for name, job in jobs.items() if not job.state.terminal}


async def _check_job(node: Node, name: str, job: Job, story: Story) -> None:
    executions = await node.requester.executions(job.id)
    completed = [e for e in executions if e.state is ExecutionState.COMPLETED]
    story.add("ended", name, str(job.state), job.message, len(executions))
    if job.state is not JobState.COMPLETED:
        require(bool(job.message), "every end has a reason", f"{name} ended {job.state} without a reason")
        return
    require(bool(completed), "completed means published", f"{name} completed without a result")
    for execution in completed:
        proposal, published = execution.proposal, execution.published
        require(
            proposal is not None and published is not None and proposal.result_cid == published.cid,
            "what is published was verified",
            f"{name} published something else than it proposed",
        )
    if job.spec.deterministic:
        agreeing = {e.node_id for e in executions if _cid(e) == _cid(completed[0])}
        require(len(agreeing) >= 2, "verified means agreed", f"{name} was accepted on one node's word")


def _cid(execution: Execution) -> str | None:
    return execution.proposal.result_cid if execution.proposal is not None else None
