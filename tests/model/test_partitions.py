"""Into which parts a job is divided: `partitions`, and what a job says about it."""

from __future__ import annotations

import pytest

from bacalhau_p2p.errors import InvalidJob
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.partitions import Partition, is_divided, part_of


def job(count=1, *, engine="noop", inputs=(), **extra):
    sources = [{"Target": f"/in{n}", "Source": {"Type": "plug", "Params": p}} for n, p in enumerate(inputs)]
    task = {"Engine": {"Type": engine}, "InputSources": sources}
    return job_from_mapping({"Count": count, "Tasks": [task], **extra})


def faults(**given):
    with pytest.raises(InvalidJob) as caught:
        job(**given)
    return [str(fault) for fault in caught.value.faults]


BY_OBJECT = {"Partition": {"Type": "object"}}


def test_a_job_is_divided_if_an_input_is_or_if_it_says_so():
    assert job(3, inputs=[BY_OBJECT]).divided
    assert job(3, Deal={"Replicas": 1}).divided
    assert not job(3).divided
    assert not job(3, inputs=[{"Partition": {"Type": "none"}}, {"Partition": {}}]).divided


def test_an_input_that_names_its_part_is_not_divided():
    assert not is_divided({"Partition": {"Type": "object", "Index": 1, "Count": 4}})


def test_each_part_of_a_divided_input_is_named_and_others_are_whole():
    assert part_of({"Key": "a/", **BY_OBJECT}, Partition(1, 3)) == {
        "Key": "a/",
        "Partition": {"Type": "object", "Index": 1, "Count": 3},
    }
    assert part_of({"Key": "a/"}, Partition(1, 3)) == {"Key": "a/"}


def test_every_partition_is_run_by_as_many_nodes_as_are_to_agree():
    assert (job(4, inputs=[BY_OBJECT]).group_size, job(4, inputs=[BY_OBJECT]).slots) == (1, 4)
    verified = job(4, inputs=[BY_OBJECT], Verifier={"Type": "deterministic", "Params": {"Confidence": 3}})
    assert (verified.group_size, verified.slots) == (3, 12)
    assert [verified.partition_of(slot) for slot in (0, 2, 3, 11)] == [
        Partition(0, 4), Partition(0, 4), Partition(1, 4), Partition(3, 4)
    ]  # fmt: skip
    replicated = job(4, Deal={"Replicas": 2})
    assert (replicated.group_size, replicated.partition_of(7)) == (2, Partition(3, 4))


def test_the_executions_of_other_jobs_do_the_same_where_results_are_compared_or_nodes_differ():
    assert job(3).partition_of(2) == Partition(2, 3)
    assert job(3, Verifier={"Type": "deterministic"}).partition_of(2) == Partition(0, 1)
    assert job(Type="ops").partition_of(2) == Partition(0, 1)


def test_only_replicas_of_a_divided_wasm_job_are_compared_by_default():
    module = {"EntryModule": "/in0"}
    task = {
        "Engine": {"Type": "wasm", "Params": module},
        "InputSources": [{"Target": "/in0", "Source": {"Type": "plug"}}],
    }
    assert job_from_mapping({"Count": 3, "Deal": {"Replicas": 1}, "Tasks": [task]}).verifier.type == "noop"
    assert job_from_mapping({"Count": 3, "Deal": {"Replicas": 2}, "Tasks": [task]}).deterministic


def test_an_ops_job_has_no_count_no_partitions_and_nothing_to_compare():
    assert "an ops job runs once on each node" in faults(Type="ops", count=2)[0]
    assert "an ops job is not divided" in faults(Type="ops", inputs=[BY_OBJECT])[0]
    assert "cannot be compared" in faults(Type="ops", Verifier={"Type": "deterministic"})[0]


@pytest.mark.parametrize("kind", ["daemon", "service"])
def test_a_job_that_never_ends_is_refused_with_a_sentence(kind):
    assert faults(Type=kind) == [f"Type: {kind} jobs never end and cannot run here; use batch or ops"]


def test_a_job_has_no_more_executions_than_others_may_have():
    assert (
        "400 partitions on 3 nodes each are more than the 1,000" in faults(count=400, Deal={"Replicas": 3})[0]
    )
