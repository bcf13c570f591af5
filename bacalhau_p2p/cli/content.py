"""`add`, `cid` and `content ...`: add files and folders, and manage the content that the node stores."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bacalhau_p2p.cli.completion import complete_pin
from bacalhau_p2p.cli.formatting import day_and_minute, whole_time
from bacalhau_p2p.cli.help_pages import Command, Group
from bacalhau_p2p.cli.listing import HIDE_HEADER, LIST_FORMATS, output_format, print_json, print_list
from bacalhau_p2p.cli.options import node_options
from bacalhau_p2p.cli.printing import print_line, report_left_out
from bacalhau_p2p.cli.progress import ProgressLine
from bacalhau_p2p.cli.table import Column
from bacalhau_p2p.client import calls
from bacalhau_p2p.model.quantities import size_text

if TYPE_CHECKING:
    from bacalhau_p2p.client.blocking_connection import BlockingConnection
    from bacalhau_p2p.ipfs.files.importer import Added

_PATH = click.argument("path", type=click.Path(exists=True, path_type=Path))
_PROFILE = click.option(
    "--profile",
    type=click.Choice(["default", "unixfs-v1-2025"]),
    default="default",
    metavar="PROFILE",
    help="How files are split, which changes the CID: default or unixfs-v1-2025.",
)


@click.command(cls=Command)
@_PATH
@_PROFILE
@click.option("--hidden", is_flag=True, help="Include names that start with a dot.")
@node_options
def add(connection: BlockingConnection, path: Path, profile: str, *, hidden: bool) -> None:
    """Add a file or folder to the node and print its CID.

    The node pins it and serves it to its peers. As with ipfs add, what has a name that starts with a dot is
    left out; stderr says what.
    """
    from bacalhau_p2p.client.upload import upload
    from bacalhau_p2p.ipfs.format.profiles import PROFILES

    def report(added: Added) -> None:
        report_left_out(added.skipped)
        if added.hidden:
            print_line(f"left out: {added.hidden} hidden (to include them, use --hidden)", err=True)

    path = path.resolve()  # a symlink that the user names is followed
    call = upload(path, profile=PROFILES[profile], hidden=hidden, report=report)
    with ProgressLine() as progress:
        added = connection.call(replace(call, body=progress.counted(call.body, size_on_disk(path))))
    print_line(added)


@click.command(cls=Command)
@_PATH
@_PROFILE
def cid(path: Path, profile: str) -> None:
    """Print the CID of a file or folder.

    Nothing is sent. It is the CID that ipfs add -r --cid-version=1 prints.
    """
    from bacalhau_p2p.ipfs.files.importer import cid_of
    from bacalhau_p2p.ipfs.format.profiles import PROFILES

    print_line(str(cid_of(path, profile=PROFILES[profile])))


@click.group(cls=Group)
def content() -> None:
    """Manage what the node stores."""


@content.command("list")
@HIDE_HEADER
@output_format(*LIST_FORMATS)
@node_options
def list_content(connection: BlockingConnection, output: str, *, hide_header: bool) -> None:
    """List the pins of the node.

    The owner of a pin is user for what users added or pinned, published:ID for the result of an execution,
    and execution:ID for what a running execution needs. How much of the node's quota is used goes to stderr.
    """
    content = connection.call(calls.list_content())
    if output == "json":
        print_json(content)
        return
    print_list(content["Items"], _COLUMNS, output, id_of=_cid_of, hide_header=hide_header)
    if output in ("table", "wide"):
        print_line(f"{size_text(content.get('Used'))} of {size_text(content.get('Quota'))} used", err=True)


@content.command()
@click.argument("cid", shell_complete=complete_pin)
@click.option(
    "--keep",
    metavar="TIME",
    default="",
    show_default="forever",
    help="How long to keep it, such as 12h or 7d.",
)
@node_options
def pin(connection: BlockingConnection, cid: str, keep: str) -> None:
    """Pin a CID on the node.

    The node fetches what it does not have from its peers, and goes on with that after Ctrl-C.
    """
    pinned = ""
    with ProgressLine() as progress:
        for line in connection.lines(calls.follow_pin(cid, keep=keep)):
            if isinstance(line, str):
                pinned = line
            else:
                progress.update(line.done, line.total)
    print_line(pinned)


@content.command()
@click.argument("cid", shell_complete=complete_pin)
@click.option("--owner", metavar="OWNER", default="user", show_default=True, help="Owner of the pin.")
@node_options
def unpin(connection: BlockingConnection, cid: str, owner: str) -> None:
    """Remove a pin.

    The node deletes the content when it needs space, unless another pin keeps it.
    """
    connection.call(calls.unpin_content(cid, owner=owner))


@content.command()
@node_options
def gc(connection: BlockingConnection) -> None:
    """Delete what is neither pinned nor in use.

    A node that runs out of space does this by itself, oldest first.
    """
    removed = connection.call(calls.collect_garbage())
    print_line(f"{removed.get('Blocks', 0)} blocks, {size_text(removed.get('Bytes', 0))} removed")


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of the files below a folder."""
    if not path.is_dir():
        return path.stat().st_size
    files = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    return sum(file.lstat().st_size for file in files if not file.is_symlink())


def _cid_of(pin: calls.JSON) -> str:
    return str(pin.get("CID", ""))


_COLUMNS = [
    Column("CID", _cid_of),
    Column("SIZE", lambda pin: size_text(pin.get("Size"))),
    Column("OWNER", lambda pin: str(pin.get("Owner", ""))),
    Column(
        "UNTIL",
        lambda pin: day_and_minute(pin.get("Expires")),
        lambda pin: whole_time(pin.get("Expires")),
    ),
]
