"""Probes: a program or a web service of the node's operator decides about each job.

Both get the job as JSON, `{"NodeID", "RequesterID", "JobID", "Job"}`, and have a time limit. A probe that
fails rejects the job, so that no job runs without the operator's consent.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import aclosing, suppress
from typing import Protocol

import httpx
import trio

from bacalhau_p2p.outbound.addresses import tls_context
from bacalhau_p2p.outbound.http import describe_error
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

DATA_VARIABLE = "BACALHAU_JOB_SELECTION_PROBE_DATA"
"""The environment variable that also holds the job for a command; the name is Bacalhau's."""
MAX_VARIABLE_BYTES = 120 * 1024
"""A larger job is only on stdin: Linux starts no program with a variable of more than 128 KiB."""
MAX_ANSWER_BYTES = 64 * 1024
"""Bytes that are read of the answer of a web service."""
MAX_REASON = 200
"""Characters of a probe's reason that the user of the job sees."""
MAX_CONCURRENT = 8
"""Jobs about which one probe decides at the same time; others wait, within their time limit."""


class Probe(Protocol):
    """Decides whether this node runs a job."""

    async def refusal(self, question: bytes) -> str | None:
        """Why this node rejects the job, None if it accepts it. Never raises."""
        ...


class ExecProbe:
    """A shell command that gets the job on stdin and in the environment; exit status 0 accepts.

    The user of the job sees the first line of its stdout as the reason. At its time limit it is killed with
    its child processes.
    """

    def __init__(self, command: str, *, timeout: float) -> None:
        """`timeout` in seconds."""
        self._command = command
        self._timeout = timeout
        self._turns = trio.Semaphore(MAX_CONCURRENT)

    async def refusal(self, question: bytes) -> str | None:
        environment = dict(os.environ)
        environment.pop(DATA_VARIABLE, None)
        if len(question) <= MAX_VARIABLE_BYTES:
            environment[DATA_VARIABLE] = question.decode()
        try:
            with trio.fail_after(self._timeout):
                async with self._turns:
                    done = await trio.run_process(
                        ["/bin/sh", "-c", self._command],
                        stdin=question,
                        capture_stdout=True,
                        capture_stderr=True,
                        check=False,
                        env=environment,
                        start_new_session=True,
                        deliver_cancel=_kill_group,
                    )
        except trio.TooSlowError:
            return f"rejects the job: its selection probe did not end within {self._timeout:g} s"
        except OSError as error:
            log.warning("probe_failed", reason=str(error))
            return "rejects the job: its selection probe cannot be run"
        if done.returncode == 0:
            return None
        log.info("probe_refused", status=done.returncode, stderr=_line(done.stderr))
        return _refusal(_line(done.stdout))


async def _kill_group(process: trio.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class HttpProbe:
    """A URL to which the job is posted; status 200 accepts.

    As in Bacalhau, a JSON answer `{"shouldBid": false, "reason": "..."}` rejects the job too. The user of the
    job sees its `reason`.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        """`timeout` in seconds."""
        self._url = url
        self._timeout = timeout
        self._turns = trio.Semaphore(MAX_CONCURRENT)

    async def refusal(self, question: bytes) -> str | None:
        try:
            with trio.fail_after(self._timeout):
                async with self._turns:
                    status, body = await self._post(question)
        except trio.TooSlowError:
            return f"rejects the job: its selection probe did not answer within {self._timeout:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            log.warning("probe_failed", reason=describe_error(error, self._timeout))
            return "rejects the job: its selection probe cannot be reached"
        wanted, reason = _answer(body)
        if status == 200 and wanted:
            return None
        return _refusal(reason)

    async def _post(self, question: bytes) -> tuple[int, bytes]:
        body = bytearray()
        headers = {"User-Agent": "bacalhau_p2p", "Content-Type": "application/json"}
        async with (
            httpx.AsyncClient(timeout=self._timeout, verify=tls_context(), trust_env=False) as client,
            client.stream("POST", self._url, content=question, headers=headers) as response,
            aclosing(response.aiter_bytes()) as chunks,  # type: ignore[type-var]
        ):
            async for chunk in chunks:
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    break
            return response.status_code, bytes(body)


def _refusal(reason: str) -> str:
    return f"rejects the job: its selection probe refused it{': ' if reason else ''}{reason}"


def _answer(body: bytes) -> tuple[bool, str]:
    """Whether an answer accepts the job as far as its JSON says, and its reason."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return True, ""
    if not isinstance(value, dict):
        return True, ""
    reason = value.get("reason")
    line = _line(reason.encode("utf-8", "replace")) if isinstance(reason, str) else ""
    return value.get("shouldBid") is not False, line


def _line(text: bytes) -> str:
    """The first line that is not empty, in printable characters: peers get to see it."""
    lines = (line.strip() for line in text.decode("utf-8", "replace").splitlines())
    first = next((line for line in lines if line), "")
    return "".join(letter if letter.isprintable() else " " for letter in first)[:MAX_REASON]
