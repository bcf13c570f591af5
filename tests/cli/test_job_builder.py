"""Jobs from flags."""

from __future__ import annotations

from typing import Any

import click
import pytest

from bacalhau_p2p.cli.job_builder import (
    InputFlag,
    build_job,
    check_targets,
    parse_environment,
    parse_input,
    parse_labels,
    parse_outputs,
    relative_target,
)
from bacalhau_p2p.client.job_map import docker_engine, ipfs_source, wasm_engine
from bacalhau_p2p.model.parsing import job_from_mapping

URL = {"Type": "urlDownload", "Params": {"URL": "https://example.org:8080/a.csv?x=1"}}

NOTHING: dict[str, Any] = {
    "outputs": (),
    "env": (),
    "publisher": None,
    "cpu": None,
    "memory": None,
    "gpu": None,
    "network": None,
    "domains": (),
    "timeout": None,
    "queue_timeout": None,
    "count": 1,
    "type": None,
    "replicas": None,
    "labels": (),
    "verifier": None,
    "confidence": None,
    "min_bids": None,
    "name": None,
    "namespace": None,
    "priority": None,
    "constraints": (),
    "task_name": None,
    "total_timeout": None,
    "disk": None,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ipfs://bafy", InputFlag(ipfs_source("bafy"))),
        ("ipfs://bafy/a/b.txt", InputFlag(ipfs_source("bafy/a/b.txt"))),
        ("ipfs://bafy/a/:/data", InputFlag(ipfs_source("bafy/a"), "/data")),
        ("ipfs://bafy:/data", InputFlag(ipfs_source("bafy"), "/data")),
        ("ipfs://bafy,dst=/data", InputFlag(ipfs_source("bafy"), "/data")),
        ("src=ipfs://bafy,dst=/data", InputFlag(ipfs_source("bafy"), "/data")),
        ("bafy:/data", InputFlag({}, "/data", "bafy")),
        ("some/folder", InputFlag({}, path="some/folder")),
        ("/abs/folder:/data", InputFlag({}, "/data", "/abs/folder")),
        ("file:///abs/a%20folder:/data", InputFlag({}, "/data", "/abs/a folder")),
        ("https://example.org:8080/a.csv?x=1", InputFlag(URL)),
        ("https://example.org:8080/a.csv?x=1:/data", InputFlag(URL, "/data")),
        (
            "local:///srv/data:/data",
            InputFlag({"Type": "localDirectory", "Params": {"SourcePath": "/srv/data"}}, "/data"),
        ),
        (
            "s3://bucket/some/key",
            InputFlag({"Type": "s3", "Params": {"Bucket": "bucket", "Key": "some/key"}}),
        ),
    ],
)
def test_an_input_flag_is_parsed(text, expected):
    assert parse_input(text) == expected


@pytest.mark.parametrize("text", ["", ":/data", "ipfs://bafy,dst=data", "gopher://x"])
def test_an_invalid_input_is_a_usage_error(text):
    with pytest.raises(click.UsageError):
        parse_input(text)


@pytest.mark.parametrize(
    ("text", "target"),
    [("docs:a/b", "a/b"), ("a:b:c", "c"), ("docs", ""), ("docs:", ""), (":a", ""), ("docs:/data", "")],
)
def test_a_relative_target_is_what_follows_the_last_colon(text, target):
    assert relative_target(text) == target


@pytest.mark.parametrize("text", ["some/folder:/data", "some/folder,dst=/data", "src=some/folder,dst=/data"])
def test_an_input_that_is_added_first_can_be_divided(text):
    partition = {"Partition": {"Type": "object"}}
    expected = InputFlag({}, "/data", "some/folder", partition)
    assert parse_input(f"{text},opt=partition=object") == expected
    by_cid = {"Type": "ipfs", "Params": {"CID": "bafy/a", **partition}}
    assert parse_input("ipfs://bafy/a,opt=partition=object") == InputFlag(by_cid)


def test_two_inputs_at_the_same_path_are_a_usage_error_that_says_how():
    with pytest.raises(click.UsageError) as caught:
        check_targets(
            [(InputFlag({}, path="a/data"), "/inputs"), (InputFlag(ipfs_source("bafy/data")), "/inputs/")]
        )
    assert caught.value.message == (
        "inputs a/data and ipfs://bafy/data would both be at /inputs; say where each belongs, such as"
        " -i a/data:/inputs/data -i ipfs://bafy/data:/inputs/data-2"
    )
    check_targets([(InputFlag({}, path="a"), "/inputs"), (InputFlag({}, path="b"), "/inputs/b")])


def test_the_folder_outputs_is_a_result_unless_its_name_or_path_is_used():
    assert parse_outputs([]) == [{"Name": "outputs", "Path": "/outputs"}]
    assert parse_outputs(["a:/b"]) == [{"Name": "a", "Path": "/b"}, {"Name": "outputs", "Path": "/outputs"}]
    assert parse_outputs(["outputs:/b"]) == [{"Name": "outputs", "Path": "/b"}]
    assert parse_outputs(["a:/outputs/"]) == [{"Name": "a", "Path": "/outputs/"}]
    assert parse_outputs(["a:/outputs"]) == [{"Name": "a", "Path": "/outputs"}]
    with pytest.raises(click.UsageError):
        parse_outputs(["outputs"])


def test_variables_get_their_values_from_the_flag_or_from_this_environment():
    assert parse_environment(["A=1=2", "B", "C="], {"B": "here"}) == {"A": "1=2", "B": "here", "C": ""}
    with pytest.raises(click.UsageError, match="not set in this environment"):
        parse_environment(["B"], {})
    with pytest.raises(click.UsageError, match=r"^--env '=1' has no name: use NAME=VALUE$"):
        parse_environment(["=1"], {})


def test_labels_are_parsed():
    assert parse_labels(["a=b=c", "d"]) == {"a": "b=c", "d": ""}
    with pytest.raises(click.UsageError, match=r"^--label '=b' has no name: use K=V$"):
        parse_labels(["a", "=b"])


@pytest.mark.parametrize("network", [None, "none", "full"])
def test_domains_need_the_network_that_has_them(network):
    flags = {**NOTHING, "network": network, "domains": ("example.org",)}
    with pytest.raises(click.UsageError, match=r"^--domain needs --network http$"):
        build_job(docker_engine("busybox", (), entrypoint=(), workdir=None), [], flags, {})


def test_a_job_without_flags_has_only_what_is_required():
    job = build_job(docker_engine("busybox", (), entrypoint=(), workdir=None), [], NOTHING, {})
    assert job == {
        "Type": "batch",
        "Count": 1,
        "Tasks": [
            {
                "Name": "main",
                "Engine": {"Type": "docker", "Params": {"Image": "busybox"}},
                "ResultPaths": [{"Name": "outputs", "Path": "/outputs"}],
            }
        ],
    }
    assert job_from_mapping(job).task.engine.type == "docker"


def test_the_kind_of_a_job_is_a_flag():
    engine = docker_engine("busybox", (), entrypoint=(), workdir=None)
    ops = job_from_mapping(build_job(engine, [], {**NOTHING, "type": "ops"}, {}))
    divided = job_from_mapping(build_job(engine, [], {**NOTHING, "count": 3, "replicas": 2}, {}))
    assert (ops.is_ops, ops.divided) == (True, False)
    assert (divided.is_ops, divided.divided, divided.slots) == (False, True, 6)


def test_every_flag_sets_its_field_of_the_job():
    flags = {
        **NOTHING,
        "env": ("A=1",),
        "publisher": "local",
        "cpu": "500m",
        "memory": "1Gi",
        "gpu": "1",
        "network": "http",
        "domains": ("example.org",),
        "timeout": "30m",
        "queue_timeout": "90",
        "count": 3,
        "labels": ("team=a",),
        "confidence": 2,
        "min_bids": 4,
    }
    engine = docker_engine("busybox", ("-c", "x"), entrypoint=("/bin/sh",), workdir="/work")
    spec = job_from_mapping(build_job(engine, [parse_input("ipfs://bafkqaaa").at("/inputs")], flags, {}))
    task = spec.task
    assert task.engine.params == {
        "Image": "busybox",
        "Entrypoint": ["/bin/sh"],
        "Parameters": ["-c", "x"],
        "WorkingDirectory": "/work",
    }
    assert (spec.count, spec.min_bids, spec.labels) == (3, 4, {"team": "a"})
    assert (spec.verifier.type, spec.verifier.params) == ("deterministic", {"Confidence": 2})
    assert (task.env, task.publisher.type) == ({"A": "1"}, "local")
    assert (spec.resources.cpu, spec.resources.memory, spec.resources.gpu) == (0.5, 2**30, 1)
    assert (task.network.type, task.network.domains) == ("HTTP", ("example.org",))
    assert (spec.execution_timeout, spec.queue_timeout) == (1800, 90)
    assert [source.target for source in task.input_sources] == ["/inputs"]


def test_a_wasm_engine_has_its_module_entry_point_and_arguments():
    assert wasm_engine("/modules/a.wasm", ("x",), entrypoint="main") == {
        "Type": "wasm",
        "Params": {"EntryModule": "/modules/a.wasm", "Entrypoint": "main", "Parameters": ["x"]},
    }
