"""The views of the network: an overview, its nodes, and one node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution
from bacalhau_p2p.model.history import EventKind, HistoryEvent
from bacalhau_p2p.node import Node
from bacalhau_p2p.node.known_nodes import KnownNode
from bacalhau_p2p.page.activity import SAMPLES, Activity
from bacalhau_p2p.page.job_rows import shortened
from bacalhau_p2p.page.job_views import rows_of
from bacalhau_p2p.page.texts import percent
from bacalhau_p2p.page.view import Strings, Values
from bacalhau_p2p.requester.feed import SCAN_EVENTS, FeedQuery

RUNNING_SHOWN = 10
LATEST_SHOWN = 10
SEARCHED = 100
"""Jobs, the latest, among which the executions of a node are looked for."""
REFUSALS_SHOWN = 20
MAX_LABELS = 80
"""Characters of the labels of a node in a table."""


class NodeRow(NamedTuple):
    """One node in a table. `heard` is in seconds; `cpu` and `memory` are what is in use, in percent, and
    None if the node runs no jobs."""

    id: PeerID
    up: bool
    engines: str
    running: int | str
    cpu: int | None
    memory: int | None
    labels: str
    version: str
    heard: float


class Offender(NamedTuple):
    peer: str
    why: str
    cut_off: float
    """Seconds for which it is still refused."""


async def overview(node: Node, activity: Activity) -> Values:
    nodes, now = node.known_nodes(), node.clock()
    jobs_rates, bytes_rates = activity.jobs_per_minute(), activity.bytes_per_second()
    unfinished = node.unfinished
    values: Values = {
        "problems": node.health(),
        "ended": activity.ended,
        "compute": node.info().compute,
        "executions": unfinished["Compute"].total() if "Compute" in unfinished else 0,
        "nodes_up": sum(known.is_fresh(now) for known in nodes),
        "nodes_known": len(nodes),
        "peers": len(node.transport.peers),
        "jobs_rates": jobs_rates,
        "jobs_now": jobs_rates[-1] if jobs_rates else 0.0,
        "bytes_rates": bytes_rates,
        "bytes_now": bytes_rates[-1] if bytes_rates else 0.0,
        "samples": SAMPLES,
    }
    if "Requester" in unfinished:
        latest = node.requester.jobs(limit=LATEST_SHOWN).jobs
        values["unfinished"] = unfinished["Requester"]
        values["running"] = rows_of(node, node.requester.unfinished_jobs(RUNNING_SHOWN))
        values["latest"] = rows_of(node, latest)
    return values


async def node_list(node: Node, names: Strings, query: Strings) -> Values:
    now = node.clock()
    rows = [_row(known, now) for known in node.known_nodes()]
    rows.sort(key=lambda row: (row.id != node.peer_id, not row.up, row.labels, row.id))
    return {"rows": rows, "offenders": _offenders(node)}


async def node_detail(node: Node, names: Strings, query: Strings) -> Values:
    """`names["peer"]` is the id of a node, or its beginning. Raises UnknownNode, AmbiguousID."""
    known, now = node.resolve_node(names["peer"]), node.clock()
    peer = known.info.id
    executions, refusals = list[Execution](), list[HistoryEvent]()
    if "Requester" in node.unfinished:
        refusals = await _refusals(node, peer)
        latest = node.requester.jobs(limit=SEARCHED).jobs
        for job in latest:
            executions += [e for e in await node.requester.executions(job.id) if e.node_id == peer]
    return {
        "id": peer,
        "info": known.info_at(now),
        "up": known.is_fresh(now),
        "heard": max(0.0, now - known.received_at),
        "walls": node.walls if peer == node.peer_id else {},
        "executions": executions,
        "searched": SEARCHED,
        "refusals": refusals,
        "dropped": next((each.why for each in _offenders(node) if each.peer == peer), ""),
    }


async def _refusals(node: Node, peer: PeerID) -> list[HistoryEvent]:
    """Why this node did not bid on jobs of this requester, the latest first."""
    after = max(0, node.requester.feed_place(None) - SCAN_EVENTS)
    query = FeedQuery(kinds=frozenset({EventKind.DECLINED}))
    page = await node.requester.feed(query, after=after, limit=SCAN_EVENTS)
    return [event for event in reversed(page.events) if event.node_id == peer][:REFUSALS_SHOWN]


def _row(known: KnownNode, now: UnixSeconds) -> NodeRow:
    info = known.info_at(now)
    compute = info.compute
    labels = " ".join(f"{name}={value}" for name, value in info.labels.items())
    used_cpu = used_memory = None
    if compute is not None:
        limit, left = compute.max_capacity, compute.available_capacity
        used_cpu = percent(limit.cpu - left.cpu, limit.cpu)
        used_memory = percent(limit.memory - left.memory, limit.memory)
    return NodeRow(
        id=info.id,
        up=known.is_fresh(now),
        engines=", ".join(compute.engines) if compute is not None else "",
        running=compute.running_executions if compute is not None else "",
        cpu=used_cpu,
        memory=used_memory,
        labels=shortened(labels, MAX_LABELS),
        version=info.version,
        heard=max(0.0, now - known.received_at),
    )


def _offenders(node: Node) -> list[Offender]:
    budgets = node.transport.budgets
    cut_off = {str(peer): left for peer, left in budgets.cut_off_for().items()}
    worst = {str(peer): counts for peer, counts in budgets.offences.worst().items()}
    return [
        Offender(peer, _why(worst.get(peer, {})), cut_off.get(peer, 0.0)) for peer in {**cut_off, **worst}
    ]


def _why(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in counts.items())
