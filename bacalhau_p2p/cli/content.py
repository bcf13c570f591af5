"""`add` and `cid`: files and folders as content."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bacalhau_p2p.cli.options import node_options

if TYPE_CHECKING:
    from bacalhau_p2p.cli.connection import Connection

_PATH = click.argument("path", type=click.Path(exists=True, path_type=Path))


@click.command()
@_PATH
@node_options
def add(connection: Connection, path: Path) -> None:
    """Give a file or folder to the node and print its CID.

    The node keeps it and serves it to its peers. As with `ipfs add`, entries of a folder whose names
    begin with a dot are left out.
    """
    click.echo(connection.add(path))


@click.command()
@_PATH
def cid(path: Path) -> None:
    """Print the CID of a file or folder; nothing is sent anywhere.

    It is the CID of `ipfs add -r --cid-version=1`.
    """
    from bacalhau_p2p.content.unixfs import cid_of

    click.echo(str(cid_of(path)))
