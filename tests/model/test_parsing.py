"""From JSON, YAML or a mapping to a job: `parsing`, `shapes`, `validation`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bacalhau_p2p.errors import Fault, InvalidJob
from bacalhau_p2p.model.job import InputSource, JobSpec, SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping, parse_job
from bacalhau_p2p.model.validation import type_faults

JOBS = Path(__file__).parent / "jobs"


def docker(**task: Any) -> dict[str, Any]:
    return {"Tasks": [{"Engine": {"Type": "docker", "Params": {"Image": "busybox"}}, **task}]}


def faults(job: object) -> list[str]:
    with pytest.raises(InvalidJob) as caught:
        parse_job(job) if isinstance(job, str | bytes) else job_from_mapping(job)
    return [str(fault) for fault in caught.value.faults]


def test_a_docker_job_file_for_bacalhau_is_accepted_unchanged():
    spec = parse_job((JOBS / "docker.yaml").read_bytes())
    task = spec.task
    assert (spec.name, spec.count, spec.labels) == ("Count the rows", 1, {"team": "data"})
    assert task.engine == SpecConfig(
        type="docker",
        params={
            "Image": "ubuntu:22.04",
            "Entrypoint": ["/bin/bash"],
            "Parameters": ["-c", "wc -l /inputs/* > /outputs/rows.txt"],
            "EnvironmentVariables": {"LC_ALL": "C", "QUERY": "a=b"},
        },
    )
    assert task.input_sources == (
        InputSource(
            target="/inputs",
            alias="table",
            source=SpecConfig(
                type="s3", params={"Bucket": "open-tables", "Key": "2024/", "Region": "eu-west-1"}
            ),
        ),
    )
    assert task.publisher.type == "local"
    assert (task.network.type, task.network.domains) == ("HTTP", ("example.org",))
    assert (spec.resources.cpu, spec.resources.memory) == (0.5, 2**30)
    assert spec.execution_timeout == 600


def test_a_wasm_job_file_for_bacalhau_is_accepted_unchanged():
    task = parse_job((JOBS / "wasm.yaml").read_bytes()).task
    assert task.engine.params == {
        "EntryModule": "/main.wasm",
        "Entrypoint": "_start",
        "Parameters": ["--level", "9"],
        "EnvironmentVariables": {"HOME": "/"},
    }
    assert [source.source.type for source in task.input_sources] == ["inline", "localdirectory"]


def test_a_job_from_a_bacalhau_server_can_be_submitted_again():
    spec = parse_job((JOBS / "from_server.json").read_bytes())
    assert spec.name == "wasm of an older server"
    assert spec.task.publisher == SpecConfig(type="ipfs")
    assert spec.total_timeout == 1200
    # The module in the older form is an input source, and named by its target.
    assert spec.task.engine.params["EntryModule"] == "/modules/entry.wasm"
    assert spec.task.input_sources == (
        InputSource(
            target="/modules/entry.wasm",
            source=SpecConfig(type="inline", params={"URL": "data:application/wasm;base64,AGFzbQEAAAA="}),
        ),
    )


def test_the_wire_form_of_a_job_is_parsed_into_the_same_job():
    spec = parse_job((JOBS / "docker.yaml").read_bytes())
    assert job_from_mapping(spec.to_wire()) == spec
    assert JobSpec.from_wire(spec.to_wire()) == spec
    assert parse_job(spec.model_dump_json(by_alias=True)) == spec


@pytest.mark.parametrize("recase", [str.lower, str.upper, str.swapcase])
def test_keys_are_accepted_in_any_letter_case_and_those_of_users_are_kept(recase):
    job = yaml.safe_load((JOBS / "docker.yaml").read_text())
    job["Verifier"] = {"Type": "deterministic", "Params": {"Confidence": 2}}
    own = {"Labels", "EnvironmentVariables"}

    def recased(value: Any) -> Any:
        if isinstance(value, list):
            return [recased(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            recase(key): item if key.lower() in {name.lower() for name in own} else recased(item)
            for key, item in value.items()
        }

    assert job_from_mapping(recased(job)) == job_from_mapping(job)
    assert job_from_mapping({"LABELS": {"Team": "A"}, **docker()}).labels == {"Team": "A"}


def test_all_faults_are_reported_together_with_their_paths():
    assert faults(
        """
        job:
          bogus: 1
          count: 0
          type: service
          constraints: [{key: a, operator: in}, {key: b, operator: near, values: [c]}]
          labels: [a]
          tasks:
          - engine: {typ: docker, type: docker, params: {img: x, workingdirectory: a}}
            inputsources:
            - {target: inputs, source: {type: ipfs, params: {}}}
            - {target: /a/../b, source: {type: urlDownload, params: {url: "ftp://a"}}}
            resources: {cpu: lots, memory: 1Gi}
            timeouts: {executiontimeout: 30m, totaltimeout: 60}
            network: {type: tor, ports: [1]}
            resultpaths: [{name: stdout, path: /o}, {name: a/b, path: o}]
            env: {BACALHAU_X: 1}
        """
    ) == [
        "bogus: unknown key",
        "Tasks[0].Engine.typ: unknown key (did you mean Type?)",
        "Tasks[0].Engine.Params.img: unknown key (did you mean Image?)",
        "Tasks[0].Engine.Params.Image: missing",
        "Tasks[0].Engine.Params.WorkingDirectory: must be an absolute path, which begins with /, not 'a'",
        "Tasks[0].InputSources[0].Source.Params.CID: missing",
        "Tasks[0].InputSources[1].Source.Params.URL: must start with http:// or https://, not 'ftp://a'",
        "Tasks[0].Network.ports: not supported yet",
        "Type: service jobs never end and cannot run here; use batch or ops",
        "Count: must be at least 1, not 0",
        "Constraints[0]: operator in requires at least one value",
        "Constraints[1].Operator: unknown operator 'near' "
        "(known: =, ==, in, !=, notin, exists, !, >, gt, <, lt)",
        "Labels: must be a map",
        "Tasks[0].Env.BACALHAU_X: names that start with BACALHAU_ are reserved",
        "Tasks[0].InputSources[0].Target: must be an absolute path, which begins with /, not 'inputs'",
        "Tasks[0].InputSources[1].Target: must not contain '..' or NUL",
        "Tasks[0].ResultPaths[0].Name: stdout is reserved",
        "Tasks[0].ResultPaths[1].Name: must be a file name of at most 255 bytes without '/', not 'a/b'",
        "Tasks[0].ResultPaths[1].Path: must be an absolute path, which begins with /, not 'o'",
        "Tasks[0].Resources.CPU: 'lots' is not a number of cores, such as 0.5 or 500m",
        "Tasks[0].Network.Type: must be None, HTTP or Full, not 'tor'",
        "Tasks[0].Timeouts: TotalTimeout must be at least the sum of ExecutionTimeout and QueueTimeout",
    ]


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ("", ["the document is empty"]),
        ("3", ["a job must be a map, not a number"]),
        ("- a", ["a job must be a map, not a list"]),
        ({}, ["Tasks: missing"]),
        ({"Tasks": []}, ["Tasks: must have exactly one task, not 0"]),
        ({"Tasks": {}}, ["Tasks: must be a list"]),
        ({"Tasks": [3]}, ["Tasks[0]: must be a map, not 3"]),
        ({"Tasks": [{}]}, ["Tasks[0].Engine: missing"]),
        ({"Tasks": [{"Engine": "docker"}]}, ["Tasks[0].Engine: must be a map, not 'docker'"]),
        ({"Tasks": [{"Engine": {}}]}, ["Tasks[0].Engine.Type: missing"]),
        ({"Tasks": [{"Engine": {"Type": "docker"}}]}, ["Tasks[0].Engine.Params.Image: missing"]),
        (
            {"Tasks": [{"Engine": {"Type": "docker", "Params": []}}]},
            ["Tasks[0].Engine.Params: must be a map"],
        ),
        (docker(Nmae="x"), ["Tasks[0].Nmae: unknown key (did you mean Name?)"]),
        ({**docker(), "Count": 1001}, ["Count: must be at most 1000, not 1001"]),
        ({**docker(), "Count": 1.5}, ["Count: must be a whole number, not 1.5"]),
        ({**docker(), "Count": 1, "count": 2}, ["Count: duplicate key"]),
        ({**docker(), "Type": "cron"}, ["Type: unknown job type 'cron'; use batch or ops"]),
        (
            {**docker(), "Verifier": {"Params": {"Confidence": 2}}},
            ["Verifier.Type: missing"],
        ),
        (
            {**docker(), "Verifier": {"Type": "deterministic", "Params": {"Confidence": -1}}},
            ["Verifier.Params.Confidence: must be at least 0, not -1"],
        ),
        ({**docker(), "Labels": {"a": ["b"]}}, ["Labels.a: must be text"]),
        (
            {"APIVersion": "v1beta1", **docker()},
            ["APIVersion: a job has either Tasks, or a Spec as before Bacalhau v1.1; leave out one of them"],
        ),
        (
            docker(
                InputSources=[
                    {"Target": "/a", "Source": {"Type": "x"}},
                    {"Target": "/a/", "Source": {"Type": "x"}},
                ]
            ),
            ["Tasks[0]: InputSources[1].Target: /a is already InputSources[0].Target"],
        ),
        (
            docker(
                InputSources=[{"Target": "/data//x/.", "Source": {"Type": "x"}}],
                ResultPaths=[{"Name": "a", "Path": "/a"}, {"Name": "b", "Path": "/data/x/"}],
            ),
            ["Tasks[0]: ResultPaths[1].Path: /data/x is already InputSources[0].Target"],
        ),
        (
            docker(InputSources=[{"Target": "/proc/x", "Source": {"Type": "x"}}]),
            [
                "Tasks[0]: InputSources[0].Target: nothing of a job can be at /dev or in /proc and /sys of a"
                " container"
            ],
        ),
        (
            docker(InputSources=[{"Target": "/a", "Source": {"Type": "ipfs", "Params": {"CID": "notacid"}}}]),
            ["Tasks[0].InputSources[0].Source.Params.CID: 'notacid' is not a CID"],
        ),
        (
            docker(Network={"Type": "Full", "Domains": ["a.example"]}),
            ["Tasks[0].Network: Domains require the Type HTTP"],
        ),
    ],
)
def test_a_fault_names_its_path_and_problem(job, expected):
    assert faults(job) == expected


def test_a_fault_of_a_module_has_the_path_where_the_user_wrote_it():
    module = {"Target": "a/../x", "Source": {"Type": "inline", "Params": {"ur": "data:,"}}}
    engine = {"Type": "wasm", "Params": {"EntryModule": module}}
    assert faults({"Tasks": [{"Engine": engine}]}) == [
        "Tasks[0].Engine.Params.EntryModule.Source.Params.ur: unknown key (did you mean URL?)",
        "Tasks[0].Engine.Params.EntryModule.Source.Params.URL: missing",
        "Tasks[0].Engine.Params.EntryModule.Target: must not contain '..' or NUL",
    ]


def test_modules_at_relative_targets_begin_at_the_root():
    module = {"Source": {"Type": "inline", "Params": {"URL": "data:,x"}}, "Target": "main.wasm"}
    library = {**module, "Target": "lib/a.wasm"}
    params = {"EntryModule": "main.wasm", "ImportModules": ["lib/a.wasm", "/b.wasm"]}
    task = job_from_mapping(
        {"Tasks": [{"Engine": {"Type": "wasm", "Params": params}, "InputSources": [module, library]}]}
    ).task
    assert [source.target for source in task.input_sources] == ["/main.wasm", "/lib/a.wasm"]
    assert task.engine.params["EntryModule"] == "/main.wasm"
    assert task.engine.params["ImportModules"] == ["/lib/a.wasm", "/b.wasm"]
    fault = "Tasks[0].InputSources[0].Target: must be an absolute path, which begins with /, not 'main.wasm'"
    assert fault in faults(docker(InputSources=[module]))


def test_empty_parameters_of_an_engine_are_not_given():
    params = {"Image": "busybox", "WorkingDirectory": "", "Entrypoint": None, "Parameters": ["true"]}
    task = job_from_mapping({"Tasks": [{"Engine": {"Type": "docker", "Params": params}}]}).task
    assert task.engine.params == {"Image": "busybox", "Parameters": ["true"]}
    nameless = {"Tasks": [{"Engine": {"Type": "docker", "Params": {"Image": ""}}}]}
    assert faults(nameless) == ["Tasks[0].Engine.Params.Image: missing"]


def test_import_modules_of_older_jobs_become_inputs_with_their_alias():
    source = {"Type": "ipfs", "Params": {"CID": "bafkqaaa"}}
    params = {"EntryModule": "/main.wasm", "ImportModules": ["/a", {"Alias": "lib", "Source": source}]}
    inputs = [{"Target": "/main.wasm", "Source": source}]
    task = job_from_mapping(
        {"Tasks": [{"Engine": {"Type": "Wasm", "Params": params}, "InputSources": inputs}]}
    ).task
    assert task.engine.params["ImportModules"] == ["/a", "/modules/import-1.wasm"]
    assert [(s.target, s.alias) for s in task.input_sources] == [
        ("/main.wasm", ""),
        ("/modules/import-1.wasm", "lib"),
    ]


def test_text_keeps_its_original_spelling():
    spec = parse_job(
        "labels: {version: 1.10, octal: 010, no: no, time: 1:30, day: 2024-01-01, on: true, none: }\n"
        "tasks: [{engine: {type: docker, params: {image: x, parameters: [-n, 1.10, 0x1F, true]}}}]"
    )
    assert spec.labels == {
        "version": "1.10",
        "octal": "010",
        "no": "no",
        "time": "1:30",
        "day": "2024-01-01",
        "on": "true",
        "none": "",
    }
    assert spec.task.engine.params["Parameters"] == ["-n", "1.10", "0x1F", "true"]


def test_params_of_an_unknown_type_are_passed_on_unchanged():
    params = {"some": {"Nested": [1, 2.5, True, None, "x"]}}
    spec = job_from_mapping({"tasks": [{"engine": {"type": "Flibble", "params": params}}]})
    assert spec.task.engine == SpecConfig(type="flibble", params=params)
    assert [type(n) for n in spec.task.engine.params["some"]["Nested"]][:2] == [int, float]


def test_empty_texts_mean_the_default():
    job = {**docker(Name="", Publisher={"Type": "", "Params": {}}), "Namespace": "", "Type": "", "Name": ""}
    spec = job_from_mapping(job)
    assert (spec.namespace, spec.type, spec.task.name, spec.task.publisher.type) == (
        "default",
        "batch",
        "main",
        "ipfs",
    )


@pytest.mark.parametrize(
    ("engine", "count", "verifier"),
    [("wasm", 1, "noop"), ("wasm", 3, "deterministic"), ("docker", 3, "noop")],
)
def test_the_default_verifier_depends_on_engine_and_count(engine, count, verifier):
    params = {"wasm": {"EntryModule": "/m"}, "docker": {"Image": "x"}}[engine]
    inputs = [{"Target": "/m", "Source": {"Type": "ipfs", "Params": {"CID": "bafkqaaa"}}}]
    task = {"Engine": {"Type": engine, "Params": params}, "InputSources": inputs}
    job = {"Count": count, "Tasks": [task]}
    assert job_from_mapping(job).verifier.type == verifier
    assert job_from_mapping({**job, "Verifier": {"Type": "NoOp"}}).verifier.type == "noop"


def test_each_unknown_type_is_a_fault():
    spec = job_from_mapping(
        {
            **docker(InputSources=[{"Target": "/a", "Source": {"Type": "tape"}}], Publisher={"Type": "fax"}),
            "Verifier": {"Type": "oracle"},
        }
    )
    assert type_faults(spec) == []
    assert type_faults(
        spec, engines={"wasm"}, sources=["url", "ipfs"], publishers=[], verifiers=["oracle"]
    ) == [
        Fault("Tasks[0].Engine.Type", "unknown engine 'docker' (known: wasm)"),
        Fault("Tasks[0].InputSources[0].Source.Type", "unknown storage type 'tape' (known: ipfs, url)"),
        Fault("Tasks[0].Publisher.Type", "unknown publisher 'fax' (known: none)"),
    ]


def test_a_job_too_large_for_its_announcement_is_rejected_with_advice():
    def with_text(size):
        params = {"URL": "data:," + "x" * size}
        return docker(InputSources=[{"Target": "/a", "Source": {"Type": "inline", "Params": params}}])

    job_from_mapping(with_text(255_000))
    (fault,) = faults(with_text(300_000))
    assert fault.endswith("add the data to a node and use its CID as an input")


def test_files_by_url_may_share_a_folder():
    source = {"Type": "url", "Params": {"URL": "https://a.example/b"}}
    inputs = [{"Target": "/inputs", "Source": source}, {"Target": "/inputs/", "Source": source}]
    assert len(job_from_mapping(docker(InputSources=inputs)).task.input_sources) == 2


def test_the_number_of_reported_faults_is_bounded():
    assert len(faults({f"Count{i}": 1 for i in range(40_000)})) == 100


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
_keys = st.sampled_from(
    [
        *("Tasks", "engine", "Type", "Params", "docker", "wasm", "Image", "EntryModule", "ImportModules"),
        *("Source", "InputSources", "Target", "Count", "Labels", "Env", "Verifier", "Network", "Timeouts"),
    ]
)
_jobs = st.recursive(
    _json | _keys, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=6)
)


@given(_jobs)
def test_any_value_is_a_job_or_a_list_of_faults(value):
    spec, found = None, ()
    try:
        spec = job_from_mapping(value)
    except InvalidJob as error:
        found = error.faults
    if spec is not None:
        assert job_from_mapping(spec.to_wire()) == spec
    else:
        assert found
        # None has a text of pydantic.
        assert not [fault for fault in found if "Input should" in fault.problem]
