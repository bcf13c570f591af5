"""`id` and `version`: the node, and this program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bacalhau_p2p.cli.options import API_HOST, API_PORT, connect, node_options
from bacalhau_p2p.cli.printing import print_line
from bacalhau_p2p.version import __version__

if TYPE_CHECKING:
    from bacalhau_p2p.client.blocking_connection import BlockingConnection


@click.command("id")
@node_options
def node_id(connection: BlockingConnection) -> None:
    """Print the peer id of the node."""
    from bacalhau_p2p.client import calls

    print_line(connection.call(calls.get_node().then(lambda node: calls.text(node, "NodeID"))))


@click.command()
@click.option("--server", is_flag=True, help="Also print the version of the node.")
@API_HOST
@API_PORT
def version(server: bool, api_host: str | None, api_port: int | None) -> None:
    """Print the version."""
    print_line(f"bacalhau-p2p v{__version__}")
    if server:
        from bacalhau_p2p.client import calls

        with connect(api_host, api_port) as connection:
            print_line(f"node {connection.call(calls.get_version())}")
