"""`id` and `version`: which node, and which program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import bacalhau_p2p
from bacalhau_p2p.cli.options import API_HOST, API_PORT, connect, node_options
from bacalhau_p2p.errors import ApiError

if TYPE_CHECKING:
    from bacalhau_p2p.cli.connection import Connection


@click.command("id")
@node_options
def node_id(connection: Connection) -> None:
    """Print the peer id of the node."""
    found = connection.node().get("ID")
    if not isinstance(found, str):
        raise ApiError("the node's answer cannot be understood: it has no ID")
    click.echo(found)


@click.command()
@click.option("--server", is_flag=True, help="Print the version of the node too.")
@API_HOST
@API_PORT
def version(server: bool, api_host: str | None, api_port: int | None) -> None:
    """Print the version of this program."""
    click.echo(f"bacalhau-p2p v{bacalhau_p2p.__version__}")
    if server:
        with connect(api_host, api_port) as connection:
            click.echo(f"node {connection.version().get('GitVersion', 'of an unknown version')}")
