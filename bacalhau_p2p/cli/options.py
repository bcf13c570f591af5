"""Flags that many commands have."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from bacalhau_p2p.cli.connection import Connection

DEFAULT_API_HOST = "127.0.0.1"
DEFAULT_API_PORT = 1234
ENV_HOST, ENV_PORT, ENV_TOKEN = "BACALHAU_P2P_API_HOST", "BACALHAU_P2P_API_PORT", "BACALHAU_P2P_API_TOKEN"

Command = TypeVar("Command", bound=Callable[..., Any])

API_HOST = click.option(
    "--api-host",
    metavar="HOST",
    help=f"Where the node's API is [env: {ENV_HOST}; default: {DEFAULT_API_HOST}].",
)
API_PORT = click.option(
    "--api-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help=f"The port of the node's API [env: {ENV_PORT}; default: {DEFAULT_API_PORT}].",
)


def node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `--api-host` and `--api-port`, and a `Connection` as its first argument."""

    @functools.wraps(command)
    def connected(*args: Any, api_host: str | None, api_port: int | None, **kwargs: Any) -> Any:
        with connect(api_host, api_port) as connection:
            return command(connection, *args, **kwargs)

    return API_HOST(API_PORT(connected))


def connect(api_host: str | None, api_port: int | None) -> Connection:
    """The node that flags name, or else those in front of the command, the environment, or the default.
    Nothing is sent yet."""
    from bacalhau_p2p.cli.connection import Connection

    outer = click.get_current_context().find_root().params
    host = api_host or outer.get("api_host") or os.environ.get(ENV_HOST) or DEFAULT_API_HOST
    port = api_port or outer.get("api_port") or _port_of_environment() or DEFAULT_API_PORT
    return Connection(host, port, token=os.environ.get(ENV_TOKEN, ""))


def _port_of_environment() -> int | None:
    text = os.environ.get(ENV_PORT)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 65535:
        raise click.UsageError(f"{ENV_PORT} is {text!r}, which is not a port")
    return int(text)


OUTPUT_DIR = click.option(
    "--output-dir",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Where to write the results [default: job-ID].",
)


@dataclass(frozen=True, slots=True)
class Follow:
    """The flags of `follow_options`."""

    id_only: bool
    wait: bool | None
    download: bool
    output_dir: str | None
    dry_run: bool

    @property
    def waits(self) -> bool:
        return self.download or (not self.id_only if self.wait is None else self.wait)


def follow_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the flags for what happens once a job is submitted, together as `how`."""

    @functools.wraps(command)
    def gathered(*args: Any, **flags: Any) -> Any:
        how = Follow(**{each.name: flags.pop(each.name) for each in fields(Follow)})
        return command(*args, how=how, **flags)

    followed: Callable[..., Any] = gathered
    for option in reversed(
        [
            click.option("--id-only", is_flag=True, help="Print the job's id and nothing else."),
            click.option(
                "--wait/--no-wait",
                default=None,
                help="Wait until the job has ended [default: wait, unless --id-only].",
            ),
            click.option("--download", is_flag=True, help="Wait, and fetch the results as `get` does."),
            OUTPUT_DIR,
            click.option("--dry-run", is_flag=True, help="Print the job as YAML and submit nothing."),
        ]
    ):
        followed = option(followed)
    return followed


def job_options(command: Command) -> Command:
    """What a job may say, whatever its engine."""
    for option in reversed(
        [
            click.option(
                "-i",
                "--input",
                "inputs",
                multiple=True,
                metavar="SRC[:DST]",
                help="Data for the job, at DST (default /inputs); SRC,dst=DST means the same. SRC is "
                "ipfs://CID, a CID, a URL, s3://BUCKET/KEY, a local path or file://PATH (added to the node "
                "first), or local://PATH, a path of the compute node.",
            ),
            click.option(
                "-o",
                "--output",
                "outputs",
                multiple=True,
                metavar="NAME:PATH",
                help="A folder that the job fills at PATH, and its name in the results; outputs:/outputs is "
                "always there.",
            ),
            click.option(
                "-e",
                "--env",
                multiple=True,
                metavar="NAME=VALUE",
                help="A variable of the job's environment; NAME alone takes the value it has here.",
            ),
            click.option(
                "--count",
                "--concurrency",
                type=click.IntRange(1, 1000),
                default=1,
                show_default=True,
                help="How many nodes run the job.",
            ),
            click.option("--verifier", metavar="TYPE", help="How results are judged: noop or deterministic."),
            click.option(
                "--confidence", type=click.IntRange(min=0), help="How many equal results are enough."
            ),
            click.option(
                "--min-bids",
                type=click.IntRange(min=0),
                help="Bids that must be in before the first is accepted.",
            ),
            click.option(
                "--timeout", metavar="TIME", help="How long one run may take: seconds, or text such as 30m."
            ),
            click.option(
                "--queue-timeout", metavar="TIME", help="How long to wait for nodes to run it [default: 5m]."
            ),
            click.option("--cpu", metavar="CORES", help="CPU cores: 0.5 or 500m [default: 0.1]."),
            click.option("--memory", metavar="BYTES", help="Memory: 256mb or 1Gi [default: 100mb]."),
            click.option("--gpu", metavar="N", help="GPUs [default: 0]."),
            click.option(
                "--network",
                type=click.Choice(["none", "http", "full"], case_sensitive=False),
                help="What the job may reach [default: none].",
            ),
            click.option(
                "--domain", "domains", multiple=True, help="A domain to be reached with --network http."
            ),
            click.option("--publisher", metavar="TYPE", help="Where results go [default: ipfs]."),
            click.option("--label", "labels", multiple=True, metavar="K=V", help="A label of the job."),
        ]
    ):
        command = option(command)
    return command
