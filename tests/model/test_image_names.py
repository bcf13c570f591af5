from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bacalhau_p2p.model.image_names import ImageName, is_registry

DIGEST = "sha256:" + "0f" * 32


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("owner/name", "docker.io/owner/name:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
        ("ghcr.io/owner/na-me__x.y:v1", "ghcr.io/owner/na-me__x.y:v1"),
        ("GHCR.io/owner/name", "ghcr.io/owner/name:latest"),
        (f"quay.io/a/b@{DIGEST}", f"quay.io/a/b@{DIGEST}"),
        (f"busybox:1@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("127.0.0.1:5000/admin/panel", "127.0.0.1:5000/admin/panel:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ("example.org/x", "example.org/x:latest"),
        ("1cdf456ec59b", "docker.io/library/1cdf456ec59b:latest"),
    ],
)
def test_a_name_is_read_as_engines_read_it(text, whole):
    assert str(ImageName.parse(text)) == whole
    assert str(ImageName.parse(whole)) == whole


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a b",
        "../containers/json?x=",
        "../../info?",
        "ghcr.io/../x",
        "ghcr.io//x",
        "ghcr.io/x/",
        "/x",
        "x:",
        "x:a:b",
        "x:" + "t" * 129,
        "x@",
        "x@sha256:abc",
        "x@md5:" + "0" * 32,
        "Upper",
        "ghcr.io/Upper",
        "a?b",
        "a#b",
        "a%2e",
        "http://ghcr.io/x",
        "user@ghcr.io/x",
        "ghcr.io:x/y",
        "ghcr.io:123456/y",
        "-x.io/y",
        "ex_ample.io/y",
        "xn--\u00e4.io/y",
        "\u0441afe/x",
        "x\n",
        "x" * 300,
        "a/" * 200 + "a",
    ],
)
def test_what_is_no_name_is_refused(text):
    with pytest.raises(ValueError, match=r"is not an image name, such as |^must have at most 256 "):
        ImageName.parse(text)


@given(st.text(max_size=300))
def test_every_name_that_is_accepted_is_safe_in_the_path_of_a_request(text):
    try:
        name = ImageName.parse(text)
    except ValueError:
        return
    assert set(str(name)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@[]")
    assert ".." not in name.path
    assert ImageName.parse(str(name)) == ImageName(
        name.registry, name.path, name.reference * (not name.digest), name.digest
    )


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("ghcr.io", True),
        ("127.0.0.1:5000", True),
        ("http://x", False),
        ("x/y", False),
        ("", False),
        ("*", False),
    ],
)
def test_the_host_of_a_registry_has_no_scheme_and_no_path(text, valid):
    assert is_registry(text) is valid
