from __future__ import annotations

import pytest

from bacalhau_p2p.errors import InvalidJob
from bacalhau_p2p.functions.jobs import Call, job_of, no_answer
from bacalhau_p2p.functions.remote import FunctionOptions

CID = "bafkreidon73zkcrwdb5iafqtijxildoonbwnpv7dyd6ef3qdgads2jc4su"


def call(**changes: object) -> Call:
    fields = {"name": "f", "interpreter": CID, "bundle": CID, "arguments": b"[[],{}]", "inputs": {}}
    return Call(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_call_is_a_wasm_job_with_all_that_it_needs_by_cid():
    spec = job_of(call(inputs={"/inputs/0": f"{CID}/a"}), FunctionOptions(cpu=0.5, timeout="2m"))
    task = spec.task
    assert (spec.name, task.engine.type, spec.count, spec.verifier.type) == ("f", "wasm", 1, "noop")
    assert [(each.target, each.source.type) for each in task.input_sources] == [
        ("/interpreter/python.wasm", "ipfs"),
        ("/function", "ipfs"),
        ("/inputs/0", "ipfs"),
        ("/call/arguments.json", "inline"),
    ]
    assert task.input_sources[3].source.params["URL"] == "data:application/json;base64,W1tdLHt9XQ=="
    assert [(each.name, each.path) for each in task.result_paths] == [
        ("value", "/value"),
        ("outputs", "/outputs"),
    ]
    assert (spec.resources.cpu, spec.resources.memory, spec.execution_timeout) == (0.5, 256_000_000, 120)


def test_results_of_several_nodes_are_compared():
    assert job_of(call(), FunctionOptions(count=3)).deterministic


def test_large_arguments_are_content():
    task = job_of(call(arguments=CID), FunctionOptions()).task
    assert task.input_sources[2].source.params == {"CID": CID}


def test_options_of_the_job_are_taken_and_checked():
    spec = job_of(call(), FunctionOptions(job={"Priority": 5, "Name": "mine"}))
    assert (spec.priority, spec.name) == (5, "mine")
    with pytest.raises(InvalidJob, match="Memory"):
        job_of(call(), FunctionOptions(memory="much"))


def test_a_run_without_an_answer_says_what_ended_it():
    assert "may have needed more memory than 64mb" in str(no_answer(134, b"trap", "64mb"))
    error = no_answer(3, b"last\x1b words", "64mb")
    assert str(error) == "the interpreter ended with exit code 3, and returned nothing"
    assert error.traceback == "last\ufffd words"
