"""`completion`: scripts with which a shell completes commands, flags, and the ids of jobs."""

from __future__ import annotations

import click

from bacalhau_p2p.cli.options import connect
from bacalhau_p2p.cli.printing import print_text
from bacalhau_p2p.errors import BacalhauError

PROGRAM = "bacalhau-p2p"
_VARIABLE = "_BACALHAU_P2P_COMPLETE"
_OFFERED = 50
"""Jobs whose ids are offered, the latest."""


def _complete_job_id(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The ids of the latest jobs that begin so; none if no node answers."""
    from bacalhau_p2p.cli.job_view import id_of
    from bacalhau_p2p.client import calls

    try:
        with connect(context.params.get("api_host"), context.params.get("api_port"), context) as connection:
            found = connection.call(calls.list_jobs(limit=_OFFERED, id_prefix=incomplete))
    except (BacalhauError, click.ClickException):
        return []
    return [id_of(job) for job in found]


JOB_ID = click.argument("job_id", metavar="ID", shell_complete=_complete_job_id)
"""A job: its id, a prefix of it as `list` shows it, or its name."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script for completion in a shell: of commands, flags and ids of jobs.

    For bash: eval "$(bacalhau-p2p completion bash)" in ~/.bashrc; likewise for zsh in ~/.zshrc. For fish:
    bacalhau-p2p completion fish > ~/.config/fish/completions/bacalhau-p2p.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    root = click.get_current_context().find_root().command
    source = found(root, {}, PROGRAM, _VARIABLE)
    print_text(source.source_template % source.source_vars())
