from __future__ import annotations

import pytest

from bacalhau_p2p.errors import Fault, InvalidJob
from bacalhau_p2p.page.submission import faults_by_field, job_of_form

CID = "bafkreifp7zsurwf2vt5aybo27o3tohbzr7slal27txu2tzagu2ar42e2cu"


def test_the_docker_form_makes_a_docker_job():
    spec = job_of_form(
        "docker",
        {
            "image": " busybox ",
            "command": "sh -c 'wc -l /inputs/*'",
            "input": f"ipfs://{CID}",
            "count": "2",
            "name": "lines",
            "cpu": "0.5",
            "memory": "1gb",
            "verify": "yes",
        },
    )
    task = spec.task
    assert task.engine.params["Image"] == "busybox"
    assert list(task.engine.params["Parameters"]) == ["sh", "-c", "wc -l /inputs/*"]
    assert (spec.count, spec.name, spec.verifier.type) == (2, "lines", "deterministic")
    assert (task.resources.cpu, task.resources.memory) == ("0.5", "1gb")
    (source,) = task.input_sources
    assert (source.target, source.source.type, source.source.params["CID"]) == ("/inputs", "ipfs", CID)


def test_the_webassembly_form_makes_a_wasm_job_whose_module_is_an_input():
    spec = job_of_form("wasm", {"module": CID, "command": "-n 5", "input": "https://example.org/text.txt"})
    targets = {source.target: source.source.type for source in spec.task.input_sources}
    assert spec.task.engine.type == "wasm"
    assert targets[spec.task.engine.params["EntryModule"]] == "ipfs"
    assert targets["/inputs"] == "urldownload"


def test_the_job_file_form_takes_yaml():
    assert job_of_form("file", {"text": "Tasks: [{Engine: {Type: noop}}]"}).task.engine.type == "noop"


@pytest.mark.parametrize(
    ("kind", "form", "field"),
    [
        ("docker", {}, "image"),
        ("docker", {"image": "busybox", "command": "echo 'x"}, "command"),
        ("docker", {"image": "busybox", "count": "many"}, "count"),
        ("docker", {"image": "busybox", "count": "0"}, "count"),
        ("docker", {"image": "busybox", "cpu": "lots"}, "cpu"),
        ("docker", {"image": "busybox", "memory": "1 zebra"}, "memory"),
        ("docker", {"image": "busybox", "input": "ipfs://notacid"}, "input"),
        ("wasm", {}, "module"),
        ("wasm", {"module": "notacid"}, "module"),
    ],
)
def test_a_fault_stands_at_its_field(kind, form, field):
    with pytest.raises(InvalidJob) as caught:
        job_of_form(kind, form)
    by_field, others = faults_by_field(list(caught.value.faults), kind)
    assert list(by_field) == [field]
    assert others == []


def test_faults_of_a_file_and_those_without_a_field_are_listed_by_path():
    with pytest.raises(InvalidJob) as caught:
        job_of_form("file", {"text": "Tasks: [{Engine: {Type: docker}}]"})
    assert faults_by_field(list(caught.value.faults), "file") == ({}, list(caught.value.faults))
    assert faults_by_field([Fault("Deal", "odd")], "docker") == ({}, [Fault("Deal", "odd")])
