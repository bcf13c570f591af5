"""`add`, `cid` and `content ...`: files and folders as content, and what the node keeps of it."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bacalhau_p2p.cli.options import node_options
from bacalhau_p2p.cli.progress import size_text

if TYPE_CHECKING:
    from bacalhau_p2p.cli.connection import JSON, Connection

_PATH = click.argument("path", type=click.Path(exists=True, path_type=Path))
_PROFILE = click.option(
    "--profile",
    type=click.Choice(["default", "unixfs-v1-2025"]),
    default="default",
    show_default=True,
    help="How bytes become blocks; another profile gives another CID.",
)


@click.command()
@_PATH
@_PROFILE
@node_options
def add(connection: Connection, path: Path, profile: str) -> None:
    """Give a file or folder to the node and print its CID.

    The node keeps it and serves it to its peers. As with `ipfs add`, entries of a folder whose names
    begin with a dot are left out.
    """
    click.echo(connection.add(path, profile=profile))


@click.command()
@_PATH
@_PROFILE
def cid(path: Path, profile: str) -> None:
    """Print the CID of a file or folder; nothing is sent anywhere.

    By default it is the CID of `ipfs add -r --cid-version=1`.
    """
    from bacalhau_p2p.ipfs.files.importer import PROFILES, cid_of

    click.echo(str(cid_of(path, profile=PROFILES[profile])))


@click.group()
def content() -> None:
    """What the node keeps of content, and for whom."""


@content.command("list")
@click.option(
    "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="How to print."
)
@node_options
def list_content(connection: Connection, output: str) -> None:
    """Show what is pinned on the node: for whom, until when, and its size; and how much room is used.

    `user` is what users added and pinned, `published:ID` the result of an execution, `execution:ID`
    what an execution needs that has not ended.
    """
    from bacalhau_p2p.cli.connection import items_of
    from bacalhau_p2p.cli.jobs import table

    answer = connection.content()
    if output == "json":
        click.echo(json.dumps(answer, indent=2))
        return
    rows = [("CID", "SIZE", "OWNER", "UNTIL"), *map(_row, items_of(answer))]
    for line in table(rows):
        click.echo(line)
    click.echo(f"{size_text(answer.get('Used'))} of {size_text(answer.get('Quota'))} used", err=True)


@content.command()
@click.argument("cid")
@click.option("--keep", metavar="TIME", default="", help="For how long, such as 12h or 7d [default: always].")
@node_options
def pin(connection: Connection, cid: str, keep: str) -> None:
    """Have the node keep a CID, which it fetches from its peers if need be."""
    click.echo(connection.pin(cid, keep=keep).get("CID", cid))


@content.command()
@click.argument("cid")
@click.option("--owner", default="user", show_default=True, help="Whose pin to remove, as `list` shows it.")
@node_options
def unpin(connection: Connection, cid: str, owner: str) -> None:
    """Let the node forget a CID as soon as it wants room, unless somebody else needs it too."""
    connection.unpin(cid, owner=owner)


@content.command()
@node_options
def gc(connection: Connection) -> None:
    """Remove from the node now whatever is not pinned and not in use.

    The node does it by itself when it is short of room, the oldest first.
    """
    gone = connection.collect_garbage()
    click.echo(f"{gone.get('Blocks', 0)} blocks, {size_text(gone.get('Bytes', 0))} removed")


def _row(pin: JSON) -> tuple[str, ...]:
    expires, until = pin.get("Expires"), ""
    if isinstance(expires, int):
        until = datetime.fromtimestamp(expires / 1e9).strftime("%y-%m-%d %H:%M")
    return str(pin.get("CID", "")), size_text(pin.get("Size")), str(pin.get("Owner", "")), until
