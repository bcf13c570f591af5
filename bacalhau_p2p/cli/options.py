"""Flags that many commands share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bacalhau_p2p.cli.error_report import FAILURE_STATUS, OWN_FAULT
from bacalhau_p2p.cli.help_pages import GLOBAL, Command, Decorator, section
from bacalhau_p2p.cli.usage import Number
from bacalhau_p2p.client.environment import (
    DEFAULT_API_HOST,
    DEFAULT_API_PORT,
    ENV_HOST,
    ENV_PORT,
    ENV_TOKEN,
    host_of,
    port_of,
)
from bacalhau_p2p.errors import SettingsError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from bacalhau_p2p.client.blocking_connection import BlockingConnection

ENV_DEVSTACK = "BACALHAU_P2P_DEVSTACK"

_ENV_API = "BACALHAU_P2P_API_"

Function = TypeVar("Function", bound=Callable[..., Any])

_API_HOST = click.option(
    "--api-host", metavar="HOST", show_default=DEFAULT_API_HOST, help="Host of the node's API."
)
_API_PORT = click.option(
    "--api-port",
    type=Number(1, 65535),
    metavar="PORT",
    show_default=str(DEFAULT_API_PORT),
    help="Port of the node's API.",
)


def _without_colour(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        context.color = False


_NO_COLOUR = click.option(
    "--no-color", is_flag=True, expose_value=False, callback=_without_colour, help="Print no colours."
)
GLOBAL_OPTIONS = section(GLOBAL, [_API_HOST, _API_PORT, _NO_COLOUR])


def repeatable(*names: str, help: str, **attributes: Any) -> Callable[[Function], Function]:  # noqa: A002
    """A flag that may be given several times."""
    return click.option(*names, multiple=True, help=f"{help} Repeatable.", **attributes)


def node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `--api-host` and `--api-port`, and a connection as its first argument."""

    @functools.wraps(command)
    def connected(*args: Any, api_host: str | None, api_port: int | None, **kwargs: Any) -> Any:
        with connect(api_host, api_port) as connection:
            return command(connection, *args, **kwargs)

    return GLOBAL_OPTIONS(connected)


def connect(
    api_host: str | None, api_port: int | None, context: click.Context | None = None
) -> BlockingConnection:
    """The node that the flags of the command name or, in this order, the flags before the command, the
    environment, or the default. Sends nothing yet."""
    from bacalhau_p2p.client.blocking_connection import BlockingConnection

    outer = (context or click.get_current_context()).find_root().params
    host = api_host or outer.get("api_host") or host_of(os.environ)
    if "/" in host or host.count(":") == 1:
        raise click.UsageError(f"{host!r} is not a host: use --api-host HOST --api-port PORT")
    try:
        port = api_port or outer.get("api_port") or port_of(os.environ)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    return BlockingConnection(host, port, token=os.environ.get(ENV_TOKEN, ""))


def check_environment() -> None:
    """Raises click.UsageError for a variable that looks like one of ours. `serve` checks those of nodes."""
    known = (ENV_HOST, ENV_PORT, ENV_TOKEN)
    for name in os.environ:
        if name.startswith(_ENV_API) and name not in known:
            import difflib

            close = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise click.UsageError(f"unknown variable {name} (did you mean {close[0]}?)")


OUTPUT_DIR = click.option(
    "--output-dir",
    type=click.Path(),
    metavar="DIR",
    show_default="job-ID",
    help="Folder to write results to.",
)


DEFAULT_MAX_SIZE = 2 * 1024**3
"""Bytes that a command writes without asking: results are data of strangers."""


def _size_in_bytes(context: click.Context, parameter: click.Parameter, text: str | None) -> int:
    from bacalhau_p2p.model.quantities import parse_bytes

    try:
        return DEFAULT_MAX_SIZE if text is None else parse_bytes(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


MAX_SIZE = click.option(
    "--max-size",
    metavar="SIZE",
    callback=_size_in_bytes,
    show_default="2Gi",
    help="Ask before more is written; fail if there is no terminal.",
)


class SubmitCommand(Command):
    """A command that submits a job. Its exit status is that of the program, or OWN_FAULT if we fail."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Accept `--wait=false` too."""
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [_WAIT.get(arg, arg) for arg in args[:end]] + args[end:])

    def invoke(self, ctx: click.Context) -> Any:
        ctx.meta[FAILURE_STATUS] = OWN_FAULT
        return super().invoke(ctx)


_WAIT = {"--wait=true": "--wait", "--wait=false": "--no-wait"}


@dataclass(frozen=True, slots=True)
class FollowOptions:
    """The flags of `follow_options`."""

    id_only: bool
    wait: bool | None
    download: bool
    merge: bool
    output_dir: str | None
    dry_run: bool
    follow: bool
    """Show the output as it comes also where there is no terminal."""

    @property
    def waits(self) -> bool:
        return self.download or self.follow or (not self.id_only if self.wait is None else self.wait)


_FOLLOW_OPTIONS = [
    click.option("--id-only", is_flag=True, help="Print only the id of the job, and do not wait."),
    click.option(
        "--wait/--no-wait",
        default=None,
        show_default="yes",
        help="Wait until the job has ended.",
    ),
    click.option(
        "-f", "--follow", is_flag=True, help="Print the output while the job runs; a terminal always does."
    ),
    click.option("--download", is_flag=True, help="Download the results when the job has ended."),
    OUTPUT_DIR,
    click.option("--merge", is_flag=True, help="Download the results of all partitions into one folder."),
    click.option("--dry-run", is_flag=True, help="Print the job as YAML, and do not run it."),
    click.option(
        "--wait-timeout-secs",
        "--download-timeout-secs",
        metavar="SECONDS",
        hidden=True,
        expose_value=False,
    ),
    click.option("--node-details", "--quiet", is_flag=True, hidden=True, expose_value=False),
]


def follow_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the flags for what to do after submitting a job, as the argument `follow`."""

    @functools.wraps(command)
    def gathered(*args: Any, **flags: Any) -> Any:
        options = FollowOptions(**{field.name: flags.pop(field.name) for field in fields(FollowOptions)})
        if options.merge and not options.download:
            raise click.UsageError("--merge needs --download")
        return command(*args, follow=options, **flags)

    return section("While it runs, and afterwards", _FOLLOW_OPTIONS)(gathered)


def _any_target(context: click.Context, parameter: click.Parameter, target: str | None) -> None:
    if target == "all":
        raise click.BadParameter("for a job on all nodes use --type ops")


def _complete_input(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Local paths, and after a comma the options of a source."""
    from click.shell_completion import CompletionItem

    from bacalhau_p2p.cli.flag_syntax import completions

    if "," not in incomplete:
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(each) for each in completions(incomplete)]


_DATA = [
    repeatable(
        "-i",
        "--input",
        "inputs",
        metavar="SRC[:DST]",
        shell_complete=_complete_input,
        show_default="/inputs",
        help="Mount a path, CID, URL or s3://BUCKET/KEY at DST.",
    ),
    repeatable(
        "-o",
        "--output",
        "outputs",
        metavar="NAME:PATH",
        help="Folder to keep in the results as NAME, besides /outputs.",
    ),
    click.option(
        "-p",
        "--publisher",
        metavar="TYPE",
        show_default="ipfs",
        help="Where results go: ipfs, local or s3://BUCKET/KEY.",
    ),
    click.option(
        "--keep-failed-results",
        is_flag=True,
        help="Keep the outputs of failed executions for a day, for get --failed.",
    ),
]
_ENVIRONMENT = [
    repeatable(
        "-e",
        "--env",
        metavar="NAME=VALUE",
        help="Environment variable; NAME alone takes its value from here.",
    ),
    click.option(
        "--network",
        type=click.Choice(["none", "http", "full"], case_sensitive=False),
        show_default="none",
        help="Network access.",
    ),
    repeatable("--domain", "domains", metavar="DOMAIN", help="Domain that --network http allows."),
]
_RESOURCES = [
    click.option("--cpu", metavar="CORES", show_default="0.1", help="CPU cores, such as 0.5 or 500m."),
    click.option("--memory", metavar="BYTES", show_default="100mb", help="Memory, such as 256mb or 1Gi."),
    click.option(
        "--disk", metavar="BYTES", show_default="10Gi", help="Disk that the job may fill, such as 1gb."
    ),
    click.option("--gpu", metavar="N", show_default="0", help="GPUs."),
    click.option(
        "--timeout", metavar="TIME", show_default="30m", help="Limit of one execution, such as 90 or 5m."
    ),
    click.option("--queue-timeout", metavar="TIME", show_default="5m", help="Limit for finding nodes."),
    click.option("--total-timeout", metavar="TIME", show_default="1h", help="Limit of the whole job."),
]
_NODES = [
    click.option(
        "-c",
        "--count",
        "--concurrency",
        "count",
        type=Number(1, 1000),
        metavar="N",
        default=1,
        show_default=True,
        help="Number of nodes, or of partitions if the job is divided.",
    ),
    click.option(
        "--replicas",
        metavar="N",
        type=Number(1, 1000),
        help="Divide the job into --count partitions, each run by N nodes.",
    ),
    click.option(
        "--type",
        type=click.Choice(["batch", "ops"], case_sensitive=False),
        show_default="batch",
        help="ops: run once on every matching node.",
    ),
    repeatable(
        "-s",
        "--selector",
        "--constraints",
        "constraints",
        metavar="SELECTOR",
        help="Only nodes whose labels match, such as zone=lab,!slow.",
    ),
    click.option(
        "--verifier",
        metavar="TYPE",
        show_default="noop",
        help="deterministic: compare the results of all nodes.",
    ),
    click.option(
        "--confidence",
        metavar="N",
        type=Number(min=0),
        show_default="more than half",
        help="Number of equal results that is enough.",
    ),
    click.option(
        "--min-bids",
        metavar="N",
        type=Number(min=0),
        show_default="1",
        help="Number of bids to wait for before one is accepted.",
    ),
    click.option(
        "--priority",
        metavar="N",
        type=Number(min=0),
        show_default="0",
        help="Jobs of a higher priority run first.",
    ),
    click.option(
        "--target",
        type=click.Choice(["any", "all"]),
        hidden=True,
        expose_value=False,
        callback=_any_target,
    ),
]
_NAMES = [
    click.option("--name", metavar="NAME", help="Name of the job; commands take it for its id."),
    repeatable("-l", "--label", "--labels", "labels", metavar="K=V,...", help="Labels of the job."),
    click.option("--namespace", metavar="NAME", show_default="default", help="Namespace of the job."),
    click.option("--task-name", metavar="NAME", show_default="main", help="Name of the task."),
]


def job_options(engine: Sequence[Decorator]) -> Decorator:
    """Gives a command the options of a job: those of its engine, and those that all engines have."""

    sections: list[tuple[str, Sequence[Decorator]]] = [
        ("Program", [*engine, *_ENVIRONMENT]),
        ("Inputs and results", _DATA),
        ("Resources", _RESOURCES),
        ("Nodes", _NODES),
        ("Name and labels", _NAMES),
    ]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for title, options in reversed(sections):
            command = section(title, options)(command)
        return command

    return decorate


def with_options(options: Sequence[Callable[..., Any]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives a command these flags, in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
