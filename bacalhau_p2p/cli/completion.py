"""`completion`: scripts with which a shell completes commands, flags, ids and CIDs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import click

from bacalhau_p2p.cli.help_pages import Command
from bacalhau_p2p.cli.options import connect
from bacalhau_p2p.cli.printing import print_text
from bacalhau_p2p.errors import BacalhauError

if TYPE_CHECKING:
    from bacalhau_p2p.cli.job_view import JSON
    from bacalhau_p2p.client.calls import Call

_T = TypeVar("_T")

PROGRAM = "bacalhau-p2p"
_VARIABLE = "_BACALHAU_P2P_COMPLETE"
_OFFERED = 50
"""Ids that are offered at most; of jobs the latest."""


def _offered(
    context: click.Context, call: Call[_T], ids: Callable[[_T], Iterable[str]], incomplete: str
) -> list[str]:
    """The ids in the answer of the node that begin so; none if no node answers."""
    try:
        with connect(context.params.get("api_host"), context.params.get("api_port"), context) as connection:
            found = ids(connection.call(call))
    except (BacalhauError, click.ClickException):
        return []
    return [each for each in dict.fromkeys(found) if each.startswith(incomplete)][:_OFFERED]


def complete_job_id(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The ids of the latest jobs that begin so."""
    from bacalhau_p2p.cli.job_view import id_of
    from bacalhau_p2p.client.calls import list_jobs

    return _offered(
        context, list_jobs(limit=_OFFERED, id_prefix=incomplete), lambda jobs: map(id_of, jobs), incomplete
    )


def complete_execution_id(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The ids of the executions of the job that was named before."""
    from bacalhau_p2p.cli.job_view import id_of
    from bacalhau_p2p.client.calls import list_executions

    job_id = context.params.get("job_id") or next(
        iter(context.args), ""
    )  # behind an option without its value
    if not job_id:
        return []
    return _offered(context, list_executions(job_id), lambda found: map(id_of, found), incomplete)


def complete_node_id(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The ids of the nodes that the node knows."""
    from bacalhau_p2p.client.calls import list_nodes

    def ids(nodes: list[JSON]) -> list[str]:
        return [str((node.get("Info") or {}).get("NodeID", "")) for node in nodes]

    return _offered(context, list_nodes(), ids, incomplete)


def complete_pin(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The CIDs that the node has pinned; with `--owner`, those of this owner."""
    from bacalhau_p2p.client.calls import list_content

    owner = context.params.get("owner")

    def cids(content: JSON) -> list[str]:
        pins = content["Items"]
        return [str(pin.get("CID", "")) for pin in pins if owner in (None, pin.get("Owner"))]

    return _offered(context, list_content(), cids, incomplete)


def complete_job_or_pin(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    jobs = complete_job_id(context, parameter, incomplete)
    return jobs + complete_pin(context, parameter, incomplete)


def _not_empty(context: click.Context, parameter: click.Parameter, job_id: str) -> str:
    if not job_id.strip():
        raise click.MissingParameter(ctx=context, param=parameter)
    return job_id


JOB_ID = click.argument("job_id", metavar="JOB", shell_complete=complete_job_id, callback=_not_empty)
"""A job: its id, a prefix of it as `list` shows it, or its name."""


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script for completion in a shell.

    It completes commands, options, ids and CIDs. For bash, put eval "$(bacalhau-p2p completion bash)" into
    ~/.bashrc; for zsh, the same with zsh into ~/.zshrc; for fish, write the script to
    ~/.config/fish/completions/bacalhau-p2p.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    root = click.get_current_context().find_root().command
    source = found(root, {}, PROGRAM, _VARIABLE)
    print_text(source.source_template % source.source_vars())
