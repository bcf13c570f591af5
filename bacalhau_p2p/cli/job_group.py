"""`job`: everything about jobs, with the names of Bacalhau's commands."""

from __future__ import annotations

import click

from bacalhau_p2p.cli.lazy_group import LazyGroup

_COMMANDS = "bacalhau_p2p.cli."

LIST = (_COMMANDS + "jobs:list_jobs", "List the latest jobs, newest first.")
DESCRIBE = (_COMMANDS + "jobs:describe", "Show a job, its state, its executions and its history.")
HISTORY = (_COMMANDS + "history:history", "Show what happened to a job, in order.")
LOGS = (
    _COMMANDS + "logs:logs",
    "Show what a job has written to stdout and stderr, while it runs and afterwards.",
)
EXECUTIONS = (_COMMANDS + "executions:executions", "List the attempts at a job.")
GET = (_COMMANDS + "jobs:get", "Fetch the results of a job, or the content of any CID.")
STOP = (_COMMANDS + "jobs:stop", "Stop a job.")
RERUN = (_COMMANDS + "executions:rerun", "Submit a job once more.")
RUN = (_COMMANDS + "job_run:run", "Submit a job from a JSON or YAML file.")
VALIDATE = (_COMMANDS + "job_run:validate", "Check a job file and list every fault in it.")


@click.group(
    cls=LazyGroup,
    lazy={
        "run": RUN,
        "list": LIST,
        "describe": DESCRIBE,
        "history": HISTORY,
        "logs": LOGS,
        "executions": EXECUTIONS,
        "get": GET,
        "stop": STOP,
        "rerun": RERUN,
        "validate": VALIDATE,
    },
)
def job() -> None:
    """Submit jobs from files, and manage all jobs.

    Each command is there without `job` too; `create` is `job run`.
    """
