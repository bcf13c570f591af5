"""What the command line shows of jobs and executions."""

from __future__ import annotations

import pytest

from bacalhau_p2p.cli.job_view import (
    executions_of,
    first_output,
    last_lines,
    published_results,
    state_of,
    summary,
    verified,
)
from bacalhau_p2p.ipfs.format.cid import CID, RAW


def execution(state: str, **fields: object) -> dict[str, object]:
    return {"ComputeState": {"State": state}, **fields}


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        (
            {"Type": "docker", "Params": {"Image": "busybox", "Entrypoint": ["sh"], "Parameters": ["-c"]}},
            "Docker busybox sh -c",
        ),
        (
            {"Type": "wasm", "Params": {"EntryModule": "/m/wc.wasm", "Parameters": ["a\nb"]}},
            "Wasm wc.wasm a b",
        ),
        ({"Type": "noop"}, "Noop"),
        ({"Type": "flibble", "Params": None}, "Flibble"),
        (None, ""),
    ],
)
def test_a_summary_says_what_a_job_runs(engine, expected):
    assert summary({"Tasks": [{"Engine": engine}]}) == expected


def test_a_malformed_job_has_no_summary_and_no_state():
    assert [summary(job) for job in ({}, {"Tasks": []}, {"Tasks": [1]})] == ["", "", ""]
    assert state_of({"State": None}) == ("Unknown", "")


def test_verified_counts_accepted_results_of_those_that_were_verified():
    job = {"Verifier": {"Type": "deterministic"}}
    states = ["Completed", "ResultAccepted", "ResultRejected", "Lost"]
    executions = [execution(state) for state in states]
    assert verified(job, executions) == "2/3"
    assert verified(job, []) == ""
    assert verified({"Verifier": {"Type": "noop"}}, executions) == ""
    assert verified({}, executions) == ""


def test_equal_results_are_one_with_all_providers():
    def published(cid: str, *providers: str) -> dict[str, object]:
        params = {"CID": cid, "Providers": list(providers)}
        return execution("Completed", PublishedResult={"Type": "ipfs", "Params": params})

    a, b = (str(CID.of(RAW, data)) for data in (b"a", b"b"))
    executions = [published(b, "/x"), published(a), execution("Lost"), published(b, "/y")]
    assert published_results(executions) == {b: ["/x", "/y"], a: []}


@pytest.mark.parametrize(
    "text", ["../../ESCAPED/dir/x", "\x1b[2J", "", 7, None, ["bafy"], "bafy", "a" * 5000]
)
def test_what_is_no_cid_is_not_a_result(text):
    result = {"Type": "ipfs", "Params": {"CID": text}}
    assert published_results([execution("Completed", PublishedResult=result)]) == {}


def test_the_output_of_a_job_is_that_of_its_first_completed_execution():
    outputs = [{"Stdout": str(number)} for number in range(3)]
    executions = [
        execution("Failed", RunOutput=outputs[0]),
        execution("Completed", RunOutput=outputs[1]),
        execution("Completed", RunOutput=outputs[2]),
    ]
    assert first_output(executions) == outputs[1]
    assert first_output([execution("Completed", RunOutput=None)]) is None


def test_executions_are_those_that_the_list_includes():
    assert executions_of({"Executions": {"Items": [{"ID": "e"}, 7]}}) == [{"ID": "e"}]
    assert executions_of({}) == []


def test_the_last_lines_are_those_of_the_latest_execution_that_failed():
    def failed(message: str, modified: int, state: str = "Failed") -> dict[str, object]:
        return {"ComputeState": {"State": state, "Message": message}, "ModifyTime": modified}

    executions = [
        failed("why\nlate", 3),
        failed("why\nearly", 1),
        failed("published\nno", 9, "Completed"),
    ]
    assert last_lines(executions) == "late"
    assert last_lines([failed("why", 1)]) == last_lines([]) == ""
