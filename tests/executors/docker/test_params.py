"""The engine parameters that `executor` accepts."""

from __future__ import annotations

from typing import Any

import pytest

from bacalhau_p2p.executors.docker.executor import DockerExecutor
from bacalhau_p2p.model.engine_params import DockerParams
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.validation import read_params

NO_IMAGE = "is not an image name, such as busybox:1.36 or ghcr.io/owner/name"
RELATIVE = "must be an absolute path, which begins with /, not 'here'"
VARIABLES = "Params.EnvironmentVariables"


def docker(**params: Any) -> SpecConfig:
    return SpecConfig(type="docker", params=params)


def test_bacalhaus_parameters_are_accepted() -> None:
    engine = docker(
        Image="ubuntu:22.04",
        Entrypoint=["/bin/bash", "-c"],
        Parameters=["echo $A"],
        EnvironmentVariables=["A=1=2", "EMPTY="],
        WorkingDirectory="/work",
    )
    assert DockerExecutor("node").faults(engine) == []
    assert read_params(DockerParams, engine) == DockerParams(
        image="ubuntu:22.04",
        entrypoint=("/bin/bash", "-c"),
        parameters=("echo $A",),
        environment_variables={"A": "1=2", "EMPTY": ""},
        working_directory="/work",
    )


def test_an_image_is_enough_and_variables_may_be_a_map() -> None:
    engine = docker(Image="busybox", EnvironmentVariables={"A": "1"}, Parameters=())
    assert DockerExecutor("node").faults(docker(Image="busybox")) == []
    assert read_params(DockerParams, engine) == DockerParams(
        image="busybox", environment_variables={"A": "1"}
    )


@pytest.mark.parametrize(
    ("params", "faults"),
    [
        ({}, ["Params.Image: missing"]),
        ({"Image": ""}, ["Params.Image: must not be empty"]),
        ({"Image": 5}, ["Params.Image: must be text, not 5"]),
        (
            {"Image": "a b"},
            [f"Params.Image: 'a b' {NO_IMAGE}"],
        ),
        ({"Image": "a", "Entrypoint": "sh -c"}, ["Params.Entrypoint: must be a list, not 'sh -c'"]),
        (
            {"Image": "a", "Parameters": ["x", 1, "\0"]},
            ["Params.Parameters[1]: must be text, not 1", "Params.Parameters[2]: must not contain NUL"],
        ),
        ({"Image": "a", "EnvironmentVariables": "A=1"}, [f"{VARIABLES}: must be a map, not 'A=1'"]),
        (
            {"Image": "a", "EnvironmentVariables": ["ALONE"]},
            [f"{VARIABLES}: must be a map or a list of NAME=value"],
        ),
        ({"Image": "a", "EnvironmentVariables": {"A": 1}}, [f"{VARIABLES}.A: must be text, not 1"]),
        (
            {"Image": "a", "EnvironmentVariables": {"A=B": "1"}},
            [f"{VARIABLES}.A=B: name must not contain '=' or NUL"],
        ),
        (
            {"Image": "a", "WorkingDirectory": "here"},
            [f"Params.WorkingDirectory: {RELATIVE}"],
        ),
        ({"Image": "a", "WorkingDirectory": 1}, ["Params.WorkingDirectory: must be text, not 1"]),
        ({"Image": "a", "Command": ["ls"]}, ["Params.Command: unknown key"]),
    ],
)
def test_every_fault_is_named_by_its_path(params: dict[str, Any], faults: list[str]) -> None:
    assert [str(fault) for fault in DockerExecutor("node").faults(docker(**params))] == faults
