"""What the outline of a job says, and what it leaves to the spec."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from bacalhau_p2p.model.constraints import Constraint
from bacalhau_p2p.model.outline import MAX_CONSTRAINTS, JobOutline
from bacalhau_p2p.model.resources import Resources
from tests.support.machines.compute_bench import small_job

CID = "bafkqaaa"
INPUT = {"Source": {"Type": "ipfs", "Params": {"CID": CID}}}
ZONE = {"Key": "zone", "Operator": "=", "Values": ["a"]}
SPEC = small_job(
    cpu="2",
    task={
        "InputSources": [{"Target": f"/{number}", **INPUT} for number in range(3)],
        "Network": {"Type": "HTTP", "Domains": ["example.org"]},
        "Timeouts": {"ExecutionTimeout": 60},
    },
    Constraints=[ZONE],
)
OUTLINE = JobOutline.of(SPEC, cid=CID, size=5000)


def test_an_outline_says_what_decides_who_could_run_the_job():
    assert (
        JobOutline(
            spec_cid=CID,
            spec_size=5000,
            engine="noop",
            publisher="ipfs",
            inputs=3,
            sources=("ipfs",),
            resources=Resources(cpu=2, memory=100_000_000),
            constraints=(Constraint(key="zone", operator="=", values=("a",)),),
            network="HTTP",
            execution_timeout=60,
        )
        == OUTLINE
    )


def test_it_is_compared_with_the_spec():
    assert OUTLINE.difference_to(SPEC) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("engine", "docker"),
        ("publisher", "s3"),
        ("inputs", 2),
        ("sources", ("s3",)),
        ("resources", Resources(cpu=1)),
        ("network", "None"),
        ("execution_timeout", 1.0),
        ("constraints", (Constraint(key="zone", operator="=", values=("b",)),)),
    ],
)
def test_every_difference_is_found(field, value):
    assert OUTLINE.replace(**{field: value}).difference_to(SPEC) == field


def test_constraints_that_take_much_are_left_to_the_spec():
    many = [{"Key": f"key-{number}", "Operator": "=", "Values": ["x" * 200]} for number in range(100)]
    spec = small_job(Constraints=many)
    outline = JobOutline.of(spec, cid=CID, size=30_000)
    assert 0 < sum(len(each.model_dump_json()) for each in outline.constraints) <= MAX_CONSTRAINTS
    assert outline.difference_to(spec) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("SpecCID", "../x"),
        ("SpecSize", 0),
        ("SpecSize", 2**20),
        ("Inputs", 257),
        ("Resources", {"CPU": -1.0}),
        ("Resources", {"Memory": 2**61}),
        ("ExecutionTimeout", float("inf")),
    ],
)
def test_what_no_job_can_have_is_refused(field, value):
    with pytest.raises(ValidationError):
        JobOutline.from_wire({**OUTLINE.to_wire(), field: value})
