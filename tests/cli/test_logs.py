"""`logs`: stdout goes to stdout, stderr to stderr, as they are."""

from __future__ import annotations

import pytest

from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.logs import LogPiece, LogStream
from bacalhau_p2p.model.state import JobState

ID = "095be615-a8ad-4c33-8e9c-c7612fbf6c9f"
RUN = ExecutionID("e-1")


@pytest.fixture
def job(fake_node):
    fake_node.add_job(ID)
    fake_node.logs[ID] = [
        LogPiece(RUN, LogStream.STDOUT, 0, b"one\n\xff"),
        LogPiece(RUN, LogStream.STDERR, 0, b"oh\n"),
        LogPiece(RUN, LogStream.STDOUT, 5, b"two"),
    ]
    return ID


def test_the_streams_are_told_apart_and_not_changed(run, job):
    result = run("logs", "095be")
    assert (result.stdout_bytes, result.stderr_bytes) == (b"one\n\xfftwo", b"oh\n")


@pytest.mark.parametrize(
    ("flags", "query"),
    [
        ((), ""),
        (("--follow",), "?follow=true"),
        (("-f", "--tail", "0", "--execution", "e-1"), "?follow=true&tail=0&execution_id=e-1"),
    ],
)
def test_flags_are_passed_on(run, job, fake_node, flags, query):
    assert run("logs", *flags, ID).exit_code == 0
    assert fake_node.requests[-1] == ("GET", f"/api/v1/orchestrator/jobs/{ID}/logs{query}")


def test_who_follows_a_job_that_waits_is_told_why(run, job, fake_node):
    fake_node.jobs[ID] = fake_node.jobs[ID].replace(state=JobState.QUEUED, message="waiting for a node")
    fake_node.logs[ID] = []
    assert run("logs", "-f", ID).stderr == "  Queued: waiting for a node\n"
    assert run("logs", ID).stderr == ""


def test_an_empty_job_is_wrong_usage(run, fake_node):
    result = run("logs", "")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (
        2,
        "Error: missing JOB",
    )
    assert fake_node.requests == []


def test_an_unknown_job_is_an_error_of_one_line(run):
    result = run("logs", "unknown")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
