"""How handles look in a notebook: as HTML, with the text of strangers made harmless. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.runtime.text import printable

MAX_ROWS = 50
"""Rows of a table; more are only counted."""
MAX_TEXT = 200
"""Characters of a message."""
MAX_OUTPUT = 2_000
"""Characters of what a program wrote."""

_COLOURS = {
    "Completed": "green",
    "Running": "royalblue",
    "BidAccepted": "royalblue",
    "ResultProposed": "royalblue",
    "ResultAccepted": "royalblue",
    "Failed": "crimson",
    "Lost": "crimson",
    "ResultRejected": "crimson",
    "Stopped": "darkorange",
    "Cancelled": "darkorange",
}


def text(value: str, most: int = MAX_TEXT) -> str:
    """Text of anybody, for HTML."""
    shown = value if len(value) <= most else value[: most - 1] + "…"
    return html.escape(printable(shown, keep_lines=True))


def state(value: JobState | ExecutionState) -> str:
    colour = _COLOURS.get(str(value), "gray")
    return f'<b style="color: {colour}">{text(str(value))}</b>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of HTML cells; only its first rows."""
    shown = list(rows)
    lines = ["".join(f'<td style="text-align: left">{cell}</td>' for cell in row) for row in shown[:MAX_ROWS]]
    if len(shown) > MAX_ROWS:
        lines.append(f"<td>and {len(shown) - MAX_ROWS} more</td>")
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    head = "".join(f'<th style="text-align: left">{text(name)}</th>' for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def job(job_id: JobID, known: Job | None, executions: Sequence[Execution]) -> str:
    """A job as far as it is known here, with its executions."""
    if known is None:
        return f"<div>Job <code>{text(job_id)}</code></div>"
    name = f"{text(known.spec.name)} " if known.spec.name else ""
    message = f" {text(known.message)}" if known.message else ""
    line = f"<div>Job {name}<code>{text(job_id)}</code> {state(known.state)}{message}</div>"
    if not executions:
        return line
    rows = [
        [
            f"<code>{text(each.id[:8])}</code>",
            f"<code>{text(each.node_id[-8:])}</code>",
            state(each.state),
            text(each.message),
        ]
        for each in executions
    ]
    return line + table(["execution", "node", "state", ""], rows)


def result(job_id: JobID, exit_code: int, cid: str, stdout: bytes, stderr: bytes) -> str:
    """A result, with the beginning of what its program wrote."""
    told = f"exit code {exit_code}, <code>{text(cid)}</code>"
    line = f"<div>Result of job <code>{text(job_id)}</code>: {told}</div>"
    written = (stdout.decode(errors="replace"), stderr.decode(errors="replace"))
    return line + "".join(f"<pre>{text(each, MAX_OUTPUT)}</pre>" for each in written if each)


def progress(submitted: int, ended: int, failed: int, failures: Sequence[tuple[str, str]]) -> str:
    """A map: how many of its jobs are where, and its last failures (input and error)."""
    counts = [
        [str(submitted), str(submitted - ended), str(ended - failed), str(failed)],
    ]
    shown = table(["submitted", "running", "completed", "failed"], counts)
    if failures:
        shown += table(["input", "error"], [[text(given), text(error)] for given, error in failures])
    return shown
