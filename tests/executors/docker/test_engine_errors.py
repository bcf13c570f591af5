from __future__ import annotations

import errno

import pytest
import requests
from docker.errors import APIError

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.docker.engine_errors import is_permanent, root_cause, translated

SHIM = (
    "failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: "
)


OLD_RUNC = "OCI runtime create failed: container_linux.go:380: starting container process caused: "


@pytest.mark.parametrize(
    ("message", "cause", "permanent"),
    [
        (
            f'{SHIM}exec: "nosuch": executable file not found in $PATH: unknown',
            'exec: "nosuch": executable file not found in $PATH',
            True,
        ),
        (
            f'{OLD_RUNC}exec: "x": permission denied: unknown',
            'exec: "x": permission denied',
            True,
        ),
        (
            f'{SHIM}exec: "docker-init": executable file not found in $PATH: unknown',
            'exec: "docker-init": executable file not found in $PATH',
            False,
        ),
        (
            'invalid mount config for type "bind": bind source path does not exist: /nosuch',
            "bind source path does not exist: /nosuch",
            False,
        ),
        ("Cannot mkdir: /x is not a directory", "Cannot mkdir: /x is not a directory", True),
        ("Duplicate mount point: /inputs", "Duplicate mount point: /inputs", True),
        ("write /layer: no space left on device", "write /layer: no space left on device", False),
        ("", "the Docker engine failed", False),
    ],
)
def test_the_root_cause_decides_whether_an_error_is_permanent(
    message: str, cause: str, permanent: bool
) -> None:
    assert root_cause(message) == cause
    assert is_permanent(cause) is permanent


def test_a_socket_without_permission_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///somewhere")
    buried = requests.exceptions.ConnectionError(("Aborted", PermissionError(errno.EACCES, "denied")))
    with (
        pytest.raises(ExecutorError, match=r"^permission denied by the Docker engine at unix:///somewhere"),
        translated(),
    ):
        raise buried


@pytest.mark.parametrize(
    ("words", "said", "permanent"),
    [
        (f'{SHIM}exec: "x": permission denied: unknown', 'exec: "x": permission denied', True),
        (
            "write /var/lib/docker/x: no space left on device",
            "the disk of this node's Docker engine is full",
            False,
        ),
        ("invalid character 'T': password=hunter2", "the Docker engine failed", False),
        ("Duplicate mount point: /" + "x" * 100_000, "Duplicate mount point: /" + "x" * 476, True),
    ],
)
def test_the_engines_words_are_passed_on_only_where_they_are_about_the_job(
    words: str, said: str, permanent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ExecutorError) as caught, translated():
        raise APIError("500 Server Error", explanation=words)
    assert str(caught.value) == said
    assert caught.value.permanent is permanent
    assert permanent or words in caplog.text
