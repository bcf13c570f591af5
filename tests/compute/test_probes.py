"""Probes of the node's operator: programs and web services that accept or reject jobs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.compute.probes import MAX_VARIABLE_BYTES, ExecProbe, HttpProbe
from tests.support.servers.web_server import Answer, WebServer

UNREACHABLE = "rejects the job: its selection probe cannot be reached"
QUESTION = json.dumps({"JobID": "j-1", "Job": {"Name": "über"}}).encode()


# --- commands -------------------------------------------------------------------------------


async def test_a_command_gets_the_job_on_stdin_and_in_the_environment(tmp_path):
    command = f'cat > {tmp_path}/stdin; printf %s "$BACALHAU_JOB_SELECTION_PROBE_DATA" > {tmp_path}/variable'
    assert await ExecProbe(command, timeout=10).refusal(QUESTION) is None
    assert (tmp_path / "stdin").read_bytes() == QUESTION
    assert (tmp_path / "variable").read_bytes() == QUESTION


async def test_a_job_too_large_for_a_variable_is_only_on_stdin(tmp_path):
    question = b"x" * (MAX_VARIABLE_BYTES + 100_000)
    command = f'test -z "$BACALHAU_JOB_SELECTION_PROBE_DATA" && wc -c > {tmp_path}/size'
    assert await ExecProbe(command, timeout=10).refusal(question) is None
    assert int((tmp_path / "size").read_text()) == len(question)


async def test_a_command_need_not_read_the_job():
    assert await ExecProbe("exit 0", timeout=10).refusal(b"x" * 10**6) is None


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("exit 3", "its selection probe refused it"),
        ("echo; echo ' only on Sundays '; echo more; exit 1", ": only on Sundays"),
        ("printf 'a\\033[1mb'; exit 1", ": a [1mb"),
        ("echo secret >&2; exit 1", "its selection probe refused it"),
        ("kill -9 $$", "its selection probe refused it"),
        ("/no/such/program", "its selection probe refused it"),
    ],
)
async def test_a_command_rejects_by_its_status_and_gives_the_reason_on_stdout(command, reason):
    refusal = await ExecProbe(command, timeout=10).refusal(QUESTION)
    assert refusal is not None
    assert refusal.endswith(reason)


async def test_a_command_that_hangs_is_killed_with_its_child_processes(tmp_path):
    command = f"sleep 600 & echo $! > {tmp_path}/pid; wait"
    with trio.fail_after(60):
        refusal = await ExecProbe(command, timeout=1).refusal(QUESTION)
    assert refusal == "rejects the job: its selection probe did not end within 1 s"
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
        (Answer(status=403), "its selection probe refused it"),
        (Answer(status=204), "its selection probe refused it"),
        (Answer(status=302, headers={"Location": "/yes"}), "its selection probe refused it"),
        (Answer.of({"shouldBid": False, "reason": "too\nlarge"}), ": too"),
        (Answer.of({"shouldBid": True, "reason": "busy"}, status=503), ": busy"),
        (Answer(status=500, body=b'{"reason": "\\ud800!"}'), ": ?!"),
        (Answer(status=500, body=b'{"reason": "' + b"x" * 10**6), "its selection probe refused it"),
        (Answer.of([1], status=500), "its selection probe refused it"),
    ],
)
async def test_a_web_service_rejects_by_any_other_status_or_in_json(answer, reason):
    with WebServer(lambda request: answer) as server:
        refusal = await HttpProbe(server.url, timeout=10).refusal(QUESTION)
    assert refusal is not None
    assert refusal.endswith(reason)
    assert len(server.requests) == 1


async def test_a_web_service_accepts_in_json():
    with WebServer(lambda request: Answer.of({"shouldBid": True, "shouldWait": False})) as server:
        assert await HttpProbe(server.url, timeout=10).refusal(QUESTION) is None


async def test_a_web_service_that_is_down_rejects():
    with WebServer(lambda request: Answer()) as server:
        url = server.url
    assert await HttpProbe(url, timeout=10).refusal(QUESTION) == UNREACHABLE


async def test_a_web_service_that_does_not_answer_rejects():
    def stall(request):
        server.stopping.wait(20)
        return Answer()

    with WebServer(stall) as server:
        refusal = await HttpProbe(server.url, timeout=0.5).refusal(QUESTION)
    assert refusal == "rejects the job: its selection probe did not answer within 0.5 s"
