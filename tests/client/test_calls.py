"""Calls of the API as values: requests, and results and errors from responses. Nothing is sent."""

from __future__ import annotations

import json

import pytest

from bacalhau_p2p.client import calls
from bacalhau_p2p.client.calls import Call, ResponseLost
from bacalhau_p2p.errors import AmbiguousID, ApiError, Fault, InvalidJob, NodeUnavailable

URL = "http://127.0.0.1:1234"

VERSION = calls.get_agent("version").then(lambda answer: calls.text(answer, "GitVersion"))


def result(call: Call, response: object, status: int = 200) -> object:
    body = response if isinstance(response, bytes) else json.dumps(response).encode()
    return call.result(status, body, url=URL)


@pytest.mark.parametrize(
    ("call", "request_line"),
    [
        (calls.get_job("a/b c"), "GET /api/v1/orchestrator/jobs/a%2Fb%20c"),
        (calls.get_job("a", wait=0.25), "GET /api/v1/orchestrator/jobs/a?wait=0.250"),
        (
            calls.get_job_with_executions("a", wait=60),
            "GET /api/v1/orchestrator/jobs/a?wait=60.000&include=executions",
        ),
        (
            calls.list_jobs(limit=5, id_prefix="ab"),
            "GET /api/v1/orchestrator/jobs?limit=5&order_by=created_at&reverse=true&id_prefix=ab",
        ),
        (
            calls.list_jobs(limit=5, executions=True),
            "GET /api/v1/orchestrator/jobs?limit=5&order_by=created_at&reverse=true&include=executions",
        ),
        (calls.list_executions("a"), "GET /api/v1/orchestrator/jobs/a/executions"),
        (calls.list_results("a"), "GET /api/v1/orchestrator/jobs/a/results"),
        (calls.cancel_job("a", reason="no more"), "DELETE /api/v1/orchestrator/jobs/a?reason=no+more"),
        (calls.list_nodes(), "GET /api/v1/orchestrator/nodes"),
        (calls.get_node(), "GET /api/v1/agent/node"),
        (calls.get_agent("version"), "GET /api/v1/agent/version"),
        (calls.list_content(), "GET /api/v1/content"),
        (calls.pin_content("bafy", keep="7d"), "PUT /api/v1/content/pins/bafy?keep=7d"),
        (calls.unpin_content("bafy", owner="user"), "DELETE /api/v1/content/pins/bafy?owner=user"),
        (calls.collect_garbage(), "POST /api/v1/content/gc"),
    ],
)
def test_a_call_has_a_request_line(call, request_line):
    assert f"{call.method} {call.target}" == request_line


def test_a_submission_has_the_job_and_a_token():
    call = calls.submit_job({"Count": 1}, idempotency_token="mine")
    assert isinstance(call.body, bytes)
    assert json.loads(call.body) == {"Job": {"Count": 1}, "IdempotencyToken": "mine"}
    assert call.headers["Content-Type"] == "application/json"
    first, second = (json.loads(calls.submit_job({}).body)["IdempotencyToken"] for _ in range(2))
    assert first != second


def test_a_request_without_a_body_has_no_content_type():
    assert calls.list_nodes().headers == {"Accept": "application/json"}


@pytest.mark.parametrize(
    ("call", "response", "expected"),
    [
        (calls.submit_job({}), {"JobID": "j-1", "EvaluationID": ""}, "j-1"),
        (calls.get_job("j"), {"Job": {"ID": "j-1"}}, {"ID": "j-1"}),
        (
            calls.get_job_with_executions("j"),
            {"Job": {"ID": "j-1"}, "Executions": {"Items": [{"ID": "e-1"}]}},
            ({"ID": "j-1"}, [{"ID": "e-1"}]),
        ),
        (calls.list_jobs(limit=1), {"Items": [{"ID": "j-1"}], "NextToken": ""}, [{"ID": "j-1"}]),
        (calls.cancel_job("j", reason=""), {"EvaluationID": ""}, None),
        (VERSION, {"GitVersion": "v9"}, "v9"),
        (calls.list_content(), {"Items": [], "Used": 1}, {"Items": [], "Used": 1}),
        (calls.pin_content("bafy"), {"CID": "bafy", "Owner": "user"}, "bafy"),
    ],
)
def test_a_result_is_read_from_the_response(call, response, expected):
    assert result(call, response) == expected


@pytest.mark.parametrize(
    ("call", "response", "problem"),
    [
        (calls.list_nodes(), b"<html>", f"no bacalhau_p2p node at {URL}: the response is not JSON"),
        (calls.list_nodes(), [], f"no bacalhau_p2p node at {URL}: the response is not JSON"),
        (calls.list_nodes(), {}, f"unexpected response from the node at {URL}: 'Nodes' is missing"),
        (calls.list_nodes(), {"Nodes": [1]}, "Nodes is not a list of objects"),
        (calls.list_content(), {"Items": None}, "Items is not a list of objects"),
        (calls.get_job("j"), {"Job": 7}, "Job is not an object"),
        (calls.submit_job({}), {"JobID": 7}, "JobID is not text"),
        (calls.submit_job({}), {"JobID": ""}, "JobID is not text"),
        (VERSION.then(int), {"GitVersion": "v9"}, "invalid literal for int"),
    ],
)
def test_a_malformed_response_is_an_error_with_the_address_of_the_node(call, response, problem):
    with pytest.raises(ApiError, match=problem.replace("(", "\\(")):
        result(call, response)


def test_an_error_response_raises_the_error_of_the_node():
    call = calls.list_nodes()
    with pytest.raises(AmbiguousID, match=r"^2 jobs$"):
        result(call, {"Message": "2 jobs", "Kind": "AmbiguousID"}, 409)
    with pytest.raises(InvalidJob) as invalid:
        result(
            call,
            {"Message": "x", "Kind": "InvalidJob", "Faults": [{"Path": "Count", "Problem": "missing"}]},
            400,
        )
    assert invalid.value.faults == (Fault("Count", "missing"),)
    with pytest.raises(ApiError) as other:
        result(call, b"down", 503)
    assert other.value.status == 503


def carry_out(call: Call, error: Exception) -> int:
    """How often a request is sent if each attempt fails with `error`."""
    sent = 0
    try:
        for attempt in call.attempts():
            with attempt:
                sent += 1
                raise error
    except type(error):
        return sent
    raise AssertionError("the last error did not come out")


def test_only_submissions_are_repeated_and_only_when_their_response_is_lost():
    submission = calls.submit_job({})
    assert carry_out(submission, ResponseLost("lost")) == 3
    assert carry_out(submission, NodeUnavailable("down")) == 1
    assert carry_out(submission, InvalidJob([])) == 1
    assert carry_out(calls.cancel_job("j", reason=""), ResponseLost("lost")) == 1
    assert carry_out(calls.get_job("j"), ResponseLost("lost")) == 1


def test_a_poll_that_returns_early_is_followed_by_a_pause():
    assert calls.pause_between_polls(60, 0.1) == 1.0
    assert calls.pause_between_polls(60, 60) == 0.0
    assert calls.pause_between_polls(0.0, 0.0) == 0.0
