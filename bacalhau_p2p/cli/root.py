"""The group of all commands."""

from __future__ import annotations

import sys
from typing import Any

import click

from bacalhau_p2p.cli.error_report import report_error
from bacalhau_p2p.cli.lazy_group import LazyGroup
from bacalhau_p2p.cli.options import API_HOST, API_PORT

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
        sys.exit(status)


@click.group(
    cls=_Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    lazy={
        "docker": (_COMMANDS + "docker_run:docker", "Run a job in a Docker container."),
        "wasm": (_COMMANDS + "wasm_run:wasm", "Run a WebAssembly module as a job."),
        "job": (_COMMANDS + "job_run:job", "Run a job from a file."),
        "create": (_COMMANDS + "job_run:run", "Submit a job from a JSON or YAML file."),
        "validate": (_COMMANDS + "job_run:validate", "Check a job file and list every fault in it."),
        "list": (_COMMANDS + "jobs:list_jobs", "List the latest jobs, newest first."),
        "describe": (_COMMANDS + "jobs:describe", "Show a job, its state, its executions and its history."),
        "history": (
            _COMMANDS + "history:history",
            "Show what happened to a job, in order.",
        ),
        "get": (_COMMANDS + "jobs:get", "Fetch the results of a job, or the content of any CID."),
        "cancel": (_COMMANDS + "jobs:cancel", "Stop a job."),
        "add": (_COMMANDS + "content:add", "Add a file or folder to the node and print its CID."),
        "cid": (_COMMANDS + "content:cid", "Print the CID of a file or folder without sending it."),
        "content": (_COMMANDS + "content:content", "Manage the content that the node stores."),
        "id": (_COMMANDS + "agent:node_id", "Print the peer id of the node."),
        "version": (_COMMANDS + "agent:version", "Print the version."),
        "serve": (_COMMANDS + "serve:serve", "Run a node."),
        "devstack": (
            _COMMANDS + "devstack:devstack",
            "Run a network on this machine until Ctrl-C, or until COMMAND ends.",
        ),
    },
)
@API_HOST
@API_PORT
def cli(api_host: str | None, api_port: int | None) -> None:
    """Run jobs on the peers that hold the data.

    Commands talk to the node at --api-host and --api-port. Both may also follow the command.
    """
