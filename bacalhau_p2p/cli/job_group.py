"""`job`: everything about jobs, with the names of Bacalhau's commands."""

from __future__ import annotations

import click

from bacalhau_p2p.cli.lazy_group import LazyGroup

_COMMANDS = "bacalhau_p2p.cli."

RUN = (_COMMANDS + "job_run:run", "Run a job from a YAML or JSON file.")
VALIDATE = (_COMMANDS + "job_run:validate", "Check a job file.")
RERUN = (_COMMANDS + "executions:rerun", "Run a job once more.")
STOP = (_COMMANDS + "jobs:stop", "Stop a job.")
LIST = (_COMMANDS + "jobs:list_jobs", "List jobs.")
DESCRIBE = (_COMMANDS + "jobs:describe", "Show a job with its executions and its history.")
LOGS = (_COMMANDS + "logs:logs", "Show the output of a job.")
GET = (_COMMANDS + "jobs:get", "Download the results of a job, or content by its CID.")
HISTORY = (_COMMANDS + "history:history", "Show what happened to a job.")
EXECUTIONS = (_COMMANDS + "executions:executions", "List the executions of a job.")

WATCH = {
    "list": LIST,
    "describe": DESCRIBE,
    "logs": LOGS,
    "get": GET,
    "history": HISTORY,
    "executions": EXECUTIONS,
}


@click.group(
    cls=LazyGroup,
    lazy={"Commands": {"run": RUN, "validate": VALIDATE, "rerun": RERUN, "stop": STOP, **WATCH}},
)
def job() -> None:
    """Run and manage jobs.

    All of these work without the word job too; job run is then called create.
    """
