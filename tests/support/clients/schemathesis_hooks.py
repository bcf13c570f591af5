"""What schemathesis has to know of a node: what exists, bodies that it cannot make, and how long to wait.

`test_schema.py` gives the id of a job, the id of a node and a CID in the environment.
"""

from __future__ import annotations

import os
from typing import Any

import schemathesis
from hypothesis import strategies as st

KNOWN = {
    "job_id": os.environ["KNOWN_JOB"],
    "node_id": os.environ["KNOWN_NODE"],
    "cid": os.environ["KNOWN_CID"],
    "path": os.environ["KNOWN_CID"] + "/stdout",
    "name": os.environ["KNOWN_CID"] + ".tar.gz",
}
CAR = "application/vnd.ipld.car"

schemathesis.openapi.media_type(CAR, st.binary(max_size=200))


@schemathesis.serializer(CAR)
def car(ctx: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.hook
def map_path_parameters(ctx: Any, path_parameters: dict[str, Any]) -> dict[str, Any]:
    """Half of the requests are about something that exists."""
    return {
        name: KNOWN[name] if name in KNOWN and len(str(value)) % 2 else value
        for name, value in (path_parameters or {}).items()
    }


@schemathesis.hook
def map_query(ctx: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """No request waits long for an event."""
    return {**query, "wait": "0.01"} if query and _is_number(query.get("wait")) else query


def _is_number(value: object) -> bool:
    try:
        return float(str(value)) > 0
    except ValueError:
        return False
