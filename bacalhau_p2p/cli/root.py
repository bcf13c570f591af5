"""The group of all commands."""

from __future__ import annotations

import sys
from typing import Any

import click

from bacalhau_p2p.cli import job_group
from bacalhau_p2p.cli.error_report import FAILED, FAILURE_STATUS, report_error
from bacalhau_p2p.cli.lazy_group import LazyGroup
from bacalhau_p2p.cli.options import API_HOST, API_PORT, NO_COLOUR, check_environment
from bacalhau_p2p.cli.terminal import wants_no_colour
from bacalhau_p2p.version import __version__

_COMMANDS = "bacalhau_p2p.cli."


class _Root(LazyGroup):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except (Exception, BaseExceptionGroup, KeyboardInterrupt) as error:
            if isinstance(error, BrokenPipeError):
                raise  # click exits quietly when stdout is closed
            status = report_error(error)
            if status is None:
                raise
            status = ctx.meta.get(FAILURE_STATUS, FAILED) if status == FAILED else status
        sys.exit(status)


@click.group(
    cls=_Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    lazy={
        "docker": (_COMMANDS + "docker_run:docker", "Run a job in a Docker container."),
        "wasm": (_COMMANDS + "wasm_run:wasm", "Run a WebAssembly module as a job."),
        "job": (_COMMANDS + "job_group:job", "Submit jobs from files, and manage all jobs."),
        "node": (_COMMANDS + "nodes:node", "Look at the nodes of the network."),
        "agent": (_COMMANDS + "agent:agent", "Look at the node that commands talk to."),
        "config": (_COMMANDS + "config:config", "Look at the settings of a node."),
        "create": job_group.RUN,
        "validate": job_group.VALIDATE,
        "list": job_group.LIST,
        "describe": job_group.DESCRIBE,
        "history": job_group.HISTORY,
        "logs": job_group.LOGS,
        "executions": job_group.EXECUTIONS,
        "events": (
            _COMMANDS + "events:events",
            "Show what happens to all jobs from now on, or from --since on.",
        ),
        "get": job_group.GET,
        "stop": job_group.STOP,
        "cancel": job_group.STOP,
        "rerun": job_group.RERUN,
        "add": (_COMMANDS + "content:add", "Add a file or folder to the node and print its CID."),
        "cid": (_COMMANDS + "content:cid", "Print the CID of a file or folder without sending it."),
        "content": (_COMMANDS + "content:content", "Manage the content that the node stores."),
        "id": (_COMMANDS + "agent:node_id", "Print the peer id of the node."),
        "version": (_COMMANDS + "agent:version", "Print the version."),
        "completion": (
            _COMMANDS + "completion:completion",
            "Print a script for completion in a shell.",
        ),
        "serve": (_COMMANDS + "serve:serve", "Run a node."),
        "devstack": (
            _COMMANDS + "devstack:devstack",
            "Run a network on this machine until Ctrl-C, or until COMMAND ends.",
        ),
    },
)
@click.version_option(__version__, message="%(prog)s v%(version)s")
@NO_COLOUR
@API_HOST
@API_PORT
@click.pass_context
def cli(context: click.Context, api_host: str | None, api_port: int | None) -> None:
    """Run jobs on the peers that hold the data.

    Commands talk to the node at --api-host and --api-port. Both may also follow the command, and so may
    --no-color.
    """
    check_environment()
    if wants_no_colour():
        context.color = False
