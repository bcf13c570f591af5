"""Reads a submission: the job in the body of a request, its idempotency token, and what its inputs lack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastapi import Request

from bacalhau_p2p.api.json_bodies import json_object, value_of
from bacalhau_p2p.errors import ApiError, Fault, InvalidJob
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.parsing import job_from_mapping

MAX_BODY = 1024 * 1024
"""Bytes of a request with a job; the requester itself allows less."""
MAX_TOKEN = 256
"""Characters of an idempotency token."""
MAX_LEFT_OUT = 100
"""What was left out of the inputs, as far as it may be named."""


class Submission(NamedTuple):
    """What a body says. The token is empty if there is none."""

    spec: JobSpec
    token: str
    left_out: Sequence[str]
    """What the client left out of inputs that it added."""


async def submission(request: Request) -> Submission:
    """What the body of the request says.

    Raises InvalidJob, and ApiError when the body is too long.
    """
    try:
        body = await json_object(request, most=MAX_BODY)
    except ApiError as error:
        if error.status != 400:
            raise
        raise InvalidJob([Fault("", str(error))]) from error
    token = value_of(body, "IdempotencyToken")
    if token is not None and (not isinstance(token, str) or len(token) > MAX_TOKEN):
        raise InvalidJob([Fault("IdempotencyToken", f"must be text of at most {MAX_TOKEN} characters")])
    left_out = value_of(body, "LeftOut") or []
    if not isinstance(left_out, list) or not all(isinstance(each, str) for each in left_out[:MAX_LEFT_OUT]):
        raise InvalidJob([Fault("LeftOut", "must be a list of texts")])
    job = value_of(body, "Job")
    spec = job_from_mapping(body if job is None else job)
    return Submission(spec, token or "", tuple(left_out[:MAX_LEFT_OUT]))
