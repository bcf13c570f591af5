from __future__ import annotations

import logging

import pytest

from bacalhau_p2p.executors.docker.image_pull import pull_failed
from bacalhau_p2p.model.image_names import ImageName

SECRET = (
    "error parsing HTTP 403 response body: invalid character 'T' looking for beginning of value: "
    '"TOP-SECRET-INTERNAL: password=hunter2"'
)


@pytest.mark.parametrize(
    ("words", "said", "permanent"),
    [
        ("manifest for x:1 not found: manifest unknown: manifest unknown", "not found", True),
        (
            "pull access denied for x, repository does not exist or may require 'docker login'",
            "not found",
            True,
        ),
        ("Head https://ghcr.io/v2/x/manifests/1: denied", "access denied", True),
        ("unauthorized: authentication required", "access denied", True),
        ("dial tcp: lookup ghcr.io: no such host", "registry unreachable", False),
        (
            "Get http://127.0.0.1:9/v2/: dial tcp 127.0.0.1:9: connect: connection refused",
            "registry unreachable",
            False,
        ),
        ("write /var/lib/docker/tmp/x: no space left on device", "the disk of this node is full", False),
        ("no matching manifest for linux/arm64 in the manifest list entries", "not for this platform", False),
        ("toomanyrequests: You have reached your pull rate limit", "the registry limits pulls", False),
        (SECRET, "registry unreachable", False),
        ("", "registry unreachable", False),
    ],
)
def test_only_the_class_of_a_failure_is_passed_on(
    words: str, said: str, permanent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="bacalhau_p2p")
    error = pull_failed(ImageName.parse("ghcr.io/a/b"), words)
    assert str(error) == f"image ghcr.io/a/b:latest: {said}"
    assert error.permanent is permanent
    assert words[:30] in caplog.text
