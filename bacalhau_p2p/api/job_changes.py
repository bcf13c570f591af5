"""What a request changes about a job: how two of them differ, and why one is stopped."""

from __future__ import annotations

import difflib

from fastapi import Request

from bacalhau_p2p.api.json_bodies import MAX_SMALL_BODY, json_object, value_of
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.yaml_text import yaml_text

MAX_REASON = 1000
"""Characters of the reason of a stop."""
MAX_LINES = 2000
"""Lines of a job that are compared: what it takes grows with their square."""


def compared(old: JobSpec, new: JobSpec) -> str:
    """The lines that a job loses (-) and gets (+), with some around them; empty if there are none."""
    before, after = _lines(old), _lines(new)
    if before == after:
        return ""
    if max(len(before), len(after)) > MAX_LINES:
        return f"(the jobs differ; they have more than {MAX_LINES} lines, so they are not compared)\n"
    return "\n".join([*difflib.unified_diff(before, after, "old", "new", lineterm=""), ""])


async def stop_reason(request: Request, given: str) -> str:
    """The reason in the query, else in the body. Raises ApiError."""
    reason = value_of(await json_object(request, most=MAX_SMALL_BODY), "Reason")
    return (given or (reason if isinstance(reason, str) else ""))[:MAX_REASON]


def _lines(spec: JobSpec) -> list[str]:
    return yaml_text(spec.model_dump(mode="json", by_alias=True)).splitlines()
