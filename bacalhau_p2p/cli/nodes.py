"""`node list` and `node describe`: the nodes that the node knows."""

from __future__ import annotations

import click

from bacalhau_p2p.cli.completion import complete_node_id
from bacalhau_p2p.cli.help_pages import Group
from bacalhau_p2p.cli.listing import (
    HIDE_HEADER,
    ITEM_FORMATS,
    JSON,
    LIST_FORMATS,
    WIDE,
    output_format,
    print_item,
    print_list,
)
from bacalhau_p2p.cli.options import node_options, repeatable
from bacalhau_p2p.cli.printing import print_line
from bacalhau_p2p.cli.table import Column
from bacalhau_p2p.cli.usage import Number
from bacalhau_p2p.client import calls
from bacalhau_p2p.client.blocking_connection import BlockingConnection
from bacalhau_p2p.model.quantities import size_text


@click.group(cls=Group)
def node() -> None:
    """Show the nodes of the network."""


@node.command("list")
@repeatable(
    "--labels", "-l", metavar="SELECTOR", help="Only nodes whose labels match, such as zone=lab,!gpu."
)
@click.option(
    "--status",
    "--filter-status",
    "status",
    type=click.Choice(["connected", "disconnected"], case_sensitive=False),
    metavar="STATUS",
    help="Only nodes that are connected, or disconnected.",
)
@click.option("--filter-approval", hidden=True, expose_value=False)
@click.option("--show", hidden=True, expose_value=False)
@click.option(
    "--order-by",
    type=click.Choice(["id", "type", "available_cpu", "available_memory", "available_disk", "available_gpu"]),
    metavar="FIELD",
    default="id",
    show_default=True,
    help="id, type, available_cpu, available_memory, available_disk or available_gpu.",
)
@click.option("--reverse", "--order-reversed", is_flag=True, help="Reverse the order.")
@click.option(
    "--limit",
    metavar="N",
    type=Number(1, 10_000),
    default=10_000,
    show_default="all",
    help="Number of nodes.",
)
@HIDE_HEADER
@WIDE
@output_format(*LIST_FORMATS)
@node_options
def list_nodes(
    connection: BlockingConnection,
    *,
    labels: tuple[str, ...],
    status: str | None,
    order_by: str,
    reverse: bool,
    limit: int,
    hide_header: bool,
    wide: bool,
    output: str,
) -> None:
    """List the nodes of the network.

    These are the nodes that yours knows, itself included. CPU, memory, disk and GPUs are shown as what is
    free of what jobs may use. Peers that misbehave are told on stderr.
    """
    call = calls.list_nodes(
        labels=labels, status=status or "", order_by=order_by, reverse=reverse, limit=limit
    )
    output = "wide" if wide and output == "table" else output
    found = connection.call(call)
    print_list(found, COLUMNS, output, id_of=node_id_of, hide_header=hide_header)
    if output in ("table", "wide"):
        for line in _misbehaving(connection.call(calls.get_node())):
            print_line(line, err=True)


@node.command()
@click.argument("node_id", metavar="NODE", shell_complete=complete_node_id)
@output_format(*ITEM_FORMATS)
@node_options
def describe(connection: BlockingConnection, node_id: str, output: str) -> None:
    """Show what a node offers and how busy it is.

    NODE is an id, its beginning, or its last characters as node list shows them.
    """
    print_item(connection.call(calls.describe_node(node_id)), output, COLUMNS, id_of=node_id_of)


def node_id_of(state: JSON) -> str:
    return str(_info(state).get("NodeID", ""))


def _misbehaving(node: JSON) -> list[str]:
    """A line for each peer that the node blames, and each that it gives jobs only if no other takes them."""
    offences, cut_off = node.get("WorstSenders") or {}, node.get("CutOff") or {}
    lines = []
    for peer in {**offences, **cut_off}:
        counts = [f"{count} {kind}" for kind, count in (offences.get(peer) or {}).items()]
        if peer in cut_off:
            counts.append(f"cut off for {cut_off[peer]} s")
        lines.append(f"peer {peer} misbehaves: {', '.join(counts)}")
    for peer, left in (node.get("ChosenLast") or {}).items():
        lines.append(
            f"node {peer} is chosen last for {left} s: it was silent, or failed jobs that others ran"
        )
    return lines


def _info(state: JSON) -> JSON:
    info = state.get("Info")
    return info if isinstance(info, dict) else {}


def _compute(state: JSON) -> JSON:
    compute = _info(state).get("ComputeNodeInfo")
    return compute if isinstance(compute, dict) else {}


def _labels(state: JSON) -> str:
    return " ".join(f"{key}={value}" for key, value in (_info(state).get("Labels") or {}).items())


def _amount(resource: str, state: JSON) -> str:
    """What is free of what there is."""
    free, most = (
        (_compute(state).get(kind) or {}).get(resource, 0) for kind in ("AvailableCapacity", "MaxCapacity")
    )
    if not _compute(state):
        return ""
    if resource in ("CPU", "GPU"):
        return f"{free:g} / {most:g}"
    return f"{size_text(free)} / {size_text(most)}"


def _joined(kind: str, state: JSON) -> str:
    return " ".join(map(str, _compute(state).get(kind) or ()))


COLUMNS = [
    Column("ID", lambda s: node_id_of(s)[-8:], node_id_of),
    Column("TYPE", lambda s: str(_info(s).get("NodeType", ""))),
    Column("STATUS", lambda s: str(s.get("Connection", "")), is_state=True),
    Column("RUNNING", lambda s: str(_compute(s).get("RunningExecutions", ""))),
    Column("CPU", lambda s: _amount("CPU", s)),
    Column("MEMORY", lambda s: _amount("Memory", s)),
    Column("GPU", lambda s: _amount("GPU", s), least=0),
    Column("DISK", lambda s: _amount("Disk", s), least=0),
    Column("LABELS", _labels, least=8),
    Column("ENGINES", lambda s: _joined("ExecutionEngines", s), only_wide=True),
    Column("SOURCES", lambda s: _joined("StorageSources", s), only_wide=True),
    Column("PUBLISHERS", lambda s: _joined("Publishers", s), only_wide=True),
    Column("VERSION", lambda s: str(_info(s).get("Version", "")), only_wide=True),
]
