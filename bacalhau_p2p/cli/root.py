"""The group of all commands."""

from __future__ import annotations

import sys
from typing import Any

import click

from bacalhau_p2p.cli import job_group
from bacalhau_p2p.cli.error_report import FAILED, FAILURE_STATUS, report_error
from bacalhau_p2p.cli.lazy_group import ALIASES, LazyGroup
from bacalhau_p2p.cli.options import GLOBAL_OPTIONS, check_environment
from bacalhau_p2p.cli.terminal import wants_no_colour
from bacalhau_p2p.cli.usage import in_our_words
from bacalhau_p2p.version import __version__

_COMMANDS = "bacalhau_p2p.cli."


class _Root(LazyGroup):
    def make_context(self, *args: Any, **attributes: Any) -> click.Context:
        with in_our_words():
            return super().make_context(*args, **attributes)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with in_our_words():
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


_JOBS = {
    "docker": (_COMMANDS + "docker_run:docker", "Run a job in a Docker container."),
    "wasm": (_COMMANDS + "wasm_run:wasm", "Run a WebAssembly module as a job."),
    "job": (_COMMANDS + "job_group:job", "Run and manage jobs."),
    "create": job_group.RUN,
    "validate": job_group.VALIDATE,
    "rerun": job_group.RERUN,
    "stop": job_group.STOP,
}
_RESULTS = {
    **job_group.WATCH,
    "events": (_COMMANDS + "events:events", "Show what happens to all jobs."),
}
_CONTENT = {
    "add": (_COMMANDS + "content:add", "Add a file or folder to the node and print its CID."),
    "cid": (_COMMANDS + "content:cid", "Print the CID of a file or folder."),
    "content": (_COMMANDS + "content:content", "Manage what the node stores."),
}
_NODES = {
    "serve": (_COMMANDS + "serve:serve", "Run a node."),
    "devstack": (_COMMANDS + "devstack:devstack", "Run a network of nodes on this machine."),
    "node": (_COMMANDS + "nodes:node", "Show the nodes of the network."),
    "agent": (_COMMANDS + "agent:agent", "Show the node that commands talk to."),
    "id": (_COMMANDS + "agent:node_id", "Print the peer id of the node."),
    "config": (_COMMANDS + "config:config", "Show the settings of a node."),
}
_PROGRAM = {
    "version": (_COMMANDS + "agent:version", "Print the version."),
    "completion": (_COMMANDS + "completion:completion", "Print a script for completion in a shell."),
}


@click.group(
    cls=_Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    lazy={
        "Run jobs": _JOBS,
        "Watch jobs and get results": _RESULTS,
        "Content": _CONTENT,
        "Nodes": _NODES,
        "This program": _PROGRAM,
        ALIASES: {"cancel": job_group.STOP},
    },
)
@click.version_option(__version__, message="%(prog)s v%(version)s")
@GLOBAL_OPTIONS
@click.pass_context
def cli(context: click.Context, api_host: str | None, api_port: int | None) -> None:
    """Run jobs on the peers that hold the data.

    Commands talk to a node, by default the one on this machine. To name another, use --api-host and
    --api-port
    before or after the command, or set BACALHAU_P2P_API_HOST and BACALHAU_P2P_API_PORT.

    To try it out: bacalhau-p2p devstack
    """
    check_environment()
    if wants_no_colour():
        context.color = False
