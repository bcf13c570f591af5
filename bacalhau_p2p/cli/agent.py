"""`agent`, `id` and `version`: the node, and this program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bacalhau_p2p.cli.help_pages import Command, Group
from bacalhau_p2p.cli.listing import output_format
from bacalhau_p2p.cli.options import GLOBAL_OPTIONS, connect, node_options
from bacalhau_p2p.cli.printing import print_line
from bacalhau_p2p.version import __version__

if TYPE_CHECKING:
    from bacalhau_p2p.cli.listing import JSON
    from bacalhau_p2p.client.blocking_connection import BlockingConnection


@click.group(cls=Group)
def agent() -> None:
    """Show the node that commands talk to."""


@agent.command()
@output_format("yaml", "json")
@node_options
def alive(connection: BlockingConnection, output: str) -> None:
    """Check that the node answers."""
    from bacalhau_p2p.client import calls

    _print(connection.call(calls.get_agent("alive")), output)


@agent.command("version")
@output_format("yaml", "json")
@node_options
def agent_version(connection: BlockingConnection, output: str) -> None:
    """Show the version of the node."""
    from bacalhau_p2p.client import calls

    _print(connection.call(calls.get_agent("version")), output)


@agent.command("node")
@output_format("yaml", "json")
@node_options
def agent_node(connection: BlockingConnection, output: str) -> None:
    """Show the node with its peers and its counters."""
    from bacalhau_p2p.client import calls

    _print(connection.call(calls.get_node()), output)


@agent.command("config")
@output_format("yaml", "json")
@node_options
def agent_config(connection: BlockingConnection, output: str) -> None:
    """Show the settings that Bacalhau has too."""
    from bacalhau_p2p.client import calls

    _print(connection.call(calls.get_agent("config")), output)


@click.command("id", cls=Command)
@node_options
def node_id(connection: BlockingConnection) -> None:
    """Print the peer id of the node."""
    from bacalhau_p2p.client import calls

    print_line(connection.call(calls.get_node().then(lambda node: calls.text(node, "NodeID"))))


@click.command(cls=Command)
@click.option("--server", is_flag=True, help="Also print the version of the node.")
@click.option("--client", is_flag=True, hidden=True, expose_value=False)
@click.option(
    "-o",
    "--output",
    metavar="FORMAT",
    type=click.Choice(["yaml", "json"]),
    show_default="a line of text",
    help="yaml or json.",
)
@GLOBAL_OPTIONS
def version(server: bool, output: str | None, api_host: str | None, api_port: int | None) -> None:
    """Print the version."""
    node: JSON | None = None
    if server:
        from bacalhau_p2p.client import calls

        with connect(api_host, api_port) as connection:
            node = connection.call(calls.get_agent("version"))
    ours = f"v{__version__}"
    if output is not None:
        told = {} if node is None else {"serverVersion": node}
        _print({"clientVersion": {"GitVersion": ours}, **told}, output)
        return
    print_line(f"bacalhau-p2p {ours}")
    if node is not None:
        print_line(f"node {node.get('GitVersion', '')}")


def _print(value: JSON, output: str) -> None:
    from bacalhau_p2p.cli.listing import print_json, print_yaml

    if output == "json":
        print_json(value)
    else:
        print_yaml(value)
