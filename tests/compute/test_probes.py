"""Probes of the node's owner: programs and web services that take or refuse jobs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.compute.probes import MAX_VARIABLE, ExecProbe, HttpProbe
from tests.support.servers.web_server import Answer, WebServer

QUESTION = json.dumps({"JobID": "j-1", "Job": {"Name": "über"}}).encode()


# --- commands -------------------------------------------------------------------------------


async def test_a_command_gets_the_job_on_stdin_and_in_the_environment(tmp_path):
    command = f'cat > {tmp_path}/stdin; printf %s "$BACALHAU_JOB_SELECTION_PROBE_DATA" > {tmp_path}/variable'
    assert await ExecProbe(command, timeout=10).refusal(QUESTION) is None
    assert (tmp_path / "stdin").read_bytes() == QUESTION
    assert (tmp_path / "variable").read_bytes() == QUESTION


async def test_a_job_too_large_for_a_variable_is_on_stdin(tmp_path):
    question = b"x" * (MAX_VARIABLE + 100_000)
    command = f'test -z "$BACALHAU_JOB_SELECTION_PROBE_DATA" && wc -c > {tmp_path}/size'
    assert await ExecProbe(command, timeout=10).refusal(question) is None
    assert int((tmp_path / "size").read_text()) == len(question)


async def test_a_command_that_does_not_read_the_job_may_answer():
    assert await ExecProbe("exit 0", timeout=10).refusal(b"x" * 10**6) is None


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("exit 3", "its job selection probe refused the job"),
        ("echo; echo ' only on Sundays '; echo more; exit 1", ": only on Sundays"),
        ("printf 'a\\033[1mb'; exit 1", ": a [1mb"),
        ("echo secret >&2; exit 1", "its job selection probe refused the job"),
        ("kill -9 $$", "its job selection probe refused the job"),
        ("/no/such/program", "its job selection probe refused the job"),
    ],
)
async def test_a_command_refuses_by_its_status_and_says_why_on_stdout(command, reason):
    refusal = await ExecProbe(command, timeout=10).refusal(QUESTION)
    assert refusal is not None
    assert refusal.endswith(reason)


async def test_a_command_that_hangs_is_killed_with_what_it_started(tmp_path):
    command = f"sleep 600 & echo $! > {tmp_path}/pid; wait"
    started = time.monotonic()
    refusal = await ExecProbe(command, timeout=1).refusal(QUESTION)
    assert refusal == "its job selection probe did not end within 1 s"
    assert time.monotonic() - started < 10
    child = int((tmp_path / "pid").read_text())
    with trio.fail_after(10):
        while _runs(child):  # noqa: ASYNC110 - there is nothing else to wait for
            await trio.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- web services ---------------------------------------------------------------------------


async def test_a_web_service_gets_the_job_and_accepts_with_200():
    with WebServer(lambda request: Answer(body=b"whatever")) as server:
        assert await HttpProbe(f"{server.url}/probe", timeout=10).refusal(QUESTION) is None
    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/probe", QUESTION)
    assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(status=403), "its job selection probe refused the job"),
        (Answer(status=204), "its job selection probe refused the job"),
        (Answer(status=302, headers={"Location": "/yes"}), "its job selection probe refused the job"),
        (Answer.of({"shouldBid": False, "reason": "too\nlarge"}), ": too"),
        (Answer.of({"shouldBid": True, "reason": "busy"}, status=503), ": busy"),
        (Answer(status=500, body=b'{"reason": "\\ud800!"}'), ": ?!"),
        (Answer(status=500, body=b'{"reason": "' + b"x" * 10**6), "its job selection probe refused the job"),
        (Answer.of([1], status=500), "its job selection probe refused the job"),
    ],
)
async def test_a_web_service_refuses_by_any_other_status_or_by_what_it_says(answer, reason):
    with WebServer(lambda request: answer) as server:
        refusal = await HttpProbe(server.url, timeout=10).refusal(QUESTION)
    assert refusal is not None
    assert refusal.endswith(reason)
    assert len(server.requests) == 1


async def test_a_web_service_that_says_yes_in_json_accepts():
    with WebServer(lambda request: Answer.of({"shouldBid": True, "shouldWait": False})) as server:
        assert await HttpProbe(server.url, timeout=10).refusal(QUESTION) is None


async def test_a_web_service_that_is_not_there_refuses():
    with WebServer(lambda request: Answer()) as server:
        url = server.url
    assert await HttpProbe(url, timeout=10).refusal(QUESTION) == "its job selection probe cannot be asked"


async def test_a_web_service_that_does_not_answer_refuses():
    def stall(request):
        server.stopping.wait(20)
        return Answer()

    with WebServer(stall) as server:
        refusal = await HttpProbe(server.url, timeout=0.5).refusal(QUESTION)
    assert refusal == "its job selection probe did not answer within 0.5 s"
