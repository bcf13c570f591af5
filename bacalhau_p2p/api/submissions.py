"""Reads a submission: the job in the body of a request, and its idempotency token."""

from __future__ import annotations

from fastapi import Request

from bacalhau_p2p.api.json_bodies import json_object, value_of
from bacalhau_p2p.errors import ApiError, Fault, InvalidJob
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.parsing import job_from_mapping

MAX_BODY = 1024 * 1024
"""Bytes of a request with a job; the requester itself allows less."""
MAX_TOKEN = 256
"""Characters of an idempotency token."""


async def submission(request: Request) -> tuple[JobSpec, str]:
    """The job in the body and its idempotency token, which is empty if there is none.

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
    job = value_of(body, "Job")
    return job_from_mapping(body if job is None else job), token or ""
