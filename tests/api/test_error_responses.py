"""Every error has the same JSON body, whether it is ours, the framework's or unexpected.

Covers `app` and `error_responses`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest
from httpx import ASGITransport

from bacalhau_p2p.api.app import create_app
from bacalhau_p2p.api.error_responses import error_response
from bacalhau_p2p.errors import Fault, InvalidJob
from bacalhau_p2p.node import Node
from bacalhau_p2p.testing.network import open_network

JOBS = "/api/v1/orchestrator/jobs"


@pytest.fixture
async def node(tmp_path) -> AsyncIterator[Node]:
    async with open_network(tmp_path, compute_nodes=0, api_port=0) as network:
        yield network.requester


@pytest.fixture
async def http(node) -> AsyncIterator[httpx.AsyncClient]:
    transport = ASGITransport(create_app(node), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1234") as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/api/v1/nothing", 404, "there is nothing at /api/v1/nothing; /api/v1/docs lists"),
        ("POST", JOBS, 405, f"{JOBS} does not take POST; use GET, PUT"),
        ("GET", f"{JOBS}?limit=-1", 422, "parameter limit: must be at least 0"),
        ("GET", "/api/v1/events?kind=Bidding", 422, "parameter kind: must be one of 'Submitted', 'Resumed'"),
        ("GET", f"{JOBS}?order_by=size", 400, "unknown order 'size'; use created_at"),
        ("GET", f"{JOBS}?labels=a%20b", 400, "labels: 'a b' is no selector"),
        ("GET", f"{JOBS}/x?wait=soon", 422, "parameter wait: must be a number"),
        ("GET", f"{JOBS}?next_token=-1", 400, "invalid next_token '-1'"),
        ("GET", f"{JOBS}?next_token={'9' * 19}", 400, "invalid next_token"),
        ("GET", f"{JOBS}?next_token=%D9%A1", 400, "invalid next_token"),
    ],
)
async def test_a_wrong_request_says_what_is_wrong(http, method, path, status, message):
    answer = await http.request(method, path)
    assert (answer.status_code, answer.json()["Kind"]) == (status, "ApiError")
    assert answer.json()["Message"].startswith(message)
    assert answer.json()["Status"] == status


@pytest.mark.parametrize(
    "job_id", ["%ED%9F%BF", "%F4%8F%BF%BF", "a%00b", "%25", "'%20OR%201=1--", "a" * 60_000]
)
@pytest.mark.parametrize("suffix", ["", "/executions", "/results"])
async def test_any_text_may_be_asked_for_as_a_job(http, job_id, suffix):
    answer = await http.get(f"{JOBS}/{job_id}{suffix}")
    assert (answer.status_code, answer.json()["Kind"]) == (404, "UnknownJob")
    assert (await http.get(f"{JOBS}?id_prefix={job_id}")).json()["Items"] == []


@pytest.mark.parametrize(
    "body",
    [
        rb'{"\ud800": 1}',
        rb'{"IdempotencyToken": "\ud800", "Job": {"Tasks": [{"Engine": {"Type": "noop"}}]}}',
        rb'{"Job": {"Tasks": [{"Engine": {"Type": "\ud800"}}]}}',
        rb'{"Job": {"Name": "\udfff", "Tasks": [{"Engine": {"Type": "noop"}}]}}',
        rb'{"Job": {"Labels": {"\ud800": "x"}, "Tasks": [{"Engine": {"Type": "noop"}}]}}',
    ],
)
async def test_a_lone_surrogate_is_a_fault_of_the_request(http, body):
    answer = await http.put(JOBS, content=body)
    assert (answer.status_code, answer.json()["Kind"]) == (400, "InvalidJob")


async def test_the_text_of_an_error_obeys_no_terminal():
    fault = Fault("Labels.\ud800", "\x1b[2J\u202ex\ny")
    answer = error_response(InvalidJob([fault]))
    shown = "Labels.\ufffd: \ufffd[2J\ufffdx\ny"
    body = json.loads(answer.body)
    assert (body["Message"], body["Error"]) == (shown, shown)
    assert body["Faults"] == [{"Path": "Labels.\ufffd", "Problem": "\ufffd[2J\ufffdx\ny"}]
    assert body["Details"] == {"Labels.\ufffd": "\ufffd[2J\ufffdx\ny"}


async def test_a_method_that_is_not_allowed_names_those_that_are(http):
    assert (await http.post(f"{JOBS}/x")).headers["allow"] == "DELETE, GET"
    assert (await http.delete("/api/v1/content")).headers["allow"] == "GET, PUT"


@pytest.mark.parametrize("path", [JOBS, "/api/v1/content"])
async def test_a_client_that_disconnects_is_not_logged(node, caplog, path):
    scope = {
        "type": "http",
        "method": "PUT",
        "path": path,
        "headers": [(b"host", b"localhost")],
        "query_string": b"",
    }
    messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    async def send(message: dict[str, object]) -> None:
        pass

    await create_app(node)(scope, receive, send)
    assert caplog.records == []


async def test_an_unexpected_error_is_logged_and_its_details_stay_on_the_node(http, node, caplog):
    def fail(*query: object, **options: object) -> None:
        raise ZeroDivisionError("secret")

    node.requester.job_records = fail
    answer = await http.get(JOBS)
    assert answer.status_code == 500
    assert answer.json()["Message"] == "internal error; the node's log has the details"
    assert answer.json()["Code"] == "InternalError"
    (record,) = caplog.records
    assert "ZeroDivisionError: secret" in record.getMessage()
    assert JOBS in record.getMessage()
