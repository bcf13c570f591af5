"""Builders make job specs from arguments, and name the argument that is wrong. Covers `specs`, `job_map`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bacalhau_p2p.client.specs import divided, docker, wasm, with_input
from bacalhau_p2p.errors import InvalidJob
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.parsing import job_from_mapping
from tests.support.results import result_cid

CID = result_cid("data")
OUTPUTS = {"Name": "outputs", "Path": "/outputs"}


def ipfs(target: str, cid: str = CID) -> dict[str, Any]:
    return {"Target": target, "Source": {"Type": "ipfs", "Params": {"CID": cid}}}


def test_a_docker_job_has_its_image_and_its_command():
    assert docker("busybox", "echo", "hello") == job_from_mapping(
        {
            "Tasks": [
                {
                    "Engine": {
                        "Type": "docker",
                        "Params": {"Image": "busybox", "Parameters": ["echo", "hello"]},
                    },
                    "ResultPaths": [OUTPUTS],
                }
            ]
        }
    )


def test_an_input_is_divided():
    job = docker("busybox", inputs={"/inputs": divided(CID, "regex", pattern="^.")}, count=4)
    (source,) = job.task.input_sources
    assert source.source.params == {"CID": CID, "Partition": {"Type": "regex", "Pattern": "^."}}
    assert job.partitions == 4
    job = wasm(CID, inputs={"/inputs": divided("s3://bucket/prefix/")}, count=2)
    params = {"Bucket": "bucket", "Key": "prefix/", "Partition": {"Type": "object"}}
    assert job.task.input_sources[-1].source.params == params
    with pytest.raises(InvalidJob, match="Pattern: missing"):
        docker("busybox", inputs={"/inputs": divided(CID, "regex")})


def test_every_option_is_part_of_the_job():
    spec = docker(
        "busybox",
        entrypoint=["/bin/sh", "-c"],
        workdir="/work",
        name="all of it",
        namespace="mine",
        labels={"a": "b"},
        type="batch",
        count=3,
        replicas=4,
        constraints="zone=lab",
        priority=4,
        verifier="deterministic",
        confidence=2,
        min_bids=5,
        inputs={"/a": CID, "/b": f"ipfs://{CID}/x", "/c": {"Type": "s3", "Params": {"Bucket": "some"}}},
        outputs={"more": "/more"},
        env={"A": "1"},
        publisher="local",
        cpu=0.5,
        memory="256mb",
        disk="1gb",
        gpu=1,
        network="http",
        domains=["example.org"],
        timeout="10m",
        queue_timeout=60,
        total_timeout=3600,
    )
    assert spec == job_from_mapping(
        {
            "Name": "all of it",
            "Namespace": "mine",
            "Labels": {"a": "b"},
            "Count": 3,
            "Constraints": [{"Key": "zone", "Operator": "=", "Values": ["lab"]}],
            "Priority": 4,
            "Verifier": {"Type": "deterministic", "Params": {"Confidence": 2}},
            "Deal": {"MinBids": 5, "Replicas": 4},
            "Tasks": [
                {
                    "Engine": {
                        "Type": "docker",
                        "Params": {
                            "Image": "busybox",
                            "Entrypoint": ["/bin/sh", "-c"],
                            "WorkingDirectory": "/work",
                        },
                    },
                    "InputSources": [
                        ipfs("/a"),
                        ipfs("/b", f"{CID}/x"),
                        {"Target": "/c", "Source": {"Type": "s3", "Params": {"Bucket": "some"}}},
                    ],
                    "ResultPaths": [{"Name": "more", "Path": "/more"}, OUTPUTS],
                    "Env": {"A": "1"},
                    "Publisher": {"Type": "local"},
                    "Resources": {"CPU": "0.5", "Memory": "256mb", "Disk": "1gb", "GPU": "1"},
                    "Network": {"Type": "HTTP", "Domains": ["example.org"]},
                    "Timeouts": {"ExecutionTimeout": 600, "QueueTimeout": 60, "TotalTimeout": 3600},
                }
            ],
        }
    )


def test_an_ops_job_runs_on_every_node_and_what_it_cannot_have_is_told():
    assert docker("busybox", type="ops").is_ops
    with pytest.raises(InvalidJob, match="leave out Count"):
        docker("busybox", type="ops", count=2)
    with pytest.raises(InvalidJob) as caught:
        docker("busybox", type="service", replicas=-1)  # type: ignore[arg-type]
    assert sorted(fault.path for fault in caught.value.faults) == ["replicas", "type"]


def test_a_wasm_job_has_its_modules_as_inputs():
    spec = wasm(CID, "-n", "3", entrypoint="main", imports=["https://example.org/lib.wasm"])
    assert spec.task.engine.params == {
        "EntryModule": "/modules/entry.wasm",
        "ImportModules": ["/modules/import-0.wasm"],
        "Entrypoint": "main",
        "Parameters": ["-n", "3"],
    }
    assert [(each.target, each.source.type) for each in spec.task.input_sources] == [
        ("/modules/entry.wasm", "ipfs"),
        ("/modules/import-0.wasm", "urldownload"),
    ]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"memory": "much"}, r"^memory: "),
        ({"count": 0}, r"^count: must be at least 1, not 0$"),
        ({"env": {"A=B": "1"}}, r"^env"),
        ({"network": "some"}, r"^network: must be None, HTTP or Full, not 'some'$"),
        ({"domains": ["example.org"]}, r"^network: Domains require the Type HTTP$"),
        ({"domains": "example.org"}, r"^domains: must be a list of words, such as \['example.org'\]$"),
        ({"timeout": "soon"}, r"^timeout: "),
        ({"timeout": 60, "total_timeout": 1}, r"^total_timeout: TotalTimeout must be at least the sum"),
        ({"confidence": -1}, r"^confidence: must be at least 0, not -1$"),
        ({"constraints": "zone==="}, r"^constraints: "),
        ({"inputs": {"data": CID}}, r"^inputs\['data'\]: "),
        (
            {"inputs": {"/data": "texts"}},
            r"^inputs\['/data'\]: 'texts' is neither a CID nor a URL; add a local file or folder first: "
            r"await client.add\(...\)$",
        ),
        ({"inputs": {"/data": Path("texts")}}, r"^inputs\['/data'\]: 'texts' is neither a CID nor a URL"),
        ({"inputs": {"/data": 3}}, r"^inputs\['/data'\]: must be a CID, a URL or a source, not int$"),
        ({"inputs": {"/data": "ftp://x/y"}}, r"^inputs\['/data'\]: unknown scheme ftp in 'ftp://x/y'; use "),
        ({"inputs": {"/a": CID, "/b": {"Type": "s3"}}}, r"^inputs\['/b'\]: missing$"),
        ({"outputs": {"a": "/x", "b": "/x"}}, r"/x is already"),
        ({"outputs": {"a": "x"}}, r"^outputs\['a'\]: "),
        ({"publisher": {"Type": "s3"}}, r"^publisher: missing; publisher: missing$"),
        ({"workdir": "work"}, r"^workdir: "),
        ({"entrypoint": "/bin/sh"}, r"^entrypoint: must be a list of words"),
    ],
)
def test_an_invalid_value_is_an_error_that_names_the_argument(options: dict[str, Any], problem: str):
    with pytest.raises(InvalidJob, match=problem):
        docker("busybox", **options)


def test_an_invalid_image_or_module_is_named():
    with pytest.raises(InvalidJob, match=r"^image: "):
        docker("Not An Image")
    with pytest.raises(InvalidJob, match=r"^module: 'main.wasm' is neither a CID nor a URL"):
        wasm("main.wasm")
    with pytest.raises(InvalidJob, match=r"^imports\[0\]: 'lib.wasm' is neither a CID nor a URL"):
        wasm(CID, imports=["lib.wasm"])


def test_an_unknown_argument_is_an_error_with_a_suggestion():
    options: dict[str, Any] = {"memroy": "1gb"}
    with pytest.raises(TypeError, match=r"^docker\(\) has no argument 'memroy'; did you mean 'memory'\?$"):
        docker("busybox", **options)


def test_an_input_takes_the_place_of_the_one_at_its_target():
    spec = docker("busybox", inputs={"/inputs": CID, "/other": CID})
    other = result_cid("other")
    assert [
        (each.target, each.source.params["CID"]) for each in with_input(spec, other).task.input_sources
    ] == [
        ("/other", CID),
        ("/inputs", other),
    ]
    with pytest.raises(InvalidJob, match=r"^input: 'nothing' is neither a CID nor a URL"):
        with_input(spec, "nothing")


def test_a_spec_is_what_every_node_reads():
    spec = docker("busybox", "true")
    assert JobSpec.from_wire(spec.to_wire()) == spec
