"""`serve`: runs a node until it is told to stop."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import trio

from bacalhau_p2p.api.server import serve_api
from bacalhau_p2p.cli import installation
from bacalhau_p2p.cli.completion import complete_node_id
from bacalhau_p2p.cli.options import repeatable, with_options
from bacalhau_p2p.cli.printing import print_line
from bacalhau_p2p.errors import BacalhauError
from bacalhau_p2p.node import Node, open_node
from bacalhau_p2p.runtime import logs
from bacalhau_p2p.runtime.descriptors import raise_limit
from bacalhau_p2p.runtime.removal import discard_tree
from bacalhau_p2p.runtime.watchdog import watching
from bacalhau_p2p.settings import Settings, load_settings

Ready = Callable[[Node, str], None]
"""Called with the node and the URL of its API when the node listens."""


_AMOUNTS = {
    "cpu": ("CORES", "Cores", "all"),
    "memory": ("BYTES", "Memory", "80 % of it"),
    "disk": ("BYTES", "Disk", "80 % of what is free"),
    "gpu": ("N", "GPUs", "all that are found"),
}
RESOURCE_LIMITS = with_options(
    [
        *(
            click.option(
                f"--limit-total-{name}",
                metavar=unit,
                help=f"{what} for all jobs together. [default: {default}]",
            )
            for name, (unit, what, default) in _AMOUNTS.items()
        ),
        *(
            click.option(
                f"--limit-job-{name}", metavar=unit, help=f"{what} of one job at most. [default: the total]"
            )
            for name, (unit, what, _) in _AMOUNTS.items()
        ),
    ]
)
ENGINE = repeatable("--engine", "engines", metavar="NAME", help="Offer only this engine.")
LOCAL_PATH = repeatable(
    "--allow-local-path",
    "allow_local_paths",
    metavar="PATH",
    help="Let jobs read this folder of the machine, or write it with PATH:rw.",
)
LOG_FORMAT = click.option(
    "--log-format",
    type=click.Choice(logs.FORMATS),
    default="pretty",
    show_default=True,
    help="Write log lines for people, or as JSON objects for programs.",
)
LOG_LEVEL = click.option(
    "--log-level",
    type=click.Choice(logs.LEVELS),
    default="warning",
    show_default=True,
    help="Lowest level of events to log to stderr.",
)


@click.command()
@click.option("--requester/--no-requester", default=None, help="Accept jobs from users. [default: yes]")
@click.option("--compute/--no-compute", default=None, help="Run jobs. [default: yes]")
@repeatable("--peer", "peers", metavar="MULTIADDR", help="Peer to stay connected to.")
@repeatable(
    "--allow-peer",
    "allowed_peers",
    metavar="PEER",
    shell_complete=complete_node_id,
    help="The only peers that may connect.",
)
@repeatable(
    "--deny-peer",
    "denied_peers",
    metavar="PEER",
    shell_complete=complete_node_id,
    help="Peer that may not connect.",
)
@click.option(
    "--mdns/--no-mdns",
    default=None,
    help="Find nodes on the local network. [default: yes, where the node listens on a private address]",
)
@click.option(
    "--dht",
    type=click.Choice(["off", "client", "server"], case_sensitive=False),
    help="Find and announce content through a DHT. [default: server]",
)
@click.option("--swarm-host", metavar="HOST", help="Address to listen on for peers. [default: 0.0.0.0]")
@click.option("--swarm-port", metavar="N", type=int, help="TCP port for peers, 0 for any. [default: 1235]")
@repeatable("--announce", metavar="MULTIADDR", help="Address for peers to dial.")
@click.option("--api-host", metavar="HOST", help="Address of the HTTP API. [default: 127.0.0.1]")
@click.option(
    "--api-port", metavar="N", type=int, help="TCP port of the HTTP API, 0 for any. [default: 1234]"
)
@click.option(
    "--data-dir", metavar="DIR", type=click.Path(path_type=Path), help="Folder for the state of the node."
)
@repeatable("--label", "labels", metavar="K=V", help="Label that jobs can select.")
@ENGINE
@LOCAL_PATH
@repeatable(
    "--image-registry",
    "image_registries",
    metavar="HOST[:PORT]",
    help="Registry whose images jobs may use. [default: docker.io, ghcr.io, quay.io]",
)
@click.option(
    "--job-user",
    metavar="USER",
    help="User of Docker jobs: image (that of the image unless it is root), nobody or UID[:GID]. "
    "[default: image]",
)
@click.option(
    "--gateway/--no-gateway",
    default=None,
    help="Let anybody read stored content under /ipfs/ without the token. [default: no]",
)
@click.option(
    "--accept-networked",
    "--job-selection-accept-networked",
    "accept_networked",
    is_flag=False,
    flag_value="full",
    metavar="[none|http|full]",
    type=click.Choice(["none", "http", "full"], case_sensitive=False),
    help="Run jobs that need a network: http only those that name the domains they reach; full, or without a "
    "value, any. [default: none]",
)
@click.option("--no-accept-networked", is_flag=True, help="Run no jobs that need a network.")
@repeatable(
    "--allow-domain",
    "network_domains",
    metavar="DOMAIN",
    help="Domain that jobs with the network http may name; .example.com has all below it. [default: all]",
)
@click.option(
    "--max-execution-time",
    metavar="SECONDS",
    type=float,
    help="Run only jobs whose execution timeout is not longer. [default: any]",
)
@repeatable(
    "--allow-requester",
    "allowed_requesters",
    metavar="PEER",
    shell_complete=complete_node_id,
    help="Run only jobs of this requester and of this node.",
)
@repeatable(
    "--deny-requester",
    "denied_requesters",
    metavar="PEER",
    shell_complete=complete_node_id,
    help="Run no jobs of this requester.",
)
@click.option(
    "--max-requester-share",
    metavar="SHARE",
    type=float,
    help="Part of this node that one requester may hold while others want some of it. [default: 0.5]",
)
@click.option(
    "--max-requester-jobs",
    metavar="N",
    type=int,
    help="Maximum number of jobs at a time for one requester. [default: any number]",
)
@click.option(
    "--requester-gone-timeout",
    metavar="SECONDS",
    type=float,
    help="Stop the executions of a requester that is silent for this time, 0 for never. [default: 3600]",
)
@RESOURCE_LIMITS
@click.option(
    "--job-selection-data-locality",
    "data_locality",
    type=click.Choice(["anywhere", "local"], case_sensitive=False),
    help="Run jobs with inputs from anywhere, or only jobs whose inputs are local. [default: anywhere]",
)
@click.option(
    "--job-selection-reject-stateless/--no-job-selection-reject-stateless",
    "reject_stateless",
    default=None,
    help="Reject jobs without inputs. [default: no]",
)
@click.option(
    "--job-selection-probe-exec",
    "probe_exec",
    metavar="COMMAND",
    help="Run only jobs for which this command exits with status 0; it gets the job on stdin.",
)
@click.option(
    "--job-selection-probe-http",
    "probe_http",
    metavar="URL",
    help="Run only jobs for which a POST to this URL returns status 200; its body is the job.",
)
@click.option(
    "--drain",
    metavar="SECONDS",
    type=float,
    help="Time for running jobs to finish on shutdown. [default: 30]",
)
@click.option(
    "--lost-after-surviving",
    metavar="SECONDS",
    type=float,
    help="Time to wait for a silent node whose containers survive it. [default: 75]",
)
@click.option(
    "--network",
    metavar="NAME",
    help="Name of the network; nodes of other networks are ignored. [default: main]",
)
@click.option("--config", metavar="FILE", type=click.Path(path_type=Path), help="YAML file with settings.")
@LOG_LEVEL
@LOG_FORMAT
def serve(
    config: Path | None, log_level: str, log_format: str, no_accept_networked: bool, **flags: Any
) -> None:
    """Run a node: a requester, a compute node, or both.

    Ctrl-C, SIGTERM or SIGHUP shuts it down gracefully: it stops bidding, gives running jobs time to finish,
    and hands back the rest to run elsewhere. A second signal stops it at once.
    """
    installation.check()
    given = _with_limits({name: value for name, value in flags.items() if value not in (None, ())})
    if no_accept_networked:
        given["accept_networked"] = "none"
    logs.configure(log_level, log_format)
    run_node(load_settings(file=config, flags=given), _print_addresses)


def _with_limits(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags, with those of resources as the settings have them."""
    given = {name: value for name, value in flags.items() if not name.startswith("limit_")}
    for setting, start in (("limits", "limit_total_"), ("job_limits", "limit_job_")):
        amounts = {name: flags[start + name] for name in _AMOUNTS if start + name in flags}
        given |= {setting: amounts} if amounts else {}
    return given


def run_node(
    settings: Settings, ready: Ready, *, lifeline: int | None = None, ephemeral: bool = False
) -> None:
    """Run a node until SIGINT or SIGTERM, or until the other end of the pipe `lifeline` is closed.

    An `ephemeral` node removes its data directory at the end. Raises BacalhauError.
    """
    raise_limit()
    # Everything loaded by now stays, and a node makes few cycles: collect them a tenth as often.
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    try:
        trio.run(_serve, settings, ready, lifeline)
    except BaseExceptionGroup as group:
        raise _root_cause(group) from group
    finally:
        if ephemeral:
            discard_tree(settings.data_dir)


async def _serve(settings: Settings, ready: Ready, lifeline: int | None) -> None:
    shutdown = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_signals, shutdown, nursery.cancel_scope)
        if lifeline is not None:
            nursery.start_soon(_cancel_on_eof, lifeline, nursery.cancel_scope)
        async with open_node(settings) as node, serve_api(node) as url:
            with watching(counters=node.messenger.counters, on_slow_pass=node.report_slow_pass):
                ready(node, url)
                await shutdown.wait()
                await node.drain(settings.drain)
        nursery.cancel_scope.cancel()


async def _watch_signals(shutdown: trio.Event, scope: trio.CancelScope) -> None:
    """The first signal starts a graceful shutdown, the second cancels the node. Both clean up."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for _ in signals:
            if shutdown.is_set():
                scope.cancel()
            shutdown.set()


async def _cancel_on_eof(lifeline: int, scope: trio.CancelScope) -> None:
    async with trio.lowlevel.FdStream(lifeline) as pipe:
        while await pipe.receive_some(1024):
            pass
    scope.cancel()


def _print_addresses(node: Node, url: str) -> None:
    print_line(f"Peer ID: {node.peer_id}")
    for address in node.addresses:
        print_line(f"Swarm:   {address}")
    print_line(f"API:     {url}")
    sys.stdout.flush()
    for problem in node.health():
        print_line(f"Warning: {problem}", err=True)


def _root_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of ours, which a user can act on; the whole group if it has any other error."""
    ours, rest = group.split(BacalhauError)
    if ours is None or rest is not None:
        return group
    error: BaseException = ours
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
