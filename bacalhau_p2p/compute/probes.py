"""Probes: the owner of a node has a program or a web service of his own decide about each job.

Both get the job as JSON, `{"NodeID", "RequesterID", "JobID", "Job"}`, and have a time limit. A probe that
fails refuses the job: nothing runs that its owner was not asked about.
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
"""The environment variable in which a command finds the job, too; Bacalhau's name for it."""
MAX_VARIABLE = 120 * 1024
"""Bytes of it; Linux starts no program with more than 128 KiB in one. A larger job is on stdin only."""
MAX_ANSWER = 64 * 1024
"""Bytes of a web service's answer that are read."""
MAX_REASON = 200
AT_ONCE = 8


class Probe(Protocol):
    async def refusal(self, question: bytes) -> str | None:
        """Why the owner does not want the job, None when he does. Never raises."""
        ...


class ExecProbe:
    """A shell command, with the job on stdin and in the environment; exit status 0 accepts.

    The first line that it writes to stdout is the reason that the job's user is told. At its time limit it
    is killed, with all that it has started.
    """

    def __init__(self, command: str, *, timeout: float) -> None:
        """`timeout` in seconds."""
        self._command = command
        self._timeout = timeout
        self._turns = trio.Semaphore(AT_ONCE)

    async def refusal(self, question: bytes) -> str | None:
        environment = dict(os.environ)
        environment.pop(DATA_VARIABLE, None)
        if len(question) <= MAX_VARIABLE:
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
            return f"its job selection probe did not end within {self._timeout:g} s"
        except OSError as error:
            log.warning("probe_failed", reason=str(error))
            return "its job selection probe cannot be run"
        if done.returncode == 0:
            return None
        log.info("probe_refused", status=done.returncode, stderr=_line(done.stderr))
        reason = _line(done.stdout)
        return f"its job selection probe refused the job{': ' if reason else ''}{reason}"


async def _kill_group(process: trio.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class HttpProbe:
    """A URL to which the job is posted; status 200 accepts.

    A JSON answer `{"shouldBid": false, "reason": "..."}` refuses too, as with Bacalhau, and its `reason`
    is what the job's user is told.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        """`timeout` in seconds."""
        self._url = url
        self._timeout = timeout
        self._turns = trio.Semaphore(AT_ONCE)

    async def refusal(self, question: bytes) -> str | None:
        try:
            with trio.fail_after(self._timeout):
                async with self._turns:
                    status, body = await self._post(question)
        except trio.TooSlowError:
            return f"its job selection probe did not answer within {self._timeout:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            log.warning("probe_failed", reason=describe_error(error, self._timeout))
            return "its job selection probe cannot be asked"
        wanted, reason = _answer(body)
        if status == 200 and wanted:
            return None
        return f"its job selection probe refused the job{': ' if reason else ''}{reason}"

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
                if len(body) > MAX_ANSWER:
                    break
            return response.status_code, bytes(body)


def _answer(body: bytes) -> tuple[bool, str]:
    """Whether an answer's JSON, if it is some, leaves it at the status; and its reason."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return True, ""
    if not isinstance(value, dict):
        return True, ""
    reason = value.get("reason")
    said = _line(reason.encode("utf-8", "replace")) if isinstance(reason, str) else ""
    return value.get("shouldBid") is not False, said


def _line(text: bytes) -> str:
    """The first line that says something, for a message to strangers."""
    lines = (line.strip() for line in text.decode("utf-8", "replace").splitlines())
    first = next((line for line in lines if line), "")
    return "".join(letter if letter.isprintable() else " " for letter in first)[:MAX_REASON]
