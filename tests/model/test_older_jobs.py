"""Jobs of Bacalhau v1.0 run as jobs of today."""

from __future__ import annotations

from typing import Any

import pytest

from bacalhau_p2p.errors import InvalidJob
from bacalhau_p2p.model.parsing import job_from_mapping, parse_job

JOB_FILE = """
APIVersion: v1beta1
Spec:
  Engine: Docker
  Verifier: Noop
  PublisherSpec: {Type: S3, Params: {Bucket: results, Key: "job-{jobID}", Region: eu-west-1}}
  Docker:
    Image: ubuntu:latest
    Entrypoint: [/bin/bash, -c, ls /input_custom]
  inputs:
    - StorageSource: S3
      S3: {Bucket: data, Key: set1/, Region: eu-west-1}
      path: /input_custom
  outputs:
    - {StorageSource: IPFS, Name: output_custom, path: /output_custom}
  Deal: {Concurrency: 2, Confidence: 0, MinBids: 3}
"""
DESCRIBED = """
Job:
  APIVersion: V1beta1
  Metadata: {ID: 92d5d4ee-3765-4f78-8353-623f5f26df08, ClientID: x, Requester: {}}
  Spec:
    Annotations: [hello, world]
    Deal: {Concurrency: 1}
    Docker:
      Image: busybox
      Parameters: [echo, hi]
      WorkingDirectory: ""
    Engine: Docker
    EngineSpec: {Type: docker, Params: {Image: busybox, Parameters: [echo, hi]}}
    Language: {JobContext: {}}
    Network: {Type: None}
    NodeSelectors: [{Key: zone, Operator: in, Values: [a, b]}]
    Publisher: IPFS
    PublisherSpec: {Type: IPFS}
    Resources: {CPU: 500m, GPU: "", Memory: 1gb}
    Timeout: 1800
    Verifier: Deterministic
    Wasm: {EntryModule: {}}
    inputs: [{CID: bafkqaaa, StorageSource: IPFS, path: /inputs}]
    outputs: [{Name: outputs, StorageSource: IPFS, path: /outputs}]
  Status: {Requester: {}}
State: {State: Completed}
"""


def test_a_job_file_of_v1_0_is_converted():
    job = parse_job(JOB_FILE)
    task = job.task
    assert (job.count, job.min_bids, job.verifier.type) == (2, 3, "noop")
    assert task.engine.params["Image"] == "ubuntu:latest"
    assert list(task.engine.params["Entrypoint"]) == ["/bin/bash", "-c", "ls /input_custom"]
    assert [(s.source.type, s.target) for s in task.input_sources] == [("s3", "/input_custom")]
    assert task.input_sources[0].source.params["Bucket"] == "data"
    assert [(r.name, r.path) for r in task.result_paths] == [("output_custom", "/output_custom")]
    assert (task.publisher.type, task.publisher.params["Key"]) == ("s3", "job-{jobID}")


def test_what_describe_of_v1_0_printed_is_converted():
    job = parse_job(DESCRIBED)
    assert job.labels == {"hello": "", "world": ""}
    assert [(c.key, c.operator, c.values) for c in job.constraints] == [("zone", "in", ("a", "b"))]
    assert (job.task.resources.cpu, job.task.resources.memory) == ("500m", "1gb")
    assert (job.execution_timeout, job.verifier.type) == (1800, "deterministic")
    assert list(job.task.engine.params["Parameters"]) == ["echo", "hi"]
    assert job.task.input_sources[0].source.params == {"CID": "bafkqaaa"}


def test_a_wasm_job_of_v1_0_has_its_module_as_an_input():
    module = {"StorageSource": "IPFS", "CID": "bafkqaaa"}
    wasm = {"EntryModule": module, "EntryPoint": "_start", "Parameters": ["x"], "ImportModules": [module]}
    task = job_from_mapping({"Spec": {"Engine": "wasm", "Wasm": wasm}}).task
    assert task.engine.params["EntryModule"] == "/modules/entry.wasm"
    assert [source.target for source in task.input_sources] == [
        "/modules/entry.wasm",
        "/modules/import-0.wasm",
    ]


def faults(spec: Any) -> list[str]:
    with pytest.raises(InvalidJob) as refused:
        job_from_mapping({"APIVersion": "v1beta1", "Spec": spec})
    return [str(fault) for fault in refused.value.faults]


def test_what_there_is_no_more_is_refused_with_what_to_do():
    problem = "only docker, wasm and noop jobs of v1.0 can run"
    assert faults({"Engine": "language"}) == [f"Spec.Engine: language: {problem}"]
    assert faults({}) == [f"Spec.Engine: missing: {problem}"]
    assert faults({"Engine": "noop", "Language": {"Command": "x"}}) == [
        "Spec.language: unknown key of a job of v1.0; write the job with Tasks"
    ]
    assert faults({"Engine": "docker", "Docker": {}}) == ["Tasks[0].Engine.Params.Image: missing"]


@pytest.mark.parametrize("spec", [None, [], 7, {"Engine": 7}, {"Engine": "wasm", "inputs": [7], "Deal": []}])
def test_any_spec_is_a_job_or_a_list_of_faults(spec):
    assert faults(spec)
