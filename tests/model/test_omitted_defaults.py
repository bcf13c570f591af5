"""Records without default values as whole JSON: `omitted_defaults`."""

from __future__ import annotations

import json
import typing

import pytest

from bacalhau_p2p.model.base import ExecutionID, JobID, Model, PeerID
from bacalhau_p2p.model.execution import Execution, Job, Proposal, PublishedResult, RunOutput
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.omitted_defaults import with_defaults
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.model.usage import Usage
from tests.support.results import result_cid

CID = result_cid("result")
SMALL = {"Tasks": [{"Engine": {"Type": "noop"}}]}
LARGE = {
    "Name": "large",
    "Count": 3,
    "Labels": {"a": "b"},
    "Constraints": [{"Key": "zone", "Operator": "in", "Values": ["lab"]}],
    "Verifier": {"Type": "deterministic", "Params": {"Confidence": 2}},
    "Deal": {"MinBids": 3},
    "Tasks": [
        {
            "Engine": {"Type": "docker", "Params": {"Image": "busybox", "Parameters": ["é"]}},
            "Env": {"A": "1"},
            "InputSources": [
                {"Target": "/inputs", "Source": {"Type": "ipfs", "Params": {"CID": CID}}},
                {"Target": "/more", "Source": {"Type": "url", "Params": {"URL": "https://example.com/"}}},
            ],
            "ResultPaths": [{"Name": "outputs", "Path": "/outputs"}],
            "Resources": {"CPU": "2"},
            "Network": {"Type": "HTTP", "Domains": ["example.com"]},
            "Timeouts": {"ExecutionTimeout": 1.5},
        }
    ],
}


def job(spec: dict[str, object], **fields: object) -> Job:
    values = {"state": JobState.RUNNING, "created": 1.25, "modified": 2.0, **fields}
    return Job(id=JobID("j"), spec=job_from_mapping(spec), requester_id=PeerID("me"), **values)


def execution(**fields: object) -> Execution:
    values = {"state": ExecutionState.COMPLETED, "created": 1.0, "modified": 2.0, **fields}
    return Execution(id=ExecutionID("e"), job_id=JobID("j"), node_id=PeerID("n"), **values)


def proposal() -> Proposal:
    return Proposal(
        job_id=JobID("j"), execution_id=ExecutionID("e"), node_id=PeerID("n"), result_cid=CID,
        entries={"stdout": CID}, output=RunOutput(exit_code=3, stdout=b"\xff\xfe\xfb"), walls=("network",),
        usage=Usage(cpu_seconds=0.5),
    )  # fmt: skip


RECORDS = [
    job(SMALL),
    job(LARGE, message="why", revision=7, nodes=(PeerID("n"),)),
    execution(),
    execution(proposal=proposal(), slot=0, input_bytes=5),
    execution(published=PublishedResult(cid=CID, location=SpecConfig(type="ipfs", params={"CID": CID}))),
    execution(state=ExecutionState.FAILED, failed_usage=Usage(peak_memory=1), failed_cid=CID, permanent=True),
]


@pytest.mark.parametrize("model", RECORDS)
def test_a_record_with_its_defaults_is_the_json_of_its_model(model):
    record = json.loads(model.model_dump_json(by_alias=True, exclude_defaults=True))
    whole = with_defaults(type(model), record)
    assert whole == model.model_dump(mode="json", by_alias=True)
    assert list(whole) == list(model.model_dump(by_alias=True))


@pytest.mark.parametrize("model", RECORDS)
def test_a_record_that_left_nothing_out_stays_as_it_is(model):
    whole = model.model_dump(mode="json", by_alias=True)
    assert with_defaults(type(model), whole) == whole


def test_what_a_later_version_added_is_left_out():
    record = {**json.loads(job(SMALL).model_dump_json(by_alias=True)), "Colour": "red"}
    assert "Colour" not in with_defaults(Job, record)


@pytest.mark.parametrize(
    "damage", [None, [], "text", {}, {"Spec": None}, {"Spec": {}}, {"Spec": {"Tasks": [1]}}]
)
def test_what_cannot_be_a_record_is_a_value_error(damage):
    with pytest.raises(ValueError, match="the record of a"):
        with_defaults(Job, damage)


def test_every_kind_of_field_of_jobs_and_executions_is_understood():
    """A mapping of models, or a choice of several, would be left as it is: `omitted_defaults` knows none."""
    kinds, seen = [Job, Execution], set()
    while kinds:
        kind = kinds.pop()
        seen.add(kind)
        for field in kind.model_fields.values():
            origin, arguments = typing.get_origin(field.annotation), typing.get_args(field.annotation)
            models = [
                each
                for each in (field.annotation, *arguments)
                if isinstance(each, type) and issubclass(each, Model)
            ]
            assert len(models) <= 1, field
            assert not models or origin is not dict, field
            kinds += [each for each in models if each not in seen]
    assert len(seen) > 10
