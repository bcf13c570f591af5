"""Flags that many commands share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bacalhau_p2p.cli.error_report import FAILURE_STATUS, OWN_FAULT
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

Command = TypeVar("Command", bound=Callable[..., Any])

API_HOST = click.option(
    "--api-host",
    metavar="HOST",
    help=f"Host of the node's API [env: {ENV_HOST}; default: {DEFAULT_API_HOST}].",
)
API_PORT = click.option(
    "--api-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help=f"Port of the node's API [env: {ENV_PORT}; default: {DEFAULT_API_PORT}].",
)


def _without_colour(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        context.color = False


NO_COLOUR = click.option(
    "--no-color",
    is_flag=True,
    expose_value=False,
    callback=_without_colour,
    help="Print no colours; as NO_COLOR in the environment.",
)


def repeatable(*names: str, help: str, **attributes: Any) -> Callable[[Command], Command]:  # noqa: A002
    """A flag that may be given several times."""
    return click.option(*names, multiple=True, help=f"{help} Repeatable.", **attributes)


def node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `--api-host` and `--api-port`, and a connection as its first argument."""

    @functools.wraps(command)
    def connected(*args: Any, api_host: str | None, api_port: int | None, **kwargs: Any) -> Any:
        with connect(api_host, api_port) as connection:
            return command(connection, *args, **kwargs)

    return API_HOST(API_PORT(NO_COLOUR(connected)))


def connect(
    api_host: str | None, api_port: int | None, context: click.Context | None = None
) -> BlockingConnection:
    """The node that the flags of the command name or, in this order, the flags before the command, the
    environment, or the default. Sends nothing yet."""
    from bacalhau_p2p.client.blocking_connection import BlockingConnection

    outer = (context or click.get_current_context()).find_root().params
    host = api_host or outer.get("api_host") or host_of(os.environ)
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
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Folder to write results to [default: job-ID].",
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
    help="Ask before more than this is written, or fail if there is no terminal [default: 2Gi].",
)


class SubmitCommand(click.Command):
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
    click.option("--id-only", is_flag=True, help="Print only the job's id."),
    click.option(
        "--wait/--no-wait",
        default=None,
        help="Wait until the job has ended [default: wait, unless --id-only].",
    ),
    click.option("--download", is_flag=True, help="Wait, then fetch the results as `get` does."),
    click.option("--merge", is_flag=True, help="With --download: merge the results as `get --merge` does."),
    OUTPUT_DIR,
    click.option(
        "--wait-timeout-secs",
        "--download-timeout-secs",
        metavar="SECONDS",
        hidden=True,
        expose_value=False,
    ),
    click.option("--node-details", "--quiet", is_flag=True, hidden=True, expose_value=False),
    click.option(
        "-f", "--follow", is_flag=True, help="Print the output as it comes, also where there is no terminal."
    ),
    click.option("--dry-run", is_flag=True, help="Print the job as YAML without submitting it."),
]


def follow_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the flags for what to do after submitting a job, as the argument `follow`."""

    @functools.wraps(command)
    def gathered(*args: Any, **flags: Any) -> Any:
        options = FollowOptions(**{field.name: flags.pop(field.name) for field in fields(FollowOptions)})
        if options.merge and not options.download:
            raise click.UsageError("--merge needs --download")
        return command(*args, follow=options, **flags)

    return with_options(_FOLLOW_OPTIONS)(gathered)


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


_JOB_OPTIONS = [
    repeatable(
        "-i",
        "--input",
        "inputs",
        metavar="SRC[:DST]",
        shell_complete=_complete_input,
        help="Mount SRC at DST [default: /inputs]; SRC,dst=DST,opt=K=V is the same, with options such as "
        "opt=region=eu-west-1 of s3, and opt=partition=object, which divides a folder among the --count "
        "partitions. SRC is ipfs://CID, a "
        "CID, a URL, s3://BUCKET/KEY, local://PATH on the compute node, or a local path or "
        "file://PATH, which is added to the node first.",
    ),
    repeatable(
        "-o",
        "--output",
        "outputs",
        metavar="NAME:PATH",
        help="Include the folder PATH of the job in its results, as NAME. outputs:/outputs is always "
        "included.",
    ),
    repeatable(
        "-e",
        "--env",
        metavar="NAME=VALUE",
        help="Set an environment variable; NAME alone uses its value in this environment.",
    ),
    click.option("--name", help="Name of the job; list shows it, and other commands take it for an id."),
    click.option(
        "-c",
        "--count",
        "--concurrency",
        "count",
        type=click.IntRange(1, 1000),
        default=1,
        show_default=True,
        help="Number of nodes that run the job, or of partitions of a job that is divided.",
    ),
    click.option(
        "--type",
        type=click.Choice(["batch", "ops"], case_sensitive=False),
        help="ops: run once on every node that matches now [default: batch].",
    ),
    click.option(
        "--replicas",
        metavar="N",
        type=click.IntRange(1, 1000),
        help="Divide the job into --count partitions, each run by N nodes.",
    ),
    click.option(
        "--keep-failed-results",
        is_flag=True,
        help="Keep what failed executions leave in their outputs for a day, for get --failed.",
    ),
    click.option("--verifier", metavar="TYPE", help="How to verify results: noop or deterministic."),
    click.option("--confidence", type=click.IntRange(min=0), help="Number of equal results that is enough."),
    click.option(
        "--min-bids",
        type=click.IntRange(min=0),
        help="Number of bids to wait for before any is accepted.",
    ),
    click.option("--timeout", metavar="TIME", help="Time limit for one run: seconds, or text such as 30m."),
    click.option("--queue-timeout", metavar="TIME", help="Time limit to find nodes for it [default: 5m]."),
    click.option("--cpu", metavar="CORES", help="CPU cores, such as 0.5 or 500m [default: 0.1]."),
    click.option("--memory", metavar="BYTES", help="Memory, such as 256mb or 1Gi [default: 100mb]."),
    click.option("--disk", metavar="BYTES", help="Disk for what the job writes, such as 1gb."),
    click.option("--gpu", metavar="N", help="Number of GPUs [default: 0]."),
    click.option(
        "--network",
        type=click.Choice(["none", "http", "full"], case_sensitive=False),
        help="Network access of the job [default: none].",
    ),
    repeatable("--domain", "domains", help="Domain that --network http allows."),
    click.option(
        "-p",
        "--publisher",
        metavar="TYPE|URL",
        help="Where to publish results: ipfs, local, s3://BUCKET/KEY,opt=region=... [default: ipfs].",
    ),
    repeatable("-l", "--label", "--labels", "labels", metavar="K=V,...", help="Labels of the job."),
    repeatable(
        "-s",
        "--selector",
        "--constraints",
        "constraints",
        metavar="SELECTOR",
        help="Only on nodes whose labels match, such as zone=lab,!slow.",
    ),
    click.option("--priority", metavar="N", type=click.IntRange(min=0), help="Priority [default: 0]."),
    click.option("--namespace", help="Namespace of the job [default: default]."),
    click.option("--task-name", help="Name of the task [default: main]."),
    click.option("--total-timeout", metavar="TIME", help="Time limit for all of it [default: 1h]."),
    click.option(
        "--target",
        type=click.Choice(["any", "all"]),
        hidden=True,
        expose_value=False,
        callback=_any_target,
    ),
]


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the flags for a job, whatever its engine."""
    return with_options(_JOB_OPTIONS)(command)


def with_options(options: Sequence[Callable[..., Any]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives a command these flags, in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
