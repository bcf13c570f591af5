"""`serve`: its flags. What runs a node takes seconds to import, so the settings are checked before that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bacalhau_p2p.cli import installation
from bacalhau_p2p.cli.completion import complete_node_id
from bacalhau_p2p.cli.help_pages import Command, section
from bacalhau_p2p.cli.options import repeatable
from bacalhau_p2p.cli.usage import PORT, Number
from bacalhau_p2p.runtime import logs

installation.require_node()

_AMOUNTS = {
    "cpu": ("CORES", "Cores", "all"),
    "memory": ("BYTES", "Memory", "80 % of it"),
    "disk": ("BYTES", "Disk", "80 % of what is free"),
    "gpu": ("N", "GPUs", "all that are found"),
}
ENGINE = repeatable("--engine", "engines", metavar="NAME", show_default="all", help="Offer only this engine.")
LOCAL_PATH = repeatable(
    "--allow-local-path",
    "allow_local_paths",
    metavar="PATH",
    help="Folder that jobs may read, or write with PATH:rw.",
)
LOGS = section(
    "Log",
    [
        click.option(
            "--log-level",
            type=click.Choice(logs.LEVELS),
            metavar="LEVEL",
            default="warning",
            show_default=True,
            help="debug, info, warning or error.",
        ),
        click.option(
            "--log-format",
            type=click.Choice(logs.FORMATS),
            default="pretty",
            show_default=True,
            help="Format of log lines on stderr.",
        ),
    ],
)
_NODE = [
    click.option(
        "--requester/--no-requester", default=None, show_default="yes", help="Take jobs from users."
    ),
    click.option("--compute/--no-compute", default=None, show_default="yes", help="Run jobs."),
    click.option(
        "--data-dir",
        metavar="DIR",
        type=click.Path(path_type=Path),
        show_default="~/.local/share/bacalhau-p2p",
        help="Folder for all that the node keeps.",
    ),
    click.option(
        "--config", metavar="FILE", type=click.Path(path_type=Path), help="YAML file with settings."
    ),
    click.option("--api-host", metavar="HOST", show_default="127.0.0.1", help="Address of the HTTP API."),
    click.option(
        "--api-port",
        metavar="PORT",
        type=PORT,
        show_default="1234",
        help="Port of the API, 0 for any.",
    ),
    click.option(
        "--gateway/--no-gateway",
        default=None,
        show_default="no",
        help="Let anybody read stored content under /ipfs/.",
    ),
    click.option(
        "--drain",
        metavar="SECONDS",
        type=float,
        show_default="30",
        help="Time for running jobs to finish on shutdown.",
    ),
]
_PEERS = [
    repeatable("--peer", "peers", metavar="MULTIADDR", help="Peer to stay connected to."),
    click.option(
        "--network",
        metavar="NAME",
        show_default="main",
        help="Network; nodes of other networks are ignored.",
    ),
    click.option("--swarm-host", metavar="HOST", show_default="all", help="Address to listen on for peers."),
    click.option(
        "--swarm-port",
        metavar="PORT",
        type=PORT,
        show_default="1235",
        help="Port for peers, 0 for any.",
    ),
    repeatable("--announce", metavar="MULTIADDR", help="Address that peers are told to dial."),
    click.option(
        "--mdns/--no-mdns",
        default=None,
        show_default="yes, on private addresses",
        help="Find nodes on the local network.",
    ),
    click.option(
        "--dht",
        type=click.Choice(["off", "client", "server"], case_sensitive=False),
        show_default="server",
        help="Find and announce content.",
    ),
    repeatable(
        "--allow-peer",
        "allowed_peers",
        metavar="PEER",
        shell_complete=complete_node_id,
        show_default="all",
        help="Let only this peer connect.",
    ),
    repeatable(
        "--deny-peer",
        "denied_peers",
        metavar="PEER",
        shell_complete=complete_node_id,
        help="Do not let this peer connect.",
    ),
    click.option(
        "--lost-after-surviving",
        metavar="SECONDS",
        type=float,
        show_default="75",
        help="Time to wait for a silent node whose containers survive it.",
    ),
]
_LIMITS = [
    *(
        click.option(
            f"--limit-total-{name}",
            metavar=unit,
            show_default=default,
            help=f"{what} for all jobs together.",
        )
        for name, (unit, what, default) in _AMOUNTS.items()
    ),
    *(
        click.option(
            f"--limit-job-{name}", metavar=unit, show_default="the total", help=f"{what} for one job."
        )
        for name, (unit, what, _) in _AMOUNTS.items()
    ),
    click.option(
        "--max-execution-time",
        metavar="SECONDS",
        type=float,
        show_default="any",
        help="Longest timeout of an execution.",
    ),
]
_JOBS = [
    ENGINE,
    repeatable("--label", "labels", metavar="K=V", help="Label that jobs can select."),
    LOCAL_PATH,
    repeatable(
        "--image-registry",
        "image_registries",
        metavar="HOST[:PORT]",
        show_default="docker.io, ghcr.io, quay.io",
        help="Registry for images.",
    ),
    click.option(
        "--job-user",
        metavar="USER",
        show_default="image",
        help="User of Docker jobs: image, nobody or UID[:GID].",
    ),
    click.option(
        "--accept-networked",
        "--job-selection-accept-networked",
        "accept_networked",
        is_flag=False,
        flag_value="full",
        metavar="[NET]",
        type=click.Choice(["none", "http", "full"], case_sensitive=False),
        show_default="none",
        help="Run jobs that use networks: none, http or full.",
    ),
    click.option("--no-accept-networked", is_flag=True, help="Run no jobs that use networks."),
    repeatable(
        "--allow-domain",
        "network_domains",
        metavar="DOMAIN",
        show_default="all",
        help="Domain that http jobs may reach, such as .example.com.",
    ),
    click.option(
        "--job-selection-data-locality",
        "data_locality",
        type=click.Choice(["anywhere", "local"], case_sensitive=False),
        metavar="WHERE",
        show_default="anywhere",
        help="Run jobs whose inputs are anywhere, or only local.",
    ),
    click.option(
        "--job-selection-reject-stateless/--no-job-selection-reject-stateless",
        "reject_stateless",
        default=None,
        show_default="no",
        help="Reject jobs without inputs.",
    ),
    click.option(
        "--job-selection-probe-exec",
        "probe_exec",
        metavar="COMMAND",
        help="Run only jobs for which COMMAND exits with 0; it gets the job on stdin.",
    ),
    click.option(
        "--job-selection-probe-http",
        "probe_http",
        metavar="URL",
        help="Run only jobs for which POST to URL answers 200; the body is the job.",
    ),
]
_REQUESTERS = [
    repeatable(
        "--allow-requester",
        "allowed_requesters",
        metavar="PEER",
        shell_complete=complete_node_id,
        show_default="all",
        help="Run only jobs of this requester, besides its own.",
    ),
    repeatable(
        "--deny-requester",
        "denied_requesters",
        metavar="PEER",
        shell_complete=complete_node_id,
        help="Run no jobs of this requester.",
    ),
    click.option(
        "--max-requester-share",
        metavar="SHARE",
        type=float,
        show_default="0.5",
        help="Share of this node that one may hold while others wait.",
    ),
    click.option(
        "--max-requester-jobs",
        metavar="N",
        type=Number(0),
        show_default="any number",
        help="Jobs of one requester at a time.",
    ),
    click.option(
        "--requester-gone-timeout",
        metavar="SECONDS",
        type=float,
        show_default="3600",
        help="Stop the jobs of one that is silent so long; 0 for never.",
    ),
]


@click.command(
    cls=Command,
    examples=["serve", "serve --peer /ip4/192.0.2.7/tcp/1235/p2p/12D3KooW..."],
)
@section("Node", _NODE)
@section("Peers", _PEERS)
@section("Which jobs it runs", _JOBS)
@section("How much it gives them", _LIMITS)
@section("Whose jobs it runs", _REQUESTERS)
@LOGS
def serve(
    config: Path | None, log_level: str, log_format: str, no_accept_networked: bool, **flags: Any
) -> None:
    """Run a node.

    It is a requester, which takes jobs from users, a compute node, which runs them, or both. Ctrl-C or
    SIGTERM stops it when its jobs have finished, at most after --drain; other nodes run what is left. A
    second signal stops it at once. stderr says how many executions it waits for.
    """
    installation.check()
    given = _with_limits({name: value for name, value in flags.items() if value not in (None, ())})
    if no_accept_networked:
        given["accept_networked"] = "none"
    logs.configure(log_level, log_format)
    _run(config, given)


def _run(config: Path | None, given: Mapping[str, Any]) -> None:
    try:
        from bacalhau_p2p.settings import load_settings

        settings = load_settings(file=config, flags=given)
        from bacalhau_p2p.cli.node_run import print_addresses, run_node
    except ModuleNotFoundError as error:
        raise installation.not_installed("serve", error) from error
    run_node(settings, print_addresses)


def _with_limits(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags, with those of resources as the settings have them."""
    given = {name: value for name, value in flags.items() if not name.startswith("limit_")}
    for setting, start in (("limits", "limit_total_"), ("job_limits", "limit_job_")):
        amounts = {name: flags[start + name] for name in _AMOUNTS if start + name in flags}
        given |= {setting: amounts} if amounts else {}
    return given
