from __future__ import annotations

from typing import Any

import pytest

from bacalhau_p2p.errors import Fault
from bacalhau_p2p.executors.docker import DockerExecutor, container_name
from bacalhau_p2p.executors.docker_params import DockerParams, read_params
from bacalhau_p2p.model.job import SpecConfig

VARIABLES = "Params.EnvironmentVariables"


def docker(**params: Any) -> SpecConfig:
    return SpecConfig(type="docker", params=params)


def test_bacalhau_s_own_parameters_are_read() -> None:
    engine = docker(
        Image="ubuntu:22.04",
        Entrypoint=["/bin/bash", "-c"],
        Parameters=["echo $A"],
        EnvironmentVariables=["A=1=2", "EMPTY=", "ALONE"],
        WorkingDirectory="/work",
    )
    assert read_params(engine) == (
        DockerParams(
            image="ubuntu:22.04",
            entrypoint=("/bin/bash", "-c"),
            parameters=("echo $A",),
            environment={"A": "1=2", "EMPTY": "", "ALONE": ""},
            working_directory="/work",
        ),
        [],
    )


def test_names_in_any_case_maps_and_nulls_are_accepted() -> None:
    engine = docker(image="busybox", environmentvariables={"A": "1"}, Entrypoint=None, parameters=())
    assert read_params(engine) == (DockerParams(image="busybox", environment={"A": "1"}), [])


@pytest.mark.parametrize(
    ("params", "faults"),
    [
        ({}, ["Params.Image: missing"]),
        ({"Image": ""}, ["Params.Image: missing"]),
        ({"Image": 5}, ["Params.Image: not the name of an image"]),
        ({"Image": "a b"}, ["Params.Image: not the name of an image"]),
        ({"Image": "a", "Entrypoint": "sh -c"}, ["Params.Entrypoint: not a list of texts"]),
        (
            {"Image": "a", "Parameters": ["x", 1, "\0"]},
            ["Params.Parameters[1]: not a text", "Params.Parameters[2]: not a text"],
        ),
        ({"Image": "a", "EnvironmentVariables": "A=1"}, [f"{VARIABLES}: not a list of texts"]),
        ({"Image": "a", "EnvironmentVariables": ["=1"]}, [f"{VARIABLES}[0]: not the name of a variable"]),
        ({"Image": "a", "EnvironmentVariables": {"A": 1}}, [f"{VARIABLES}.A: not a text"]),
        (
            {"Image": "a", "EnvironmentVariables": {"A=B": "1"}},
            [f"{VARIABLES}.A=B: not the name of a variable"],
        ),
        ({"Image": "a", "WorkingDirectory": "here"}, ["Params.WorkingDirectory: not an absolute path"]),
        ({"Image": "a", "WorkingDirectory": 1}, ["Params.WorkingDirectory: not an absolute path"]),
    ],
)
def test_every_fault_is_named_by_its_path(params: dict[str, Any], faults: list[str]) -> None:
    assert [str(fault) for fault in DockerExecutor("node").faults(docker(**params))] == faults


def test_misspelt_parameter_is_a_fault_that_names_the_right_ones() -> None:
    (fault,) = DockerExecutor("node").faults(docker(Image="a", Command=["ls"]))
    assert fault == Fault(
        "Params.Command",
        "unknown; the docker engine has "
        "Image, Entrypoint, Parameters, EnvironmentVariables, WorkingDirectory",
    )


def test_container_is_named_for_its_execution_with_what_a_name_may_hold() -> None:
    assert container_name("e-4a1f.b_c") == "bacalhau-e-4a1f.b_c"
    assert container_name("e/4 a:ü") == "bacalhau-e-4-a--"
